#!/usr/bin/env python3
"""Runs test suites that other projects wrote for their clients against Ottla.

Usage: tests/suites/run.py [--broker PATH [--broker-is TEXT]] [NAME ...]; no name means all. Takes an hour: never part of
tests/run as a whole. Fetches each suite through its registry into $TEST_CLIENTS_DIR/suites (default target/clients/suites)
and builds it there (needs what tests/setup installs, Go 1.26, and the headers of zlib and OpenSSL). Each suite then meets
a broker of its own on localhost:9092, in a network namespace of its own where that can be had. skip/NAME.txt says what is
not run and why. Ends with `N passed, N failed`; exit code 1 for a failure, for an entry of a skip list that names no test,
and with --stale for an entry whose test passes. Results go to results.json and docs/clients.md.

  --stale           runs the skipped tests, too: one that passes does not belong on its list
  --no-record       keeps results.json as it is
  --tests A,B       only these tests; nothing is recorded
  --peer JARS       against Apache Kafka from a directory of its jars; nothing is recorded
  --nodes N         a cluster of so many nodes in the place of what the suite asks for; nothing is recorded
  --find-local      notes in local/NAME.txt which tests pass without any broker: they say nothing about one
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

from brokers import Broker, apache_kafka, bring_up_loopback, ottla
from kinds import HOME, ROOT
from lists import LISTS, Outcome, SkipList, local_tests
from results import count, record
from suites import SUITES

INSIDE = "--inside"


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    parser.add_argument("--broker", default=str(target / "release" / "ottla"), help="the binary to test")
    parser.add_argument("--broker-is", default="", metavar="TEXT", help="what it is, for the record: commit 1b702e3")
    parser.add_argument("--stale", action="store_true", help="run the skipped tests, too")
    parser.add_argument("--no-record", action="store_true", help="do not write results.json")
    parser.add_argument("--tests", default="", help="only these, with commas between")
    parser.add_argument("--peer", default="", help="a directory with the jars of Apache Kafka")
    parser.add_argument("--nodes", type=int, default=0, metavar="N", help="a cluster of so many (default: the suite's)")
    parser.add_argument("--find-local", action="store_true", help="write local/NAME.txt")
    parser.add_argument("--seconds", type=int, default=0, help="time of one test (default: the suite's)")
    parser.add_argument(INSIDE, dest="inside", default="", help=argparse.SUPPRESS)
    parser.add_argument("names", nargs="*", choices=[*SUITES, []], help="suites to run (default: all)")
    return parser.parse_args()


def start_broker(given, suite, directory):
    if given.find_local:
        return None
    if given.peer:
        return apache_kafka(given.peer, directory, suite.settings).start()
    return ottla(os.path.abspath(given.broker), directory, suite.settings, given.nodes or suite.nodes).start()


def choose(given, suite, skips):
    """(tests to run, outcomes of those that are not)."""
    listed = suite.tests()
    if given.tests:
        wanted = given.tests.split(",")
        return [test for test in listed if test in wanted], []
    if given.find_local:
        return listed, []
    local = local_tests(suite.name)
    run, left_out = [], [Outcome(e, "failed", 0, "on the skip list, but no such test") for e in skips.without_a_test(listed)]
    for test in listed:
        reason = skips.reason(test)
        if test in local:
            continue
        if reason is None:
            run.append(test)
        else:
            left_out.append(Outcome(test, "skipped", 0, reason))
    return run, [*left_out, *(Outcome(part, "skipped", 0, reason) for part, reason in skips.parts(run))]


def show(outcome):
    print(f"  {outcome.verdict} {outcome.test} ({outcome.seconds:.1f} s)", flush=True)
    if outcome.verdict == "failed":
        print("".join(f"      {line}\n" for line in outcome.detail.splitlines()), end="", flush=True)


def run_stale(suite, seconds_max, skipped):
    """Those on the skip list that pass after all. A flaky one may pass now and then, and says so on the list."""
    passing = []

    def report(outcome):
        if outcome.verdict == "passed":
            passing.append(Outcome(outcome.test, "failed", outcome.seconds, "on the skip list, but it passes"))
            show(passing[-1])
        else:
            print(f"  still not passing: {outcome.test} ({outcome.seconds:.1f} s)", flush=True)

    suite.run([o.test for o in skipped if "flaky" not in o.detail], seconds_max, report)
    return passing


def run_inside(given, suite):
    """Where port 9092 is free: a broker, the tests, their outcomes in the file that the caller named."""
    suite.skips = SkipList(suite.name)
    run, outcomes = choose(given, suite, suite.skips)
    for outcome in outcomes:
        if outcome.verdict == "failed":
            show(outcome)
    on_list = [o for o in outcomes if o.verdict == "skipped"]
    seconds_max = given.seconds or suite.seconds_max

    def report(outcome):
        outcomes.append(outcome)
        show(outcome)

    with tempfile.TemporaryDirectory(prefix=f"ottla-suite-{suite.name}-") as directory:
        broker = start_broker(given, suite, directory)
        try:
            with suite.beside():
                suite.run(run, seconds_max, report)
                if given.stale:
                    outcomes += run_stale(suite, seconds_max, on_list)
            if broker:
                panics = broker.errors().get(("any", "panic"), 0)
                broker.stop()
                if panics:
                    report(Outcome("(the broker)", "failed", 0, f"{panics} requests ended in a panic:\n{broker.tail()}"))
        finally:
            if broker:
                broker.kill()
    pathlib.Path(given.inside).write_text(json.dumps([vars(o) for o in outcomes]))


def namespace():
    """A network of its own for the suite, if this machine lets us; otherwise port 9092 has to be free."""
    command = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--net"]
    try:
        may = subprocess.run([*command, "true"], stderr=subprocess.DEVNULL).returncode == 0
    except FileNotFoundError:
        may = False
    return command if may else []


def run_outside(given, suite):
    """Prepares the suite with the internet at hand, then calls this program again without it."""
    suite.prepare()
    apart = namespace()
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        flags = ["--stale"] * given.stale + ["--find-local"] * given.find_local
        options = ["--broker", given.broker, "--tests", given.tests, "--peer", given.peer, "--seconds", str(given.seconds), "--nodes", str(given.nodes)]
        command = [*apart, sys.executable, sys.argv[0], *options, *flags, INSIDE, file.name, suite.name]
        environment = {**os.environ, "SUITES_NETWORK": "own" if apart else "shared"}
        if subprocess.run(command, env=environment).returncode != 0:
            raise RuntimeError("the suite could not be run")
        return [Outcome(**fields) for fields in json.loads(pathlib.Path(file.name).read_text())]


def run_suite(given, suite):
    """Whether it passed; what came of it is shown and recorded."""
    started = time.monotonic()
    print(f"=== {suite.name}: {suite.registry}", flush=True)
    try:
        outcomes = run_outside(given, suite)
    except (RuntimeError, OSError) as failure:
        print(f"=== {suite.name}: {failure}", flush=True)
        return False
    passed, skipped, failed = (count(outcomes, verdict) for verdict in ("passed", "skipped", "failed"))
    seconds = time.monotonic() - started
    print(f"=== {suite.name}: {passed} passed, {skipped} skipped, {failed} failed ({seconds:.0f} s)", flush=True)
    if given.find_local:
        found = "".join(f"{o.test}\n" for o in outcomes if o.verdict == "passed")
        head = "# Tests of the client alone: they pass without a broker.\n"
        (LISTS / "local" / f"{suite.name}.txt").write_text(head + found)
    elif not (given.tests or given.peer or given.nodes or given.no_record):
        record(suite, outcomes, seconds, Broker.describe(given.broker, given.broker_is))
    return failed == 0


def main():
    given = arguments()
    (HOME / "logs").mkdir(parents=True, exist_ok=True)
    if given.inside:
        if os.environ["SUITES_NETWORK"] == "own":
            bring_up_loopback()
        return run_inside(given, SUITES[given.names[0]])
    chosen = given.names or list(SUITES)
    passed = sum(run_suite(given, SUITES[name]) for name in chosen)
    print(f"{passed} passed, {len(chosen) - passed} failed")
    sys.exit(0 if passed == len(chosen) else 1)


main()
