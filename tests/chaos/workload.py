"""The workload: the clients that a plan (`workloads.py`) has, as processes; all but those that wait for a minute are killed and replaced.

Their journals are collected here, and the observer's (`observer.py`). May not know: faults, the verdict.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
import typing

import history
import topics
from broker import die_with_parent
from journal import CLIENTS_A_PROCESS
from network import CLIENTS
from nodes import until
from observer import OBSERVER, PARTITIONS, Observer
from workloads import COOPERATIVE, RANGE

HERE = pathlib.Path(__file__).resolve().parent
# The message timeout of one kind of producer outlasts a fault; the other's expires within it, so that outcomes are unknown.
PATIENT_MS, HASTY_MS = 60_000, 1_500
PROGRESS_SECONDS_MAX = 30


@dataclasses.dataclass
class Stopped:
    """A client that stands still: its state as the kernel has it, how many lines it has written, and how it goes on."""

    role: str
    state: typing.Callable
    lines: typing.Callable
    go_on: typing.Callable


class Workload:
    def __init__(self, network, bootstrap, directory, chance, plan, topic, factors):
        """`factors`: how many replicas the topics of administrators may have."""
        self.factors = factors
        self.network, self.bootstrap, self.chance, self.plan, self.topic = network, bootstrap, chance, plan, topic
        self.log = open(directory / "clients.log", "ab")
        chosen = chance.choice([RANGE, COOPERATIVE])
        self.strategies = [chosen if strategy == "any" else strategy for strategy in plan.strategies]
        self.journal, self.lock = [], threading.Lock()
        # When something was acknowledged to each of those that have to make progress: partitions, groups, administrators.
        self.progress = {f"partition {p}": [] for p in range(PARTITIONS if plan.producers else 0)}
        self.progress |= {f"the offsets of group {group}": [] for group in plan.kept_groups()}
        self.progress |= {role: [] for role in plan.roles() if role.startswith("admin")}
        self.running, self.clients, self.positions, self.gatherers, self.next_process = {}, {}, {}, [], OBSERVER + 1
        self.observer = Observer(network, bootstrap, topic, self.take)

    # Clients as processes

    def group_name(self, number):
        return f"{self.topic}-group-{number}"

    def create_topic(self):
        self.observer.create_topic()
        for number in [*self.plan.member_groups(), *self.plan.kept_groups()]:
            self.observer.follow(number, self.group_name(number))

    def start(self):
        for role in self.plan.roles():
            self.begin(role)

    def words(self, role):
        """What `client.py` is to do in this role: its kind, and what follows topic and number."""
        every, (kind, *numbers) = ",".join(map(str, range(PARTITIONS))), role.split("-")
        match kind:
            case "patient":
                return ["producers", str(PATIENT_MS), *map(str, range(PARTITIONS))]
            case "hasty":
                return ["producers", str(HASTY_MS), every, every]
            case "member":
                group = int(numbers[0])
                return ["member", self.group_name(group), str(group), self.strategies[group]]
            case "reader":
                return ["reader", every]
            case "keepers":
                return ["keepers", every, *(f"{self.group_name(group)},{group}" for group in self.plan.kept_groups(int(numbers[0])))]
        return ["admin", ",".join(map(str, self.factors))]

    def begin(self, role):
        number, self.next_process = self.next_process, self.next_process + 1
        kind, *rest = self.words(role)
        command = [sys.executable, str(HERE / "client.py"), kind, self.bootstrap, self.topic, str(number), *rest]
        process = subprocess.Popen(
            [*self.network.command(CLIENTS), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            env={**os.environ, **self.network.environment},
            preexec_fn=die_with_parent,
        )
        self.running[role], self.clients[role] = process, number * CLIENTS_A_PROCESS
        gatherer = threading.Thread(target=self.gather, args=(role, process), daemon=True)
        gatherer.start()
        self.gatherers.append(gatherer)

    def gather(self, role, process):
        for text in process.stdout:
            # Only a client that was killed leaves half a line.
            if not text.endswith(b"\n"):
                return
            line = history.compact(json.loads(text))
            line["role"] = role
            self.take(line)

    def take(self, line):
        with self.lock:
            self.journal.append(line)
            self.note_progress(line)

    def note_progress(self, line):
        role, t = line.get("role", ""), line["t"]
        match line["do"]:
            case "sent" if role == history.PATIENT:
                sent = next(one for one in reversed(self.journal) if one["do"] == "send" and one["client"] == line["client"])
                for (partition, _), (offset, at) in zip(sent["records"], line["results"]):
                    if offset is not None:
                        self.progress[f"partition {partition}"].append(at)
            case "committed" if role.startswith("keepers") and line["partitions"]:
                self.progress[f"the offsets of group {line['group']}"].append(t)
            case "changed" if line["error"] is None:
                self.progress[role].append(t)
            case "poll" if role.startswith("reader"):
                own = self.positions.setdefault(line["client"], {})
                own.update((partition, offset + 1) for partition, offset, _ in line["records"])

    def replaceable(self):
        return [role for role in self.running if role != history.PATIENT]

    def crash(self):
        """kill -9 of a client; another one takes its place. Returns which one."""
        role = self.chance.choice(self.replaceable())
        self.running[role].kill()
        self.running[role].wait()
        self.begin(role)
        return role

    def stop_client(self):
        """SIGSTOP of a client."""
        role = self.chance.choice(self.replaceable())
        process, client = self.running[role], self.clients[role]
        own = lambda line: line["client"] in range(client, client + CLIENTS_A_PROCESS)
        process.send_signal(signal.SIGSTOP)
        return Stopped(
            role,
            state=lambda: pathlib.Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0],
            lines=lambda: sum(map(own, list(self.journal))),
            go_on=lambda: process.send_signal(signal.SIGCONT),
        )

    def ended(self):
        return [f"client {role} ended by itself, see clients.log" for role, one in self.running.items() if one.poll() is not None]

    def stop(self, *kinds):
        """Stops the clients gracefully. Returns those that did not stop."""
        chosen = {role: one for role, one in self.running.items() if role.startswith(kinds)}
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
        """Waits until everything that has to make progress has got an acknowledgement later than `t`."""
        silent = lambda: [what for what, times in self.progress.items() if not times or times[-1] <= t]
        try:
            until("everything makes progress", lambda: not silent(), PROGRESS_SECONDS_MAX)
        except AssertionError:
            raise AssertionError(f"{', '.join(silent())}: nothing was acknowledged for {PROGRESS_SECONDS_MAX} s after the fault") from None

    def longest_gap(self, begun, ended):
        """Seconds in which a partition acknowledged nothing, where some of it lies in that time; without producers, the same of the others."""
        partitions = {what: times for what, times in self.progress.items() if what.startswith("partition")}
        return max(history.longest_gap(times, begun, ended) for times in (partitions or self.progress).values()) / 1e9

    def errors_since(self, begun):
        """Errors that were reported to applications since then."""
        with self.lock:
            return history.application_errors(self.journal, begun, time.monotonic_ns())

    def counts(self):
        """What was done, in a sentence; only of clients that there were."""
        found = history.counts(self.journal)
        said = [f"{found['acknowledged']} records acknowledged, {found['unknown']} of unknown outcome"] if self.plan.producers else []
        said += [f"{found['polled']} read by consumers"] if self.plan.producers else []
        said += [f"{found['commits']} commits acknowledged and {found['fetches']} times fetched"] if self.plan.strategies or self.plan.keepers else []
        if self.plan.admins:
            known, unknown, looks = topics.counts(self.journal)
            behind = topics.longest_behind(self.journal)
            said.append(f"{known} changes of topics acknowledged, {unknown} of unknown outcome, {looks} times asked, a node {behind:.2f} s behind at most")
        return ", ".join(said)

    def unproved(self):
        """Clients of the plan that got nothing that could be judged."""
        found, (changes, _, _) = history.counts(self.journal), topics.counts(self.journal)
        got = {
            "no record was acknowledged": not self.plan.producers or found["acknowledged"],
            "no consumer read a record": not self.plan.producers or found["polled"],
            "no commit was acknowledged": not (self.plan.strategies or self.plan.keepers) or found["commits"],
            "no committed offset was fetched": not (self.plan.strategies or self.plan.keepers) or found["fetches"],
            "no change of a topic was acknowledged": not self.plan.admins or changes,
        }
        return [what for what, is_there in got.items() if not is_there]

    # The end

    def finish(self):
        """Stops all clients, those that consume when they have caught up. Returns those that did not stop."""
        failed = self.stop("patient", "hasty", "keepers", "admin")
        self.observer.wait_for_groups(self.plan.member_groups())
        if self.plan.readers:
            readers = [client for role, client in self.clients.items() if role.startswith("reader")]
            self.observer.wait_for_readers(lambda: [self.positions.get(client, {}) for client in readers])
        return failed + self.stop("member", "reader")

    def look(self, racks=("",)):
        """What groups have committed, what nodes show, and all records through the replicas of each zone."""
        self.observer.wait_for_groups(self.plan.member_groups())
        self.observer.fetch_all(self.plan.kept_groups())
        if self.plan.admins:
            self.observer.settle_topics(sorted(self.journal, key=lambda line: line["t"]))
        for rack in racks if self.plan.producers else ():
            self.observer.read_all(rack)

    def clean_up(self):
        with contextlib.suppress(Exception):
            self.observer.delete_topics()
