"""Network namespaces, one per node and one for the clients, joined by veth pairs to a bridge in a namespace of its own.

Nothing of the machine's own network is touched: even the bridge lies in a namespace, and all of them are gone after `remove`. Names carry
the process id. Needs root. May not know: what runs in a namespace.
"""

import contextlib
import ctypes
import os
import pathlib
import socket
import subprocess

SUBNET = "10.77.0"
CLIENTS = "clients"
BRIDGE = "bridge"
CLONE_NEWNET = 0x40000000
PROBE_SECONDS = 0.3

libc = ctypes.CDLL(None, use_errno=True)


def run(*words):
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode != 0:
        raise OSError(f"{' '.join(map(str, words))}: {done.stderr.strip()}")
    return done.stdout


def enter(path):
    """The calling thread, and the threads that it begins from now on, are in another namespace."""
    with open(path) as namespace:
        if libc.setns(namespace.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"setns {path}")


class Here:
    """No namespaces: clients run on this machine as it is, and reach the cluster as anybody does."""

    spares = ()

    def __init__(self):
        # What clients get in their environment beside what there is.
        self.environment = {}

    def command(self, place):
        return []

    def inside(self, place):
        return contextlib.nullcontext()

    def create(self):
        """Nothing is made."""

    remove = create


class Network:
    environment = {}

    def __init__(self, nodes, spares=()):
        """`spares`: nodes that are there only at times."""
        self.prefix = f"ottla-{os.getpid()}"
        self.nodes, self.spares = list(nodes), list(spares)
        self.addresses = {**{node: f"{SUBNET}.{node}" for node in [*self.nodes, *self.spares]}, CLIENTS: f"{SUBNET}.200"}

    def name(self, place):
        return f"{self.prefix}-{place}"

    def command(self, place):
        """What runs a command in a namespace; the process is the command itself."""
        return ["ip", "netns", "exec", self.name(place)]

    def create(self):
        run("ip", "netns", "add", self.name(BRIDGE))
        run("ip", "-n", self.name(BRIDGE), "link", "add", "br0", "type", "bridge")
        run("ip", "-n", self.name(BRIDGE), "link", "set", "br0", "up")
        for place, address in self.addresses.items():
            name, peer = self.name(place), f"to-{place}"
            run("ip", "netns", "add", name)
            run("ip", "-n", name, "link", "add", "eth0", "type", "veth", "peer", "name", peer, "netns", self.name(BRIDGE))
            run("ip", "-n", self.name(BRIDGE), "link", "set", peer, "master", "br0", "up")
            run("ip", "-n", name, "address", "add", f"{address}/24", "dev", "eth0")
            run("ip", "-n", name, "link", "set", "eth0", "up")
            run("ip", "-n", name, "link", "set", "lo", "up")

    def remove(self):
        for place in [*self.addresses, BRIDGE]:
            if pathlib.Path(f"/run/netns/{self.name(place)}").exists():
                run("ip", "netns", "delete", self.name(place))

    @contextlib.contextmanager
    def inside(self, place):
        """Sockets that are made here by this thread are in that namespace, and stay there."""
        own = f"/proc/thread-self/ns/net"
        with open(own) as before:
            enter(f"/run/netns/{self.name(place)}")
            try:
                yield
            finally:
                libc.setns(before.fileno(), CLONE_NEWNET)

    def get(self, node, port, path, timeout=2):
        """GET at a node's loopback: no cut stands in between. Status and body, or None."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            with self.inside(node):
                stream = socket.create_connection(("127.0.0.1", port), timeout)
            with stream:
                stream.sendall(f"GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n".encode())
                answer = b"".join(iter(lambda: stream.recv(65536), b""))
            head, body = answer.split(b"\r\n\r\n", 1)
            return int(head.split(b" ")[1]), body.decode()
        return None

    def reaches(self, source, target):
        """Whether a datagram arrives."""
        with self.inside(target):
            there = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with self.inside(source):
            here = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with there, here:
            there.bind((self.addresses[target], 0))
            there.settimeout(PROBE_SECONDS)
            # What the own rules keep from going out is an error, and does not arrive.
            with contextlib.suppress(PermissionError):
                here.sendto(b"probe", there.getsockname())
            with contextlib.suppress(TimeoutError):
                return there.recv(16) == b"probe"
        return False

    def cut(self, node, others, inward=True, outward=True):
        """Nothing goes between a node and others any more, in one or both directions."""
        for other in others:
            address = self.addresses[other]
            if inward:
                self.rule(node, "-A", "INPUT", "-s", address, "-j", "DROP")
            if outward:
                self.rule(node, "-A", "OUTPUT", "-d", address, "-j", "DROP")

    def heal(self, node):
        """Ends all cuts of a node; how many packets they have swallowed."""
        lines = [*self.rule(node, "-nvxL", "INPUT").splitlines(), *self.rule(node, "-nvxL", "OUTPUT").splitlines()]
        swallowed = sum(int(line.split()[0]) for line in lines if " DROP " in line)
        self.rule(node, "-F")
        return swallowed

    def rule(self, node, *words):
        return run(*self.command(node), "iptables", "-w", *words)
