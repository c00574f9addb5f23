#!/usr/bin/env python3
"""Runs each client's scenario against a broker of its own, and the first story.

Usage: tests/clients/run.py [--broker PATH] [NAME ...]. Names: see CLIENTS below; none means all.
A broker is a real process on free ports of 127.0.0.1 with an empty data directory; after its scenario it is stopped
with SIGTERM and has to end with exit code 0. Last line: `N passed, N failed`.
"""

import argparse
import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

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


def free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]


class Broker:
    """One broker process on a data directory; may be killed and started again on the same ports."""

    def __init__(self, binary, directory):
        self.binary = binary
        self.directory = pathlib.Path(directory)
        kafka, admin, cluster = free_ports(3)
        self.bootstrap = f"127.0.0.1:{kafka}"
        self.admin = f"127.0.0.1:{admin}"
        self.environment = dict(
            os.environ,
            KAFKA_NODE_ID="1",
            KAFKA_LISTENERS=f"PLAINTEXT://{self.bootstrap}",
            KAFKA_LOG_DIRS=str(self.directory / "data"),
            KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS="100",
            OTTLA_ADMIN_LISTENER=self.admin,
            OTTLA_CLUSTER_LISTENER=f"127.0.0.1:{cluster}",
        )
        self.process = None

    def start(self):
        log = open(self.directory / "broker.log", "ab")
        self.process = subprocess.Popen([self.binary, "start"], env=self.environment, stdout=log, stderr=log, cwd=self.directory)
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError):
                if urllib.request.urlopen(f"http://{self.admin}/readyz", timeout=1).status == 200:
                    return self
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the broker did not become ready:\n{self.tail()}")
            time.sleep(0.02)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(30)
        if code != 0:
            raise AssertionError(f"the broker ended with exit code {code}:\n{self.tail()}")

    def tail(self):
        return "".join((self.directory / "broker.log").read_text(errors="replace").splitlines(True)[-40:])


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
