#!/usr/bin/env python3
"""A cluster of real processes under faults, checked record by record through librdkafka.

Usage: tests/chaos/run.py [--nodes 3|5] [--workload NAME] [--nemesis KIND,...] [--time-limit SECONDS] [--seed N] [--broker PATH] [--old-broker PATH]
       [--system ottla|kafka] [--jars DIRECTORY] [--judge PATH] [--keep] [--report FILE]
       tests/chaos/run.py --bootstrap HOST:PORT,... [--containers NAME,...] ...
Needs root (network namespaces, iptables), tests/setup and `cargo build --release`. Each node has a network namespace and a zone (a, b, c); so
have the clients, which are killed, too. Then the nemesis stops, everything is read from every zone, all nodes are killed at once and started
again, and everything is read once more. The workloads (docs/chaos.md says what each of them proves):

  queue    idempotent producers write with acks=all, consumers without a group read from the beginning
  group    the same producers, two consumer groups read and commit
  offsets  clients that are no members commit and fetch offsets in many groups
  metadata topics are made, altered, given partitions, deleted and made again; each node is asked what it shows
  txn      transactions over several partitions, some aborted on purpose; consume, transform, produce; zombies; readers of each isolation level
  compaction
           records with keys, and tombstones, in a compacted topic, some in transactions; the whole topic is read again and again
  mixed    all of these at once, which is the default

  kill     kill -9 of a node, and its start         leader   a leader is cut off; another node has to take over
  pause    SIGSTOP, SIGCONT                         zone     kill -9 of all nodes of a zone
  cut      a node is cut off                        replace  kill -9, an empty disk under the same node id
  oneway   a node hears nothing, or is not heard    roll     every node restarted by SIGTERM, one after the other

Without `--nemesis` these. `--nemesis all` adds the following, as far as they can be here, and `delay+kill` is two at once (the first one of
delay, loss, clock); docs/chaos.md says how each effect is measured:

  delay    bytes between nodes come late            power    loss of power, of a zone or of all nodes
  loss     packets between nodes are lost           bitflip  a node is killed and one bit of its disk turned
  full     a node's disk is full                    clock    a node's wall clock jumps, and back
  hang     a node's disk hangs                      join     a further node joins, takes replicas, is unregistered
  eio      every access to a node's disk is an EIO  stall    a client stands still for longer than its session
  split    shards are split, one after the other    merge    shards are merged into others, one after the other
  resize   a topic asks for other shards            directory  a node's replicas move to its other data directory

With `--old-broker` (tests/chaos/older_build makes one) all nodes begin with that build, and there is a further kind:

  upgrade  every node ended by SIGTERM and started with the newer build, one after the other; no client may get an error from it

With `--system kafka` the nodes are those of a real Apache Kafka, from the jars that tests/setup has fetched. With `--bootstrap` they are of any
cluster that runs already; then no root is needed, and only clients are disturbed: stall, delay, loss. With `--containers`, the names of its
containers in the order of their node ids, they are killed, paused and restarted, too.

`--nemesis sabotage` is there to see a run fail: every disk falls back by some seconds, so what was acknowledged is lost.

Every kind that was asked for happens once at least, and then again until the time is over. Prints a line a fault with the longest time in which
a partition acknowledged nothing, and the verdict of `tests/checker`. Exit code 0: valid; 1: a promise was broken (the nodes' logs and
the history are kept); 2: unknown, no fault of some kind had an effect, nothing was read, or nothing was compacted where that is what is
tested. Each run leaves a page of HTML (`page`), and says where.
"""

import argparse
import contextlib
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "clients"))

from table import JARS, PYTHON, ROOT

# The clients are librdkafka's, from where tests/setup has put it.
if os.path.realpath(sys.prefix) != os.path.realpath(pathlib.Path(PYTHON).parents[1]):
    os.execv(PYTHON, [PYTHON, *sys.argv])

import confluent_kafka
from confluent_kafka import KafkaException

import effects
import history
import page
import truncations
from nemesis import UPGRADE, Nemesis, NoEffect, chosen, deck
from network import CLIENTS, Here, Network
from nodes import until
from page import recorded, surroundings
from systems import FOREIGN, KAFKA, OTTLA, OWN, SYSTEMS, name_of
from workload import Workload
from workloads import MIXED, PLANS

VALID, INVALID, UNKNOWN = 0, 1, 2
VERDICTS = {VALID: "valid", INVALID: "INVALID", UNKNOWN: "unknown"}
CRASH_CHANCE = 0.6
TOPIC = "chaos"
# Of a run without a fault that can be.
UNDISTURBED_SECONDS_MIN = 10


def say(line):
    print(line, flush=True)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=3, choices=(3, 5))
    parser.add_argument("--workload", default=MIXED, choices=list(PLANS))
    parser.add_argument("--system", default=OTTLA, choices=OWN)
    parser.add_argument("--bootstrap", metavar="HOST:PORT,...", help="a cluster that runs already, in place of one of the runner's own")
    parser.add_argument("--containers", metavar="NAME,...", help="the containers of that cluster's nodes")
    parser.add_argument("--nemesis", metavar="KIND,...")
    parser.add_argument("--time-limit", type=float, default=60, metavar="SECONDS")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--broker", help="the build of Ottla that is tested, else target/release/ottla")
    parser.add_argument("--old-broker", metavar="PATH", help="the build with which all nodes begin, for the kind upgrade")
    parser.add_argument("--jars", help="the folder of Apache Kafka's jars, else that of tests/setup")
    parser.add_argument("--judge", help="the checker's example `judge`, else cargo builds it")
    parser.add_argument("--keep", action="store_true", help="keep logs and history of a valid run, too")
    parser.add_argument("--report", type=pathlib.Path, metavar="FILE", help="where the page of the run goes, else into its directory")
    given = parser.parse_args()
    complete(given)
    try:
        given.kinds = chosen(given.nemesis, SYSTEMS[given.tested])
    except ValueError as strange:
        parser.error(str(strange))
    if given.containers and not given.bootstrap:
        parser.error("--containers belongs to --bootstrap")
    if (UPGRADE in given.kinds) != bool(given.old_broker):
        parser.error(f"{UPGRADE} and --old-broker belong together")
    if given.old_broker and not plan_of(given).topics():
        parser.error(f"a cluster of an older build is given no transactions, and {given.workload} has nothing else")
    if given.report and not given.report.absolute().parent.is_dir():
        parser.error(f"there is no directory for {given.report}")
    return given


def plan_of(given):
    """An older build may not have transactions, and an upgraded cluster has them only when its feature level is raised."""
    plan = PLANS[given.workload]
    return plan.without_transactions() if given.old_broker else plan


def complete(given):
    """What follows from the other arguments. What does not matter is None, so that the command that repeats the run does not have it."""
    given.tested = name_of(given)
    given.nemesis = given.nemesis or ",".join(SYSTEMS[given.tested].usual)
    if given.tested == OTTLA:
        given.broker = given.broker or str(ROOT / "target" / "release" / "ottla")
    if given.tested == KAFKA:
        given.jars = given.jars or JARS
    if given.bootstrap:
        given.system = given.nodes = None


class Run:
    def __init__(self, given, directory):
        self.given, self.directory = given, directory
        chance = random.Random(given.seed)
        self.chance = chance
        self.network = Here() if given.bootstrap else Network(range(1, given.nodes + 1), [given.nodes + 1])
        self.system = SYSTEMS[given.tested]
        # Nothing else in a cluster that others use has this name.
        topic = f"{TOPIC}-{given.seed}-{time.time_ns() // 1_000_000}" if given.bootstrap else TOPIC
        plan = plan_of(given)
        # On which faults act.
        target = topic + plan.topics()[0]
        self.nodes = self.system.nodes(given, directory, self.network, target)
        factors = sorted({min(factor, len(self.nodes)) for factor in self.system.factors})
        self.workload = Workload(self.network, self.nodes.bootstrap, directory, chance, plan, topic, factors)
        self.nemesis = Nemesis(self.nodes, self.network, target, chance, given.broker, self.system)
        self.nemesis.read_all, self.nemesis.stop_client = self.workload.observer.read_all, self.workload.stop_client
        self.complaints, self.without_effect, self.gaps = [], [], {}
        # Kinds of faults that had a measured effect at least once; without it the run proves nothing of them.
        self.effective = set()
        # For the page.
        self.began, self.unix, self.faults, self.journal, self.judged = time.monotonic_ns(), time.time(), [], [], None

    def remove(self):
        clean_up = self.workload.clean_up if self.given.bootstrap else lambda: None
        for end in (self.workload.kill, self.workload.share.remove, self.nodes.kill, self.keep_data, clean_up, self.nemesis.remove, self.network.remove):
            with contextlib.suppress(OSError):
                end()

    def keep_data(self):
        """Of a run that is invalid, what lies on the disks: producers and epochs of batches are only there."""
        for node in self.nemesis.all_nodes() if self.complaints and self.given.tested in OWN else ():
            with contextlib.suppress(OSError):
                for directory in node.directories:
                    shutil.copytree(directory, node.directory / f"kept-{directory.name}", dirs_exist_ok=True)

    def go(self):
        """The whole run; returns its verdict."""
        try:
            self.network.create()
            self.without_effect += self.nemesis.equip(self.given.kinds, self.directory)
            self.nodes.start()
            self.workload.create_topics()
            self.began, self.unix = time.monotonic_ns(), time.time()
            self.workload.start()
            self.workload.progress_since(0)
            self.run_nemesis()
            # Also after a fault that failed: records that nobody had time to read would be found missing, and are not.
            if all(node.is_alive() for node in self.nodes):
                self.aftermath()
        except (AssertionError, KafkaException, subprocess.TimeoutExpired) as failure:
            self.complaints.append(str(failure))
        for node in self.nemesis.all_nodes():
            self.complaints += [f"node {node.number}: {line}" for line in node.panics()]
        return self.verdict()

    def run_nemesis(self):
        began = time.monotonic()
        wanted = [kind for kind in dict.fromkeys(self.given.kinds) if self.nemesis.is_able(kind)]
        if not wanted:
            time.sleep(max(self.given.time_limit, UNDISTURBED_SECONDS_MIN))
        for number, kind in enumerate(deck(wanted, self.given.seed)):
            is_over = number >= len(wanted) and time.monotonic() - began >= self.given.time_limit
            if is_over or not self.fault(kind):
                return
            time.sleep(self.chance.uniform(0.2, 1.5))

    def fault(self, kind):
        """One fault from its start until every partition accepts records again. False if they never do."""
        fault, begun = self.nemesis.begin(kind), time.monotonic_ns()
        title, failure, over, without = next(fault), None, None, None
        # The kill of a client interrupts the other members of its group.
        crashes = self.chance.random() < CRASH_CHANCE and not {UPGRADE, *Nemesis.CLIENT_KINDS} & set(kind.split("+"))
        crashed = self.workload.crash() if crashes else None
        try:
            list(fault)
            until("every node serves", lambda: all(node.is_ready() for node in self.nodes))
            over = time.monotonic_ns()
            self.workload.progress_since(over)
            if kind == UPGRADE:
                self.complaints += self.workload.errors_since(begun)
            if kind not in Nemesis.JUDGED_AT_THE_END:
                self.effective.add(kind)
        except NoEffect as reason:
            without = f"without effect: {reason}"
            self.without_effect.append(f"{kind}: {reason}")
        except (AssertionError, subprocess.TimeoutExpired) as broken:
            failure = f"{kind}: {broken}"
        ended = time.monotonic_ns()
        gap = self.workload.longest_gap(begun, ended)
        self.gaps[kind] = max(gap, self.gaps.get(kind, 0))
        told = f"over after {(ended - begun) / 1e9:.1f} s, longest gap {gap:.2f} s" + (f"; killed client {crashed}" if crashed else "")
        say(f"{(begun - self.began) / 1e9:6.1f} s  {kind:8} {title}; {told}")
        for effect in self.nemesis.effects:
            say(f"{'':20} measured: {effect}")
        self.note_fault(kind, title, begun, over, ended, gap, crashed, failure or without)
        self.complaints += [failure] if failure else []
        self.complaints += self.workload.ended()
        dead = [node.number for node in self.nodes if not node.is_alive()]
        self.complaints += [f"node {number} ended by itself" for number in dead]
        return not failure and not dead

    def note_fault(self, kind, title, begun, over, ended, gap=None, crashed=None, failure=None):
        """For the page: `page/recorded.py` says what each of them is."""
        fault = dict(kind=kind, title=title, begun=begun, over=over, ended=ended, gap=gap, crashed=crashed, failure=failure)
        self.faults.append(fault)

    def aftermath(self):
        until("every replica has caught up", lambda: all(node.voters() is not None for node in self.nodes))
        self.complaints += self.workload.finish()
        self.workload.look(["", *sorted({node.zone for node in self.nodes})])
        if self.given.tested == FOREIGN:
            return
        begun = time.monotonic_ns()
        self.nemesis.killed(self.nodes)
        self.nemesis.back(self.nodes)
        over = time.monotonic_ns()
        self.workload.look()
        self.note_fault("end", "kill -9 of all nodes together, when the producers have ended", begun, over, time.monotonic_ns())
        measured, without = self.nemesis.afterwards()
        self.without_effect += without
        self.effective |= set(Nemesis.JUDGED_AT_THE_END) if measured else set()
        for effect in measured:
            say(f"{'':20} measured: {effect}")
        self.ask_epochs()

    def ask_epochs(self):
        """Whether logs were truncated as clients were told."""
        with contextlib.suppress(OSError), self.network.inside(CLIENTS):
            truncations.look(self.workload.journal, self.workload.topic, self.nodes.bootstrap)
        for line in self.workload.journal:
            if "refuted" in line:
                say(f"  client {line.get('client', 0)} was told of a truncation that never was: {line['why']}; the leader has epoch {line['refuted'][0]} up to {line['refuted'][1]}")

    def verdict(self):
        self.ended = time.monotonic_ns()
        self.journal = journal = sorted(self.workload.journal, key=lambda line: line["t"])
        lines = history.of_journal(journal)
        self.judged = report = history.judge(lines, self.directory / "history.jsonl", self.given.judge and [self.given.judge])
        self.complaints += history.complaints(journal)
        self.complaints += history.of_findings(report)
        self.without_effect += self.workload.unproved()
        say("longest gap by fault: " + ", ".join(f"{kind} {gap:.2f} s" for kind, gap in self.gaps.items()))
        read = f", {report['records_read']} read and checked in all" if self.workload.plan.has_records() else ""
        say(f"{self.workload.counts()}{read}")
        for complaint in self.complaints[:40]:
            say(f"  {complaint}")
        for reason in self.without_effect:
            say(f"  without effect: {reason}")
        if self.complaints or report["verdict"] == "invalid":
            return INVALID
        # The checker knows nothing of topics.
        is_proved = report["verdict"] == "valid" or not (self.workload.plan.has_records() or self.workload.plan.keepers)
        return VALID if is_proved and not effects.unproved(self.without_effect, self.effective) else UNKNOWN

    def facts(self, outcome):
        """What is kept for the page, beside the journal; `page/recorded.py` says what each is."""
        clients = f"confluent-kafka {confluent_kafka.__version__}, librdkafka {confluent_kafka.libversion()[0]}"
        return {
            "outcome": VERDICTS[outcome],
            "command": surroundings.command(self.given),
            "seed": self.given.seed,
            "nodes": len(self.nodes),
            "workload": self.given.workload,
            "kinds": self.given.kinds,
            "time_limit": self.given.time_limit,
            "zones": {node.number: node.zone for node in self.nodes},
            "about": surroundings.about(self.system.builds(self.given), clients),
            "began": self.began,
            "ended": self.ended,
            "unix": self.unix,
            "faults": self.faults,
            "complaints": self.complaints,
            "without_effect": self.without_effect,
            "judged": self.judged,
        }


def write_page(run, outcome):
    """The verdict does not depend on whether this succeeds."""
    try:
        kept = recorded.Recorded(run.directory, run.facts(outcome), run.journal)
        if outcome != VALID or run.given.keep:
            recorded.keep(kept)
        return page.write(kept, run.given.report or run.directory / page.NAME)
    except Exception as failure:
        say(f"no page could be made: {failure!r}")


def put_away(run, outcome):
    """What is kept: the page, and all that it was made of unless the run was valid."""
    for node in run.nodes if run.given.tested in OWN else ():
        for directory in node.directories:
            shutil.rmtree(directory, ignore_errors=True)
    written = write_page(run, outcome) if run.judged else None
    if outcome != VALID or run.given.keep:
        say(f"logs and history are in {run.directory}")
    elif written and written.parent == run.directory:
        for path in run.directory.iterdir():
            if path != written:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    else:
        shutil.rmtree(run.directory)
    if written:
        say(f"page: {written}")


def main():
    given = arguments()
    if not given.bootstrap and os.geteuid() != 0:
        say("needs root: network namespaces")
        return UNKNOWN
    # So that everything is removed: SIGTERM ends the run as Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(UNKNOWN))
    say(f"seed {given.seed}, {given.bootstrap or f'{given.nodes} nodes'}, {given.tested}, workload {given.workload}, faults: {', '.join(given.kinds)}")
    directory = pathlib.Path(tempfile.mkdtemp(prefix="ottla-chaos-"))
    run, outcome = None, UNKNOWN
    try:
        run = Run(given, directory)
        outcome = run.go()
    except OSError as failure:
        say(f"no run can be made here: {failure}")
    finally:
        if run:
            run.remove()
            put_away(run, outcome)
        else:
            shutil.rmtree(directory)
    say(f"verdict: {VERDICTS[outcome]} (seed {given.seed})")
    return outcome


if __name__ == "__main__":
    sys.exit(main())
