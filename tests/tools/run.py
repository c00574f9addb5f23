#!/usr/bin/env python3
"""What people look at a cluster with, while one node of three is dead: kafka-consumer-groups and three admin clients.

Usage: tests/tools/run.py [--broker PATH]. Needs tests/setup. Starts three nodes with groups whose coordinators are on all of them, kills
a node with -9, waits until the cluster does not show it any more, and lets each tool tell of nodes, groups, offsets and lag: all of
it, without an error, within TOOL_SECONDS_MAX. Then once more when the node is back. Goes on after a check that fails; last line:
`N passed, N failed`.
"""

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
for beside in ("clients", "monitoring"):
    sys.path.insert(0, str(HERE.parent / beside))

from broker import Cluster
from checks import run
from load import IDLE_GROUPS, LAG, LIVE_GROUP, PARTITIONS, STILL, Workload
from table import JARS, PYTHON, ROOT

NODES = 3
# Kafka fences a node after broker.session.timeout.ms, 9 s.
SHOWN_SECONDS_MAX = 45
# The start of a Java machine on a busy one, and an answer. A tool that waits for a dead node takes longer.
TOOL_SECONDS_MAX = 30
JAVA = ["java", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-cp", f"{JARS}/*"]
GROUPS = sorted([*IDLE_GROUPS, LIVE_GROUP])


class World:
    """Three nodes and their load."""

    def __init__(self, binary, directory):
        self.cluster = Cluster(binary, directory, NODES)
        self.load = Workload(self.cluster.bootstrap)

    def alive(self):
        return [number for number, broker in enumerate(self.cluster.brokers, 1) if broker.is_alive()]

    def shows(self, nodes):
        return all(self.cluster.brokers[number - 1].metric("kafka_brokers") == nodes for number in self.alive())

    def kill(self):
        self.load.kill()
        self.cluster.kill()


def tool(*command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TOOL_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        raise AssertionError(f"nothing within {TOOL_SECONDS_MAX} s") from None
    said = (done.stderr.strip() or done.stdout.strip())[-500:]
    assert done.returncode == 0, f"exit code {done.returncode}: {said}"
    # The command line tools end with 0 after most errors.
    assert "Error" not in done.stdout and "Exception" not in done.stdout + done.stderr, said
    return done.stdout


def consumer_groups(world, *words):
    command = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"
    return tool(*JAVA, command, "--bootstrap-server", world.cluster.bootstrap, *words)


def kafka_consumer_groups_list(world):
    seen = sorted(consumer_groups(world, "--list").split())
    assert seen == GROUPS, f"missing: {sorted(set(GROUPS) - set(seen))}"


def kafka_consumer_groups_describe(world):
    lag = {}
    for line in consumer_groups(world, "--describe", "--all-groups").splitlines():
        words = line.split()
        if len(words) > 5 and words[0] in IDLE_GROUPS and words[1] == STILL:
            lag[words[0], int(words[2])] = words[5]
    wanted = {(group, partition): str(LAG) for group in IDLE_GROUPS for partition in range(PARTITIONS)}
    wrong = {place: lag.get(place) for place in wanted if lag.get(place) != wanted[place]}
    assert not wrong, f"{len(wrong)} of {len(wanted)} partitions of groups: {dict(list(wrong.items())[:3])}"


def admin_client(world, *command):
    """One line of each thing that was asked for: see Groups.java and admin.py."""
    seen = dict(line.split(" ", 1) for line in tool(*command, world.cluster.bootstrap, STILL).splitlines())
    live = int(seen.pop("offsets", 0)) - len(IDLE_GROUPS) * PARTITIONS
    wanted = {
        "nodes": ",".join(str(number) for number in world.alive()),
        "groups": ",".join(GROUPS),
        "described": str(len(GROUPS)),
        "led": str(PARTITIONS),
    }
    assert seen == wanted, f"{seen}, not {wanted}"
    assert 0 < live <= PARTITIONS, f"offsets of {live} partitions of {LIVE_GROUP}"


def java_admin(world):
    admin_client(world, *JAVA, str(HERE / "Groups.java"))


def librdkafka_admin(world):
    admin_client(world, PYTHON, str(HERE / "admin.py"), "librdkafka")


def kafka_python_admin(world):
    admin_client(world, PYTHON, str(HERE / "admin.py"), "kafka-python")


TOOLS = [kafka_consumer_groups_list, kafka_consumer_groups_describe, java_admin, librdkafka_admin, kafka_python_admin]


def wait_until_shown(world, nodes):
    deadline = time.monotonic() + SHOWN_SECONDS_MAX
    while not world.shows(nodes):
        assert time.monotonic() < deadline, f"{SHOWN_SECONDS_MAX} s later kafka_brokers is not {nodes} on the nodes that live"
        time.sleep(0.1)


def one_node_is_killed(world):
    """It leaves what clients are shown. It is the first that the tools have been told of."""
    world.cluster.brokers[0].kill()
    wait_until_shown(world, NODES - 1)


def it_is_started_again(world):
    world.cluster.brokers[0].start()
    wait_until_shown(world, NODES)


def all_end_well(world):
    """The load has failed nowhere, and nodes end with exit code 0."""
    world.load.stop()
    world.cluster.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given = os.environ.get("TEST_BROKER", str(ROOT / "target" / "release" / "ottla"))
    parser.add_argument("--broker", default=given, help="the binary to test")
    broker = os.path.abspath(parser.parse_args().broker)
    checks = [one_node_is_killed, *TOOLS, it_is_started_again, *TOOLS, all_end_well]
    with tempfile.TemporaryDirectory(prefix="ottla-tools-") as directory:
        world = World(broker, directory)
        try:
            world.cluster.start()
            world.load.start()
            failed = run(checks, world)
        finally:
            world.kill()
    print(f"{len(checks) - failed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


main()
