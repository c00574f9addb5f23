"""The nodes under test: a broker process each, in a network namespace of its own, and their metrics and state. Apache Kafka's are in `kafka_nodes.py`.

May not know: faults, clients.
"""

import json
import os
import pathlib
import re
import shutil
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "clients"))

from broker import Process

KAFKA_PORT, CLUSTER_PORT, ADMIN_PORT = 9092, 19091, 9644
ZONES = "abc"
# Within which all that a node has is moved elsewhere, other faults or not.
MOVE_SECONDS_MAX = 180


def until(what, condition, seconds=60):
    """Waits for something that happens by itself in time, and gives what the condition gave."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds} s until {what}")
        time.sleep(0.05)
    return found


class NodeProcess(Process):
    """What every system's node has."""

    good_exits = (0,)
    # A line of its log with one of these says that it ended as it never should.
    fatal_words = ("panicked at",)

    def __init__(self, directory, network, number):
        directory.mkdir()
        super().__init__(directory)
        self.network, self.number, self.address = network, number, network.addresses[number]
        self.zone = ZONES[(number - 1) % len(ZONES)]
        self.data = directory / "data"

    @property
    def directories(self):
        """Those in which it keeps its data."""
        return [self.data]

    def state(self):
        """As the kernel has it: T is stopped."""
        return pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[0]

    def wipe(self):
        for directory in self.directories:
            shutil.rmtree(directory)

    def panics(self):
        path = self.directory / self.log_name
        log = path.read_text(errors="replace") if path.exists() else ""
        return [line for line in log.splitlines() if any(words in line for words in self.fatal_words)]


class Node(NodeProcess):
    def __init__(self, binary, directory, network, number, seeds):
        super().__init__(directory, network, number)
        self.second = None
        self.take(binary)
        self.environment = {
            "PATH": "/usr/bin:/bin:/usr/sbin:/sbin",
            "RUST_BACKTRACE": "1",
            "KAFKA_NODE_ID": str(number),
            "KAFKA_BROKER_RACK": self.zone,
            "KAFKA_LISTENERS": f"PLAINTEXT://{self.address}:{KAFKA_PORT}",
            "KAFKA_LOG_DIRS": str(self.data),
            "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "100",
            # How often a leader looks for what is to be compacted; a run is short.
            "KAFKA_LOG_CLEANER_BACKOFF_MS": "500",
            "OTTLA_ADMIN_LISTENER": f"127.0.0.1:{ADMIN_PORT}",
            "OTTLA_CLUSTER_LISTENER": f"{self.address}:{CLUSTER_PORT}",
            "OTTLA_CLUSTER_SEEDS": seeds,
        }

    def take_second_directory(self):
        """It keeps its data in two directories, on the same disk."""
        self.second = self.data.with_name("data-2")
        self.environment["KAFKA_LOG_DIRS"] = f"{self.data},{self.second}"

    @property
    def directories(self):
        return [self.data, *([self.second] if self.second else [])]

    def take(self, binary):
        """Its next process is of this build."""
        self.command = [*self.network.command(self.number), binary, "start"]

    def build(self):
        """Of which build its process is, as the kernel has it."""
        return os.readlink(f"/proc/{self.process.pid}/exe")

    def is_ready(self):
        found = self.get("/readyz")
        return found is not None and found[0] == 200

    def answers(self):
        """Whether the process does anything at all."""
        return self.get("/healthz") is not None

    def get(self, path):
        return self.network.get(self.number, ADMIN_PORT, path)

    def page(self, path):
        """The text of a page of its admin port; None if it does not give it."""
        found = self.get(path)
        return found[1] if found and found[0] == 200 else None

    def metric(self, name):
        """A metric, over all its labels; None if it does not answer."""
        found = self.page("/metrics")
        return found and sum(float(line.rpartition(" ")[2]) for line in re.findall(rf"^{name}[ {{].*", found, re.M))

    def identity(self):
        """What its disk says that it is."""
        return (self.data / "node.json").read_text()

    def knows(self):
        """How many nodes the cluster has."""
        found = self.page("/v1/cluster")
        return len(json.loads(found)["nodes"]) if found else 0

    def leaders(self, topic):
        """The leader of each partition, by this node's metadata; None if it does not answer."""
        found = self.page(f"/v1/topics/{topic}")
        return found and {part["partition"]: part["leader"] for part in json.loads(found)["partitions"]}

    def replicas(self):
        """How many replicas run here, by role; None if it does not answer."""
        found = self.page("/metrics")
        return found and {role: int(float(n)) for role, n in re.findall(r'^ottla_raft_replicas\{role="(\w+)"\} (\S+)', found, re.M)}

    def voters(self):
        """How many of its replicas count; None while it does not answer or one of them has not caught up."""
        roles = self.replicas()
        if roles is None or roles["learner"] or roles["stopped"]:
            return None
        return roles["leader"] + roles["follower"]

    def placements(self):
        """The nodes on which each shard has its replicas, as this node knows; None if it does not answer."""
        found = self.page("/v1/shards")
        return found and {shard["id"]: [replica["node"] for replica in shard["replicas"]] for shard in json.loads(found)["shards"]}


class Nodes(list):
    """Any system's nodes."""

    def __init__(self, nodes, bootstrap=None):
        super().__init__(nodes)
        self.bootstrap = bootstrap or ",".join(f"{node.address}:{KAFKA_PORT}" for node in self)

    def start(self):
        for node in self:
            node.spawn()
        for node in self:
            node.wait_until_ready()
        # A node serves before it is registered.
        until("every node knows all nodes", lambda: all(node.knows() == len(self) for node in self))

    def kill(self):
        for node in self:
            node.kill()

    def leader(self, topic, partition, among=None):
        """The leader of a partition, as any of these nodes answers."""
        for node in among or self:
            found = node.is_alive() and node.leaders(topic)
            if found and found.get(partition):
                return next(one for one in self if one.number == found[partition])
        return None

    def led(self, topic, node):
        """How many partitions a node leads."""
        found = next(filter(None, (one.leaders(topic) for one in self if one.is_alive())), {})
        return sum(leader == node.number for leader in found.values())


def of_ottla(binary, directory, network):
    seeds = ",".join(f"{network.addresses[n]}:{CLUSTER_PORT}" for n in network.nodes)
    return Nodes(Node(binary, directory / f"node-{n}", network, n, seeds) for n in network.nodes)
