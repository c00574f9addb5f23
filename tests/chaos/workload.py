"""The workload: producers, with long and with short timeouts, and a consumer group; some clients are killed and replaced.

Each is a process in the clients' namespace (`client.py`); their journals are collected here. May not know: faults, the verdict.
"""

import json
import pathlib
import subprocess
import sys
import threading
import time

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

import history
from broker import die_with_parent
from client import COMMON, value_of
from network import CLIENTS
from nodes import until

HERE = pathlib.Path(__file__).resolve().parent
TOPIC, GROUP, PARTITIONS, FACTOR = "chaos", "readers", 6, 3
MEMBERS = 3
# The message timeout of one kind of producer outlasts a fault; the other's expires within it, so that outcomes are unknown.
PATIENT_MS, HASTY_MS = 60_000, 1_500
PROGRESS_SECONDS_MAX = 30
CATCH_UP_SECONDS_MAX = 60
# The client that queries and reads at the end.
OBSERVER = 0


def end_of(one, partition):
    """One more than a partition's end; None while a leader is looked for. A consumer's first question may find its own list empty."""
    try:
        return one.get_watermark_offsets(TopicPartition(TOPIC, partition), timeout=30)[1] + 1
    except KafkaException:
        return None


class Workload:
    def __init__(self, network, bootstrap, directory, chance):
        self.network, self.bootstrap, self.chance = network, bootstrap, chance
        self.log = open(directory / "clients.log", "ab")
        self.strategy = chance.choice(["range", "cooperative-sticky"])
        self.journal, self.lock = [], threading.Lock()
        # By partition: when records were acknowledged to those producers that wait.
        self.acknowledged = [[] for _ in range(PARTITIONS)]
        self.running, self.readers, self.next_client = {}, [], OBSERVER + 1
        self.observer = None

    # Clients as processes

    def create_topic(self):
        with self.network.inside(CLIENTS):
            admin = AdminClient({**COMMON, "bootstrap.servers": self.bootstrap})
            settings = {**COMMON, "bootstrap.servers": self.bootstrap, "group.id": GROUP, "enable.auto.commit": False}
            self.observer = Consumer(settings)
        admin.create_topics([NewTopic(TOPIC, PARTITIONS, FACTOR)])[TOPIC].result(30)
        until("the topic has leaders", lambda: self.has_leaders(admin))

    def has_leaders(self, admin):
        found = admin.list_topics(TOPIC, timeout=10).topics[TOPIC].partitions
        return len(found) == PARTITIONS and all(part.leader > 0 for part in found.values())

    def start(self):
        self.begin("patient")
        self.begin("hasty")
        for number in range(MEMBERS):
            self.begin(f"member-{number}")

    def begin(self, role):
        client, self.next_client = self.next_client, self.next_client + 1
        every = ",".join(map(str, range(PARTITIONS)))
        words = {
            "patient": ["producers", str(PATIENT_MS), *map(str, range(PARTITIONS))],
            "hasty": ["producers", str(HASTY_MS), every, every],
        }.get(role, ["consumer", GROUP, self.strategy])
        command = [sys.executable, str(HERE / "client.py"), words[0], self.bootstrap, TOPIC, str(client), *words[1:]]
        process = subprocess.Popen(
            [*self.network.command(CLIENTS), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            preexec_fn=die_with_parent,
        )
        self.running[role] = process
        reader = threading.Thread(target=self.gather, args=(role, process), daemon=True)
        reader.start()
        self.readers.append(reader)

    def gather(self, role, process):
        for text in process.stdout:
            # Only a client that was killed leaves half a line.
            if not text.endswith(b"\n"):
                return
            line = json.loads(text)
            line["role"] = role
            with self.lock:
                self.journal.append(line)
                if role == "patient" and line["do"] == "sent":
                    self.note_acknowledged(line)

    def note_acknowledged(self, line):
        sent = next(one for one in reversed(self.journal) if one["do"] == "send" and one["client"] == line["client"])
        for (partition, _), (offset, t) in zip(sent["records"], line["results"]):
            if offset is not None:
                self.acknowledged[partition].append(t)

    def crash(self):
        """kill -9 of a client; another one takes its place. Returns which one."""
        role = self.chance.choice([role for role in self.running if role != "patient"])
        self.running[role].kill()
        self.running[role].wait()
        self.begin(role)
        return role

    def ended(self):
        return [f"client {role} ended by itself, see clients.log" for role, one in self.running.items() if one.poll() is not None]

    def stop(self, kind):
        """Stops the clients gracefully. Returns those that did not stop."""
        chosen = {role: one for role, one in self.running.items() if role.startswith(kind)}
        failed = []
        for one in chosen.values():
            one.stdin.close()
        for role, one in chosen.items():
            del self.running[role]
            try:
                code = one.wait(PATIENT_MS / 1000 + 15)
            except subprocess.TimeoutExpired:
                one.kill()
                code = "none"
            if code != 0:
                failed.append(f"client {role} ended with exit code {code}, see clients.log")
        return failed

    def kill(self):
        for one in self.running.values():
            one.kill()
            one.wait()

    # Observations during the run

    def progress_since(self, t):
        """Waits until every partition has taken a record that was acknowledged later than `t`."""
        silent = lambda: [p for p, times in enumerate(self.acknowledged) if not times or times[-1] <= t]
        try:
            until("every partition takes records", lambda: not silent(), PROGRESS_SECONDS_MAX)
        except AssertionError:
            raise AssertionError(f"partitions {silent()} took no record for {PROGRESS_SECONDS_MAX} s after the fault") from None

    def longest_gap(self, begun, ended):
        """Seconds in which a partition acknowledged nothing, where some of it lies in that time."""
        return max(history.longest_gap(times, begun, ended) for times in self.acknowledged) / 1e9

    def errors_since(self, begun):
        """Errors that were reported to applications since then."""
        with self.lock:
            return history.application_errors(self.journal, begun, time.monotonic_ns())

    def counts(self):
        results = [offset for line in self.journal if line["do"] == "sent" for offset, _ in line["results"]]
        known = sum(offset is not None for offset in results)
        sent = sum(len(line["records"]) for line in self.journal if line["do"] == "send")
        polled = sum(len(line["records"]) for line in self.journal if line["do"] == "poll")
        commits = sum(len(line["partitions"]) for line in self.journal if line["do"] == "committed")
        return f"{known} records acknowledged, {sent - known} of unknown outcome, {polled} read in the group, {commits} commits acknowledged"

    # The end

    def say(self, what, begun, **more):
        with self.lock:
            self.journal.append({"do": what, "t": time.monotonic_ns(), "client": OBSERVER, "begun": begun, **more})

    def committed(self):
        """What the group has committed, by partition."""
        begun = time.monotonic_ns()
        found = self.observer.committed([TopicPartition(TOPIC, p) for p in range(PARTITIONS)], timeout=10)
        if any(tp.error for tp in found):
            return None
        offsets = [(tp.partition, None if tp.offset < 0 else tp.offset) for tp in found]
        self.say("fetched", begun, offsets=offsets)
        return dict(offsets)

    def ends(self, one):
        return {p: until(f"the end of partition {p} is told", lambda: end_of(one, p)) - 1 for p in range(PARTITIONS)}

    def caught_up(self):
        """Waits until the group has read and committed everything."""

        def done():
            try:
                return self.committed() == self.ends(self.observer)
            # The coordinator is not found yet.
            except KafkaException:
                return False

        until("the group has committed everything", done, CATCH_UP_SECONDS_MAX)

    def read_all(self, rack=""):
        """Reads everything from the beginning, from the leaders or from the replicas of a zone."""
        settings = {"group.id": "auditor", "enable.auto.commit": False, "auto.offset.reset": "error", "client.rack": rack}
        with self.network.inside(CLIENTS):
            one = Consumer({**COMMON, "bootstrap.servers": self.bootstrap, **settings})
        try:
            begun, ends, records = time.monotonic_ns(), self.ends(one), []
            next_offsets = {p: 0 for p, end in ends.items() if end > 0}
            one.assign([TopicPartition(TOPIC, p, 0) for p in next_offsets])
            deadline = time.monotonic() + CATCH_UP_SECONDS_MAX
            while any(offset < ends[p] for p, offset in next_offsets.items()):
                if time.monotonic() > deadline:
                    raise AssertionError(f"partitions can not be read to their ends {ends}, only to {next_offsets}")
                for message in one.consume(1000, 0.5):
                    if message.error() is not None:
                        raise AssertionError(f"partition {message.partition()} at offset {message.offset()}: {message.error()}")
                    if message.offset() < ends[message.partition()]:
                        records.append((message.partition(), message.offset(), value_of(message.value())))
                        next_offsets[message.partition()] = message.offset() + 1
            self.say("read", begun, records=records, ends=sorted(ends.items()))
            return len(records)
        finally:
            one.close()
