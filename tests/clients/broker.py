"""Brokers as processes on free ports of 127.0.0.1: Ottla, or a real Apache Kafka to compare expectations with.

Used by run.py and by the other runners beside it (stories, suites, soak). May not know: any client, any scenario.
"""

import collections
import contextlib
import ctypes
import itertools
import json
import os
import pathlib
import random
import re
import signal
import socket
import subprocess
import time
import urllib.request

READY_SECONDS_MAX = 60


PR_SET_PDEATHSIG = 1
libc = ctypes.CDLL(None)


def die_with_parent():
    """Of a new process, before it becomes the program: whatever ends the runner ends what it has begun."""
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


# Below those that the kernel takes for outgoing connections: one of these, of another node or a client, might take the port before its
# broker listens.
PORTS = range(20_000, 32_000)
# Ports given to brokers that may not listen yet; the oldest of them listen or are done.
given_ports = collections.deque(maxlen=1_000)


def is_free(port):
    with socket.socket() as tried:
        try:
            tried.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_ports(count):
    fitting = (port for port in random.sample(PORTS, len(PORTS)) if port not in given_ports and is_free(port))
    chosen = list(itertools.islice(fitting, count))
    given_ports.extend(chosen)
    return chosen


class Process:
    """A broker process on a directory of its own; may be killed and started again on the same ports."""

    command, environment, log_name = [], None, "broker.log"

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self.process = None

    def start(self):
        self.spawn()
        return self.wait_until_ready()

    def spawn(self):
        with open(self.directory / self.log_name, "ab") as log:
            self.process = subprocess.Popen(
                self.command, env=self.environment, stdout=log, stderr=log, cwd=self.directory, preexec_fn=die_with_parent
            )

    def wait_until_ready(self):
        deadline = time.monotonic() + READY_SECONDS_MAX
        while not self.is_ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the broker did not become ready:\n{self.tail()}")
            time.sleep(0.02)
        return self

    def is_alive(self):
        return self.process is not None and self.process.poll() is None

    def kill(self):
        if self.is_alive():
            self.process.kill()
            self.process.wait()

    def kill_some(self):
        """What a test kills in the midst of its work."""
        self.kill()

    def stop(self):
        """Ends it as an operator does; it has to end with an exit code that says so."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(30)
        if code not in self.good_exits:
            raise AssertionError(f"the broker ended with exit code {code}:\n{self.tail()}")

    def tail(self):
        return "".join((self.directory / self.log_name).read_text(errors="replace").splitlines(True)[-40:])


class Broker(Process):
    good_exits = (0,)

    def __init__(self, binary, directory, **settings):
        """`settings`: further environment variables (KAFKA_..., OTTLA_...)."""
        super().__init__(directory)
        kafka, admin, cluster = free_ports(3)
        self.binary = binary
        self.bootstrap = f"127.0.0.1:{kafka}"
        self.admin = f"127.0.0.1:{admin}"
        self.command = [binary, "start"]
        own = dict(
            KAFKA_NODE_ID="1",
            KAFKA_LISTENERS=f"PLAINTEXT://{self.bootstrap}",
            KAFKA_LOG_DIRS=str(self.directory / "data"),
            KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS="100",
            OTTLA_ADMIN_LISTENER=self.admin,
            OTTLA_CLUSTER_LISTENER=f"127.0.0.1:{cluster}",
        )
        self.environment = {**os.environ, **own, **settings}

    @staticmethod
    def describe(binary, given=""):
        """Its version, and what only the caller knows of a binary: the commit that it was built from."""
        said = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout.strip()
        return f"{said}, {given}" if given else said

    def get(self, path):
        return urllib.request.urlopen(f"http://{self.admin}{path}", timeout=5)

    def is_ready(self):
        with contextlib.suppress(OSError):
            return self.get("/readyz").status == 200
        return False

    def metric(self, name):
        lines = self.get("/metrics").read().decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name + " "))

    def errors(self):
        """What it answered that was an error, and how often: {(api, error): count}."""
        found = {}
        for line in self.get("/metrics").read().decode().splitlines():
            match = re.match(r'ottla_requests_total\{api="(\w+)",error="(\w+)"\} (\d+)', line)
            if match and match[2].upper() != "NONE" and int(match[3]):
                found[match[1], match[2]] = int(match[3])
            match = re.match(r"ottla_request_panics_total (\d+)", line)
            if match and int(match[1]):
                found["any", "panic"] = int(match[1])
        return found


class Cluster:
    """Several brokers that found a cluster together, each in a zone of its own; to a scenario they are one broker. `settings` may have
    the number of the first one."""

    def __init__(self, binary, directory, nodes, **settings):
        places = [f"127.0.0.1:{port}" for port in free_ports(nodes)]
        self.binary, self.directory, self.settings = binary, pathlib.Path(directory), settings
        self.seeds = ",".join(places)
        self.brokers = []
        for place in places:
            self.add(place)
        self.bootstrap = ",".join(broker.bootstrap for broker in self.brokers)
        self.killed = 0

    def add(self, place):
        """One more node, not started yet; clients are not told of it."""
        number = len(self.brokers) + int(self.settings.get("KAFKA_NODE_ID", 1))
        own = self.directory / f"node-{number}"
        own.mkdir()
        joined = dict(
            KAFKA_NODE_ID=str(number),
            KAFKA_BROKER_RACK=f"zone-{number}",
            OTTLA_CLUSTER_LISTENER=place,
            OTTLA_CLUSTER_SEEDS=self.seeds,
        )
        self.brokers.append(Broker(self.binary, own, **{**self.settings, **joined}))
        return self.brokers[-1]

    def start(self):
        for broker in self.brokers:
            if not broker.is_alive():
                broker.spawn()
        for broker in self.brokers:
            broker.wait_until_ready()
        # A node serves what it knows; a new one may know nobody yet.
        deadline = time.monotonic() + READY_SECONDS_MAX
        while not self.is_whole():
            if time.monotonic() > deadline:
                raise AssertionError(f"the cluster did not become whole:\n{self.tail()}")
            time.sleep(0.02)
        return self

    def is_whole(self):
        """Every node shows all nodes to clients, and every shard has a leader."""
        seen = [json.load(broker.get("/v1/cluster")) for broker in self.brokers]
        led = sum(broker.metric('ottla_raft_replicas{role="leader"}') for broker in self.brokers)
        # A client drops its connection to a node that the next Metadata answer lacks.
        shown = {broker.metric("kafka_brokers") for broker in self.brokers}
        return shown == {len(self.brokers)} and all(len(one["nodes"]) == len(self.brokers) and 1 < one["shards"] == led for one in seen)

    def kill(self):
        for broker in self.brokers:
            broker.kill()

    def kill_some(self):
        """One node, another one each time."""
        self.brokers[self.killed % len(self.brokers)].kill()
        self.killed += 1

    def stop(self):
        for broker in self.brokers:
            broker.stop()

    def tail(self):
        return "\n".join(f"--- node {number}\n{broker.tail()}" for number, broker in enumerate(self.brokers, 1))

    def errors(self):
        found = collections.Counter()
        for broker in self.brokers:
            found.update(broker.errors())
        return dict(found)


class Kafka(Process):
    """Apache Kafka from jars, one node in KRaft mode, with its defaults but for what a single node needs."""

    good_exits = (0, 143)

    def __init__(self, jars, directory, settings=None):
        """`settings`: further server properties, and `bootstrap`, an address in place of a free one."""
        super().__init__(directory)
        kafka, controller = free_ports(2)
        settings = settings or {}
        self.bootstrap = settings.pop("bootstrap", f"127.0.0.1:{kafka}")
        self.java = ["java", "-Xmx768m", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", f"{jars}/*"]
        self.command = [*self.java, "kafka.Kafka", "server.properties"]
        properties = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"{settings.get('node.id', 1)}@127.0.0.1:{controller}",
            "listeners": f"PLAINTEXT://{self.bootstrap},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": f"PLAINTEXT://{self.bootstrap}",
            "controller.listener.names": "CONTROLLER",
            "log.dirs": str(self.directory / "data"),
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "4",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "group.initial.rebalance.delay.ms": "100",
            **settings,
        }
        (self.directory / "server.properties").write_text("".join(f"{k}={v}\n" for k, v in properties.items()))
        format_it = [*self.java, "kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qg", "-c", "server.properties"]
        subprocess.run(format_it, cwd=self.directory, check=True, stdout=subprocess.DEVNULL)

    @staticmethod
    def describe(jars):
        version = next(pathlib.Path(jars).glob("kafka_2.13-*.jar")).stem.removeprefix("kafka_2.13-")
        return f"Apache Kafka {version}"

    def is_ready(self):
        host, port = self.bootstrap.split(":")
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=1):
            return True
        return False

    def errors(self):
        return {}
