#!/usr/bin/env python3
"""Runs each client's scenario against a broker of its own, and the first story.

Usage: tests/clients/run.py [--broker PATH] [NAME ...]. Names: see CLIENTS below; none means all.
A broker is a real process on free ports of 127.0.0.1 with an empty data directory; after its scenario it is stopped
with SIGTERM and has to end with exit code 0. Last line: `N passed, N failed`.
"""

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile
import time

from broker import Broker

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = ROOT / "tests" / "clients"
INSTALLED = pathlib.Path(os.environ.get("TEST_CLIENTS_DIR", ROOT / "target" / "clients"))
PYTHON = str(INSTALLED / "venv" / "bin" / "python")
JARS = str(INSTALLED / "jars")
JAVA = ["java", "-Xmx512m", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-cp", f"{INSTALLED}/classes:{JARS}/*"]

# Name of the client -> the command that takes the bootstrap address as its next argument.
CLIENTS = {
    "kcat": [str(HERE / "kcat" / "scenario.sh")],
    "kafka-python": [PYTHON, str(HERE / "python" / "scenario.py")],
    "kafkajs": ["node", str(HERE / "node" / "scenario.js")],
    "franz-go": [str(INSTALLED / "franz-go")],
    "rdkafka": [str(INSTALLED / "rust" / "debug" / "rdkafka-scenario")],
    "java": [*JAVA, "Scenario"],
    "kafka-tools": [str(HERE / "java" / "tools.sh")],
}
EXTRA_ARGUMENTS = {"kafka-tools": [JARS]}
SCENARIO_SECONDS_MAX = 240


def run_client(name, broker):
    command = [*CLIENTS[name], broker.bootstrap, *EXTRA_ARGUMENTS.get(name, [])]
    done = subprocess.run(command, timeout=SCENARIO_SECONDS_MAX, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print("".join(f"    {line}\n" for line in done.stdout.splitlines()), end="")
    if done.returncode != 0:
        raise AssertionError(f"exit code {done.returncode}; the broker's last lines:\n{broker.tail()}")


def first_story(broker):
    """Stock prices are sent and read in a group; the broker is killed with -9 in between; nothing is missing."""
    rounds, symbols = 40, 5
    topic, group = "stock-prices", "readers"
    stories = ROOT / "tests" / "stories"
    producer = subprocess.Popen(
        [PYTHON, str(stories / "producer.py"), broker.bootstrap, topic, str(rounds), "0.25"], stdout=subprocess.PIPE, text=True
    )
    consumer = subprocess.Popen(
        [PYTHON, str(stories / "consumer.py"), broker.bootstrap, topic, group, str(rounds * symbols)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        sent = []
        for line in producer.stdout:
            sent.append(line.split()[1:])
            if len(sent) in (60, 130):
                broker.kill()
                broker.start()
        if producer.wait(60) != 0:
            raise AssertionError("the producer failed")
        read, _ = consumer.communicate(timeout=120)
        seen = {tuple(line.split()[1:]) for line in read.splitlines() if line.startswith("read ")}
        missing = {tuple(s) for s in sent} - seen
        offsets = {(s[2], s[3]) for s in sent}
        if missing or len(offsets) != len(sent) or len(sent) != rounds * symbols:
            raise AssertionError(f"{len(sent)} sent, {len(offsets)} places, missing: {sorted(missing)[:5]}")
        print(f"    ok {len(sent)} prices sent and read in a group, the broker killed twice in between")
    finally:
        producer.kill()
        consumer.kill()


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--broker", default=str(ROOT / "target" / "release" / "ottla"), help="the binary to test")
    arguments.add_argument("names", nargs="*", choices=[*CLIENTS, "first-story", []], help="clients to run (default: all)")
    given = arguments.parse_args()
    passed, failed = 0, 0
    for name in given.names or [*CLIENTS, "first-story"]:
        started = time.monotonic()
        with tempfile.TemporaryDirectory(prefix=f"ottla-{name}-") as directory:
            broker = Broker(given.broker, directory)
            try:
                broker.start()
                first_story(broker) if name == "first-story" else run_client(name, broker)
                broker.stop()
                passed += 1
                print(f"PASS {name} ({time.monotonic() - started:.1f} s)", flush=True)
            except (AssertionError, subprocess.TimeoutExpired, OSError) as failure:
                failed += 1
                print(f"FAIL {name}: {failure}", flush=True)
            finally:
                if broker.process and broker.process.poll() is None:
                    broker.kill()
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


main()
