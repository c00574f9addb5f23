#!/usr/bin/env python3
"""Runs each client's scenario against a broker of its own, and the first story.

Usage: tests/clients/run.py [--broker PATH [--broker-is TEXT] [--nodes N] | --kafka JARS] [--all] [--record] [NAME ...]
  NAME      a client of table.py, or first-story; none means all that tests/run takes, with --all the slow ones too
  --kafka   an Apache Kafka from a folder of jars instead of Ottla: what a scenario expects has to be true there first
  --nodes   a cluster of so many, each client's topics on three of them, in place of one broker
  --record  keep what was seen in results.json and write docs/clients.md from it
  --broker-is  what the binary is, for the record: "commit 1b702e3"
A broker is a real process on free ports of 127.0.0.1 with an empty data directory; after its scenario it is stopped
with SIGTERM and has to end with exit code 0. Last line: `N passed, N failed`.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time

import report
import story
from broker import Broker, Cluster, Kafka
from outcome import Outcome
from table import CLIENTS, INSTALLED, ROOT

SCENARIO_SECONDS_MAX = 900
REPLICATION_FACTOR_MAX = 3


class Failed(AssertionError):
    """A scenario that ended with an error, what it had said until then, and what the broker logged last."""

    def __init__(self, outcome, message, broker):
        super().__init__(f"{message}\nthe broker's last lines:\n{broker.tail()}")
        self.outcome = outcome


def run_client(name, broker):
    client = CLIENTS[name]
    command = [*client.command, broker.bootstrap, *client.after]
    done = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    watchdog = threading.Timer(SCENARIO_SECONDS_MAX, done.kill)
    watchdog.start()
    printed = []
    for line in done.stdout:
        print(f"    {line}", end="", flush=True)
        printed.append(line)
    code = done.wait()
    watchdog.cancel()
    outcome = Outcome.of("".join(printed), broker.errors(), client.steps)
    if code != 0:
        raise Failed(outcome, f"exit code {code} (-9: it took too long)", broker)
    return outcome


def run_one(name, broker, nodes):
    """Runs one client (or the story) against a new broker; gives its outcome and the failure, if any."""
    outcome = None
    try:
        broker.start()
        if name == "first-story":
            story.first_story(broker)
        else:
            outcome = run_client(name, broker)
            # Apache Kafka makes clients wait and retry where Ottla does not; what it is asked is only what they can do.
            try:
                outcome.check(not isinstance(broker, Kafka), nodes)
            except AssertionError as failure:
                raise Failed(outcome, str(failure), broker) from failure
        broker.stop()
        return outcome, None
    except (AssertionError, subprocess.TimeoutExpired, OSError) as failure:
        return getattr(failure, "outcome", outcome), failure
    finally:
        broker.kill()


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--broker", default=str(ROOT / "target" / "release" / "ottla"), help="the binary to test")
    parser.add_argument("--broker-is", default="", metavar="TEXT")
    parser.add_argument("--kafka", nargs="?", const=str(INSTALLED / "jars"), metavar="JARS")
    parser.add_argument("--nodes", type=int, default=1, metavar="N")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--record", action="store_true")
    parser.add_argument("names", nargs="*", choices=[*CLIENTS, "first-story", []], metavar="NAME")
    given = parser.parse_args()
    if given.nodes > 1 and (given.record or given.kafka):
        parser.error("--nodes is for Ottla; the page that --record writes is of one node")
    return given


def broker_in(directory, given):
    if given.kafka:
        return Kafka(given.kafka, directory)
    return Broker(given.broker, directory) if given.nodes == 1 else Cluster(given.broker, directory, given.nodes)


def main():
    given = arguments()
    # For the scenarios: on how many nodes their topics are to lie.
    os.environ["TEST_REPLICATION_FACTOR"] = str(min(given.nodes, REPLICATION_FACTOR_MAX))
    os.environ["TEST_NODES"] = str(given.nodes)
    names = given.names or [*(n for n, client in CLIENTS.items() if given.all or not client.slow), "first-story"]
    passed, failed, seen = 0, 0, {}
    for name in names:
        started = time.monotonic()
        with tempfile.TemporaryDirectory(prefix=f"ottla-{name}-") as directory:
            broker = broker_in(directory, given)
            outcome, failure = run_one(name, broker, given.nodes)
        seconds = time.monotonic() - started
        if outcome:
            seen[name] = outcome.as_record(seconds, failure)
        if failure:
            failed += 1
            print(f"FAIL {name}: {failure}", flush=True)
        else:
            passed += 1
            print(f"PASS {name} ({seconds:.1f} s)", flush=True)
    print(report.summary(seen))
    if given.record:
        report.record("Apache Kafka" if given.kafka else Broker.describe(given.broker, given.broker_is), seen)
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


main()
