"""The workload: the clients that a plan (`workloads.py`) has, as processes; all but those that wait for a minute are killed and replaced, and
those with transactions also replaced while they stand still, so that they go on as zombies.

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

import compacted
import history
import topics
import transactions
from broker import die_with_parent
from journal import CLIENTS_A_PROCESS
from network import CLIENTS
from nodes import until
from observer import OBSERVER, PARTITIONS, TRANSACTIONAL, Observer, numbers
from places import COMPACT, INPUT, OUTPUT
from processor_share import ProcessorShare
from workloads import COMMITTED, COOPERATIVE, RANGE, TRANSACT, TRANSFORM, TRANSFORM_GROUP, UNCOMMITTED

HERE = pathlib.Path(__file__).resolve().parent
# The message timeout of one kind of producer outlasts a fault; the other's expires within it, so that outcomes are unknown.
PATIENT_MS, HASTY_MS = 60_000, 1_500
PROGRESS_SECONDS_MAX = 30
# What the clients that produce may take of the processor, all together, and which they are.
PRODUCER_CORES = 0.6
PRODUCING = ("producers", "transact", "transform")
# Of a client with transactions that is not killed but replaced while it stands still.
ZOMBIE_CHANCE = 0.5
TRANSACTION_SECONDS_MAX = 5


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
        self.share = ProcessorShare(PRODUCER_CORES)
        chosen = chance.choice([RANGE, COOPERATIVE])
        self.strategies = [chosen if strategy == "any" else strategy for strategy in plan.strategies]
        self.journal, self.lock = [], threading.Lock()
        # When something was acknowledged to each of those that have to make progress: partitions, groups, administrators.
        self.progress = {f"partition {p}": [] for p in numbers(plan.producers)}
        self.progress |= {f"the offsets of group {group}": [] for group in plan.kept_groups()}
        self.progress |= {role: [] for role in plan.roles() if role.startswith("admin")}
        self.progress |= {self.progress_of(number): [] for number in numbers(plan.transacted if plan.transactors else [])}
        self.running, self.clients, self.positions, self.gatherers, self.next_process = {}, {}, {}, [], OBSERVER + 1
        # By the client that has taken their place: those that stand still until it is initialized; and those that have gone on, with their roles.
        self.still, self.zombies = {}, []
        # By client: the partitions to which its open transaction writes.
        self.written = {}
        self.observer = Observer(network, bootstrap, topic, plan.topics(), self.take)

    # Clients as processes

    def group_name(self, number):
        return f"{self.topic}-group-{number}"

    def create_topics(self):
        self.observer.create_topics()
        for number in self.plan.transform_groups():
            self.observer.follow(number, self.group_name(number), INPUT)
        for number in [*self.plan.member_groups(), *self.plan.kept_groups()]:
            self.observer.follow(number, self.group_name(number))

    def start(self):
        for role in self.plan.roles():
            self.begin(role)

    def words(self, role):
        """What `client.py` is to do in this role: its kind, and what follows topic and number."""
        every, (kind, *ordinals) = ",".join(map(str, range(PARTITIONS))), role.split("-")
        listed = lambda *suffixes: ",".join(map(str, numbers(suffixes)))
        match kind:
            case "patient":
                # One for each partition of the first topic: one that takes no records does not keep the others waiting.
                first, *others = self.plan.producers
                return ["producers", str(PATIENT_MS), *map(str, numbers([first])), *map(listed, others)]
            case "hasty":
                return ["producers", str(HASTY_MS), *[listed(*self.plan.producers)] * 2]
            case "member":
                group = int(ordinals[0])
                return ["member", self.group_name(group), str(group), self.strategies[group]]
            case "reader":
                return ["reader", every]
            case "rereader":
                return ["rereader", listed(COMPACT)]
            case "keepers":
                return ["keepers", every, *(f"{self.group_name(group)},{group}" for group in self.plan.kept_groups(int(ordinals[0])))]
            case "transact":
                return ["transact", f"{self.topic}-{role}", listed(*self.plan.transacted)]
            case "transform":
                return ["transform", f"{self.topic}-{role}", self.group_name(TRANSFORM_GROUP), str(TRANSFORM_GROUP), listed(OUTPUT)]
            case "committed" | "uncommitted":
                return ["isolated", f"read_{kind}", listed(*TRANSACTIONAL)]
        return ["admin", ",".join(map(str, self.factors))]

    def begin(self, role):
        number, self.next_process = self.next_process, self.next_process + 1
        kind, *rest = self.words(role)
        command = [sys.executable, str(HERE / "client.py"), kind, self.bootstrap, self.topic, str(number), *rest]

        def prepare():
            die_with_parent()
            if kind in PRODUCING:
                self.share.enter()

        process = subprocess.Popen(
            [*self.network.command(CLIENTS), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            env={**os.environ, **self.network.environment},
            preexec_fn=prepare,
        )
        client = number * CLIENTS_A_PROCESS
        with self.lock:
            # It takes the place of one that others waited for.
            if waiting := self.still.pop(self.clients.get(role), None):
                self.still[client] = waiting
            self.running[role], self.clients[role] = process, client
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
            case "reached":
                # Those that transform share the partitions of their group: what one has reached all have.
                own = self.positions.setdefault(TRANSFORM if role.startswith(TRANSFORM) else line["client"], {})
                own.update((partition, max(offset, own.get(partition, 0))) for partition, offset in line["ends"])
            case "initialized":
                self.release(self.still.pop(line["client"], []))
            case "begin":
                self.written[line["client"]] = set()
            case "write":
                self.written[line["client"]] |= {partition for partition, _ in line["records"]}
            case "done":
                written = self.written.pop(line["client"])
                is_progress = line["told"] == transactions.COMMITTED and role.startswith(TRANSACT)
                for progress in set(map(self.progress_of, written)) if is_progress else ():
                    self.progress[progress].append(t)

    def progress_of(self, partition):
        """Where few clients have transactions one of them says enough: that each partition takes records others show."""
        return "transactions" if self.plan.producers else f"transactions to partition {partition}"

    def replaceable(self):
        return [role for role in self.running if role != history.PATIENT]

    def crash(self):
        """kill -9 of a client; another one takes its place. Returns which one, and whether it was kept."""
        role = self.chance.choice(self.replaceable())
        if role.startswith((TRANSACT, TRANSFORM)) and self.chance.random() < ZOMBIE_CHANCE:
            self.supersede(role)
            return f"{role} (but kept it as a zombie)"
        self.running[role].kill()
        self.running[role].wait()
        self.begin(role)
        return role

    def supersede(self, role):
        """SIGSTOP of a client, in a transaction if it comes to one. It goes on when another one with its transactional id is initialized, and is
        told to end with this transaction."""
        process, client = self.running[role], self.clients[role]
        with contextlib.suppress(AssertionError):
            until("the client has written in a transaction", lambda: self.written.get(client), TRANSACTION_SECONDS_MAX)
        process.send_signal(signal.SIGSTOP)
        self.begin(role)
        with self.lock:
            self.still.setdefault(self.clients[role], []).append((role, process))
            is_late = any(line["do"] == "initialized" and line["client"] == self.clients[role] for line in reversed(self.journal))
            if is_late:
                self.release(self.still.pop(self.clients[role]))

    def release(self, waiting):
        for role, process in waiting:
            process.stdin.close()
            process.send_signal(signal.SIGCONT)
            self.zombies.append((role, process))

    def end_zombies(self):
        """Returns those that did not end."""
        with self.lock:
            for client in list(self.still):
                self.release(self.still.pop(client))
        # librdkafka (2.16) may crash when it is fenced while it commits offsets: its heap is damaged then.
        codes = (0, -signal.SIGSEGV, -signal.SIGABRT)
        failed = [self.end(f"{role}, a zombie,", process, codes) for role, process in self.zombies]
        self.zombies = []
        return list(filter(None, failed))

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
            failed.append(self.end(role, one))
        return list(filter(None, failed))

    def end(self, role, one, codes=(0,)):
        """Waits for the end of a process that was told to end. What went wrong, if anything did."""
        try:
            code = one.wait(PATIENT_MS / 1000 + 15)
        except subprocess.TimeoutExpired:
            one.kill()
            code = "none"
        return f"client {role} ended with exit code {code}, see clients.log" if code not in codes else None

    def kill(self):
        still = [process for waiting in self.still.values() for _, process in waiting]
        for one in [*self.running.values(), *still, *(process for _, process in self.zombies)]:
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
        said += [f"{found['polled']} read by consumers"] if self.plan.readers or self.plan.strategies else []
        said += [f"{found['commits']} commits acknowledged and {found['fetches']} times fetched"] if self.plan.strategies or self.plan.keepers else []
        if self.plan.admins:
            known, unknown, looks = topics.counts(self.journal)
            behind = topics.longest_behind(self.journal)
            said.append(f"{known} changes of topics acknowledged, {unknown} of unknown outcome, {looks} times asked, a node {behind:.2f} s behind at most")
        if self.plan.transactors:
            done = transactions.counts(self.journal)
            outcomes = f"{done['committed']} transactions committed, {done['aborted']} aborted, {done['unknown']} of unknown outcome"
            transformed = f", {done['transformed']} records transformed" if self.plan.transforms else ""
            said.append(f"{outcomes}, {done['fenced']} times a producer was fenced{transformed}")
        if self.plan.rereaders:
            done = compacted.counts(self.journal)
            said.append(f"the whole compacted topic read {done['reads']} times by clients and {done['observed']} times in the end, {done['late']} times too slowly")
            said.append(f"{done['gone']} of its {done['records']} acknowledged records gone, {done['tombstones']} of them old tombstones that nothing replaced")
        return ", ".join(said)

    def unproved(self):
        """Clients of the plan that got nothing that could be judged."""
        found, (changes, _, _) = history.counts(self.journal), topics.counts(self.journal)
        done, swept = transactions.counts(self.journal), compacted.counts(self.journal)
        got = {
            "no record was acknowledged": not self.plan.producers or found["acknowledged"],
            "no consumer read a record": not (self.plan.readers or self.plan.strategies) or found["polled"],
            "no commit was acknowledged": not (self.plan.strategies or self.plan.keepers) or found["commits"],
            "no committed offset was fetched": not (self.plan.strategies or self.plan.keepers) or found["fetches"],
            "no change of a topic was acknowledged": not self.plan.admins or changes,
            "no transaction was committed": not self.plan.transactors or done["committed"],
            "no transaction was aborted": not self.plan.transactors or done["aborted"],
            "no record was transformed": not self.plan.transforms or done["transformed"],
            "no client read the whole compacted topic": not self.plan.rereaders or swept["reads"],
            "nothing was compacted": not self.plan.proves_compaction() or swept["gone"],
        }
        return [what for what, is_there in got.items() if not is_there]

    # The end

    def finish(self):
        """Stops all clients, those that consume when they have caught up. Returns those that did not stop."""
        failed = self.stop("patient", "hasty", "keepers", "admin", TRANSACT)
        self.observer.wait_for_groups(self.plan.member_groups())
        if self.plan.readers:
            self.observer.wait_for_readers(lambda: self.positions_of("reader"))
        failed += self.stop("member", "reader", "rereader")
        return failed + (self.finish_transactions() if self.plan.transactors else [])

    def finish_transactions(self):
        """Producers have been stopped: what stood still goes on, and when no transaction is open all of the input is transformed and read."""
        failed = self.end_zombies()
        self.observer.wait_for_transactions(self.plan.transacted)
        if self.plan.transforms:
            self.observer.wait_for_readers(lambda: [self.positions.get(TRANSFORM, {})], [INPUT])
            failed += self.stop(TRANSFORM)
            self.observer.wait_for_transactions(TRANSACTIONAL)
        if self.plan.isolated:
            self.observer.wait_for_readers(lambda: self.positions_of(COMMITTED, UNCOMMITTED), TRANSACTIONAL)
        return failed + self.stop(COMMITTED, UNCOMMITTED)

    def positions_of(self, *kinds):
        return [self.positions.get(client, {}) for role, client in self.clients.items() if role.startswith(kinds)]

    def look(self, racks=("",)):
        """What groups have committed, what nodes show, and all records through the replicas of each zone."""
        self.observer.wait_for_groups(self.plan.member_groups())
        self.observer.fetch_all([*self.plan.kept_groups(), *self.plan.transform_groups()])
        if self.plan.admins:
            self.observer.settle_topics(sorted(self.journal, key=lambda line: line["t"]))
        for rack in racks if self.plan.has_records() else ():
            self.observer.read_all(rack, settled=True)

    def clean_up(self):
        with contextlib.suppress(Exception):
            self.observer.delete_topics()
