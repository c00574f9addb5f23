"""Nodes that are not the runner's: any cluster that `--bootstrap` names, and containers whose names are given beside it.

A node of a foreign cluster is only looked at. A container is killed, paused, stopped and started by the `docker` command.
May not know: faults, clients.
"""

import contextlib
import json
import signal
import subprocess

import wire
from nodes import Nodes, until
from wire_nodes import WireNode

READY_SECONDS_MAX = 60
STOP_SECONDS_MAX = 60


class RemoteNode(WireNode):
    def __init__(self, number, place, zone, topic):
        self.number, self.place, self.topic = number, place, topic
        self.host, self.port = place
        self.zone = zone or "none"

    def spawn(self):
        """It runs already."""

    def wait_until_ready(self):
        until(f"node {self.number} serves", self.is_ready, READY_SECONDS_MAX)

    def is_alive(self):
        return True

    def kill(self):
        """It stays as it is when the run ends."""

    def panics(self):
        return []


def docker(*words):
    return subprocess.run(["docker", *map(str, words)], capture_output=True, text=True, check=True).stdout


class ContainerProcess:
    """A container as far as the nemesis needs a process."""

    def __init__(self, name):
        self.name = name

    def inspect(self):
        return json.loads(docker("inspect", self.name))[0]["State"]

    @property
    def pid(self):
        return self.inspect()["Pid"]

    def send_signal(self, number):
        match number:
            case signal.SIGSTOP:
                docker("pause", self.name)
            case signal.SIGCONT:
                docker("unpause", self.name)
            case _:
                docker("kill", "--signal", int(number), self.name)

    def wait(self, seconds):
        """As a process has it: minus the signal that ended it, or its exit code."""
        until(f"container {self.name} ends", lambda: not self.inspect()["Running"], seconds)
        code = self.inspect()["ExitCode"]
        return 128 - code if code > 128 else code


class ContainerNode(RemoteNode):
    def __init__(self, container, directory, *rest):
        super().__init__(*rest)
        self.process, self.directory = ContainerProcess(container), directory / f"node-{self.number}"
        self.directory.mkdir()

    def state(self):
        return "T" if self.process.inspect()["Paused"] else "R"

    def is_alive(self):
        return self.process.inspect()["Running"]

    def spawn(self):
        docker("start", self.process.name)

    def start(self):
        self.spawn()
        self.wait_until_ready()

    def stop(self):
        docker("stop", "--time", STOP_SECONDS_MAX, self.process.name)
        code = self.process.wait(5)
        if code not in (0, -signal.SIGTERM):
            raise AssertionError(f"container {self.process.name} ended with exit code {code}")

    def kill(self):
        """The run ends: whatever was done to it, it runs."""
        with contextlib.suppress(subprocess.CalledProcessError):
            if self.process.inspect()["Paused"]:
                docker("unpause", self.process.name)
            self.spawn()

    def panics(self):
        """Its log is kept, for the page."""
        done = subprocess.run(["docker", "logs", self.process.name], capture_output=True, text=True, errors="replace")
        text = done.stdout + done.stderr
        (self.directory / "broker.log").write_text(text)
        return [line for line in text.splitlines() if "panicked at" in line]


def of_bootstrap(bootstrap, containers, directory, topic):
    """`containers`: their names, in the order of the nodes' numbers; without any the nodes are only looked at."""
    shown = wire.first_answer(bootstrap)
    numbers = sorted(shown.nodes)
    if containers and len(containers) != len(numbers):
        raise OSError(f"{len(containers)} containers are named, and the cluster has {len(numbers)} nodes")
    about = lambda number: (number, shown.nodes[number], shown.racks[number], topic)
    if containers:
        return Nodes([ContainerNode(name, directory, *about(number)) for name, number in zip(containers, numbers)], bootstrap)
    return Nodes([RemoteNode(*about(number)) for number in numbers], bootstrap)
