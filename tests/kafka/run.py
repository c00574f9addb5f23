#!/usr/bin/env python3
"""Runs Apache Kafka's own integration tests, as published, against Ottla; or, to know what is theirs to fail, against Kafka.

Usage: tests/kafka/run.py [--suite NAME,...] [--class TEXT,...] [--quick] [--kafka] [--jobs N] [--broker PATH [--broker-is TEXT]]
Without a selection all suites are run, which takes hours. Fetches the jars that pom.xml names (JDK 17 and Maven, as tests/setup installs
them) into $TEST_CLIENTS_DIR/kafka-tests (default target/clients). Two of our classes stand on the class path before Kafka's of the same name
and start processes of Ottla where a test asks for brokers; the tests themselves are byte for byte Kafka's.

  --suite       clients, tools, core, streams, connect, mirror
  --class       classes whose names have this in them; CLASS#METHOD for one test
  --quick       the selection of quick.txt
  --kafka       against Apache Kafka's own brokers, in the test's process
  --no-record   keeps results.json, docs/kafka-tests.md and the README as they are; a failure that results.json does not have, and that
                comes again, ends with exit code 1

Prints a line a class. Everything of a run is below $TEST_CLIENTS_DIR/kafka-tests/runs.
"""

import argparse
import concurrent.futures
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[0] / "clients")]
import jars
import page
from broker import Broker

# Classes with many tests: those that need what is not served may each take as long as a test may (src/ottla/kafka/TimeLimit.java), and
# some are slow with Kafka itself, too.
SECONDS_MAX = {
    "EosIntegrationTest": 5400,
    "KStreamRepartitionIntegrationTest": 5400,
    "HeadersStoreUpgradeIntegrationTest": 2400,
    "ShareConsumerTest": 2400,
    "StreamsUncaughtExceptionHandlerIntegrationTest": 3600,
    "MirrorConnectorsWithCustomForwardingAdminIntegrationTest": 3600,
}
SECONDS_MAX_ELSE = 1800
# Letters of what a test said that are kept.
WHY_MAX = 400
OUTCOMES = ("passed", "failed", "skipped", "disabled")


class Runner:
    def __init__(self, given):
        self.given = given
        self.runs = jars.PLACE / "runs" / ("kafka" if given.kafka else "ottla")
        self.runs.mkdir(parents=True, exist_ok=True)

    def command(self, name, lines, log):
        # Kafka's own brokers are in this process, one cluster of them after the other.
        java = ["java", "-Xmx3g" if self.given.kafka else "-Xmx1g", "-XX:+EnableDynamicAgentLoading", f"-Dottla.binary={pathlib.Path(self.given.broker).resolve()}"]
        return [*java, f"-Dottla.log={log}", "-cp", jars.class_path(with_ottla=not self.given.kafka), "ottla.kafka.RunClass", name, str(lines)]

    def run(self, name):
        """The tests of a class: (method, display name) -> (outcome, why). A class that takes too long is ended, with all that it has begun."""
        short = name.rpartition(".")[2]
        lines, log, out, nodes = (self.runs / f"{short}.{kind}" for kind in ("tsv", "log", "out", "log.nodes"))
        for old in (lines, log, nodes):
            old.unlink(missing_ok=True)
        begun, cut = time.monotonic(), False
        with open(out, "wb") as output:
            process = subprocess.Popen(self.command(name, lines, log), stdout=output, stderr=output, cwd=self.runs, start_new_session=True)
            try:
                process.wait(SECONDS_MAX.get(short.partition("#")[0], SECONDS_MAX_ELSE))
            except subprocess.TimeoutExpired:
                cut = True
            # Nodes are in the process group of the JVM that began them.
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()
        return name, self.tests(lines, short if cut else None), round(time.monotonic() - begun)

    @staticmethod
    def tests(lines, cut):
        """`cut`: the name of a class that was ended."""
        found, under_way = {}, {}
        for line in lines.read_text().splitlines() if lines.exists() else []:
            outcome, method, display, _seconds, why = line.split("\t")
            key = key_of(method, display)
            if outcome == "begun":
                under_way[key] = True
                continue
            under_way.pop(key, None)
            # Kafka's harness runs a test with controllers apart and once more without; here that is the same cluster.
            if outcome != "passed" and "twin" in why:
                continue
            found[key] = [outcome, why[:WHY_MAX]]
        if cut:
            # In its setup, where no test is under way.
            found.update({key: ["cut", "the class took too long"] for key in under_way or ([] if found else [cut])})
        return found


def key_of(method, display):
    """What a test is called from run to run: without what a harness adds. A test of Kafka's own harness is told from its twin there."""
    told = re.sub(r"\b(isolated|Type=Raft-Isolated,?)\s*", "", display)
    told = told.replace("Type=Raft-Combined,", "combined")
    told = re.sub(r"MetadataVersion=\S+", "", told)
    told = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}|@[0-9a-f]{5,}", "", told).strip()
    return told if told.startswith(method) or not method else f"{method} {told}"


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", jars.ROOT / "target"))
    parser.add_argument("--suite", default=",".join(jars.SUITES), metavar="NAME,...")
    parser.add_argument("--class", dest="classes", default="", metavar="TEXT,...")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--kafka", action="store_true")
    parser.add_argument("--jobs", type=int, default=2, metavar="N")
    parser.add_argument("--broker", default=str(target / "release" / "ottla"), metavar="PATH")
    parser.add_argument("--broker-is", default="", metavar="TEXT", help="what it is, for the record: commit 1b702e3")
    parser.add_argument("--no-record", action="store_true")
    return parser.parse_args()


def selected(given):
    """(suite, class) in the order in which they are run."""
    quick = {line for line in (HERE / "quick.txt").read_text().split() if given.quick}
    wanted = [text for text in given.classes.split(",") if text]
    for suite in given.suite.split(","):
        for name in jars.classes(suite):
            short = name.rpartition(".")[2]
            methods = [text for text in wanted if text.startswith(f"{short}#")]
            if methods:
                yield from ((suite, f"{name}#{text.partition('#')[2]}") for text in methods)
            elif (not given.quick or short in quick) and (not wanted or any(text in name for text in wanted)):
                yield suite, name


def summary(tests):
    counts = {outcome: sum(one[0] == outcome for one in tests.values()) for outcome in (*OUTCOMES, "cut")}
    return ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count) or "no tests"


def main():
    given = arguments()
    jars.fetch()
    jars.compile_ours()
    runner, results = Runner(given), page.load()
    wanted = list(selected(given))
    if not wanted:
        sys.exit("no class is named so")
    worse = run(given, runner, wanted, results)
    if worse and given.no_record:
        # Kafka's tests wait for seconds at most: what failed beside other work is run once more, alone.
        print(f"run again: {', '.join(sorted(worse))}", flush=True)
        worse = run(argparse.Namespace(**{**vars(given), "jobs": 1}), runner, [one for one in wanted if one[1] in worse], results)
    for line in sorted(line for lines in worse.values() for line in lines):
        print(f"worse than recorded: {line}")
    if not given.no_record:
        page.write(page.load(), jars.version())
    sys.exit(bool(given.no_record and worse))


def run(given, runner, wanted, results):
    """Runs classes; returns those of which a test did worse than results.json has it, and what that said."""
    worse, side = {}, "kafka" if given.kafka else "ottla"
    with concurrent.futures.ThreadPoolExecutor(given.jobs) as pool:
        of = {pool.submit(runner.run, name): suite for suite, name in wanted}
        for done in concurrent.futures.as_completed(of):
            name, tests, seconds = done.result()
            print(f"{of[done]} {name}: {summary(tests)} ({seconds} s)", flush=True)
            before = results["classes"].get(name, {}).get(side, {}).get("tests", {})
            lines = [f"{name} {test}: {why}" for test, (outcome, why) in tests.items() if outcome in ("failed", "cut") and before.get(test, ["passed"])[0] == "passed"]
            if lines:
                worse[name] = lines
            if "#" not in name and not given.no_record:
                entry = {"tests": dict(sorted(tests.items())), "seconds": seconds, "of": jars.version(), "broker": broker_is(given), "on": time.strftime("%Y-%m-%d")}
                page.record(name, of[done], side, entry)
    return worse


def broker_is(given):
    return f"Apache Kafka {jars.version()}" if given.kafka else Broker.describe(given.broker, given.broker_is)


if __name__ == "__main__":
    main()
