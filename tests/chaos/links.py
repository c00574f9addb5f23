"""Slow and lossy links between nodes: a proxy (`proxy.py`) stands in front of each node's cluster listener for the whole run.

Not `tc netem`: kernels of containers and of small machines often lack it. Clients reach nodes directly.
May not know: clients.
"""

import json
import pathlib
import socket
import statistics
import subprocess
import sys
import time

import effects
from broker import die_with_parent
from nodes import CLUSTER_PORT, until

PROXY_PORT, ECHO_PORT = 19191, 19192
PROBES = 5
PROBE_SECONDS_MAX = 10


class Proxy:
    """The proxy of one node, which is told to other nodes as the node's own address."""

    # Whose connections they are.
    where, echo_port = "between nodes", ECHO_PORT

    def __init__(self, network, node):
        self.node, self.address = node, network.addresses[node.number]
        self.begin(network, network.command(node.number), [self.address, PROXY_PORT, CLUSTER_PORT, ECHO_PORT])
        node.environment["OTTLA_CLUSTER_ADVERTISED_LISTENER"] = f"{self.address}:{PROXY_PORT}"

    def begin(self, network, command, words):
        """The process; `command`: what runs it where it has to be."""
        self.network = network
        program = str(pathlib.Path(__file__).resolve().parent / "proxy.py")
        words = [*command, sys.executable, program, *map(str, words)]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=die_with_parent)
        until("the proxy listens", lambda: self.process.stdout.readline(), 10)

    def set(self, **conditions):
        """Conditions from now on; what was counted under those before."""
        self.process.stdin.write(json.dumps(conditions) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def round_trip_ms(self, source):
        """A round trip from another node's namespace: the median of some."""
        with self.network.inside(source):
            stream = socket.create_connection((self.address, self.echo_port), PROBE_SECONDS_MAX)
        with stream:
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            times = [self.probe(stream) for _ in range(PROBES)]
        return statistics.median(times)

    def probe(self, stream):
        began = time.monotonic()
        stream.sendall(b"probe")
        if stream.recv(16) != b"probe":
            raise effects.NoEffect("the proxy gave back another probe")
        return (time.monotonic() - began) * 1000

    def remove(self):
        # Closes its pipes, too.
        with self.process:
            self.process.kill()


class LinkFaults:
    """Faults of links, for `Nemesis`."""

    LINK_KINDS = ("delay", "loss")

    def equip_links(self, directory):
        """Before any node starts: all of them reach each other through proxies; where they are not the runner's, clients reach them so."""
        if self.system and self.system.links:
            self.proxies = self.system.links(self.nodes, self.network, directory)
            return
        self.proxies = {node: Proxy(self.network, node) for node in self.all_nodes()}
        for node in self.proxies:
            node.environment["OTTLA_CLUSTER_SEEDS"] = ",".join(f"{self.network.addresses[number]}:{PROXY_PORT}" for number in self.network.nodes)

    def links_of(self, node):
        """The proxies of one node, or of all: a slow link slows both of its directions, whichever node has connected."""
        return [self.proxies[node]] if node else list(self.proxies.values())

    def whom(self, node):
        return f"to {self.title(node)}" if node else "to all of them"

    def clear(self, proxies):
        """Ends all conditions; what the proxies counted under them together."""
        counts = [proxy.set() for proxy in proxies]
        total = {name: sum(count[name] for count in counts) for name in counts[0]}
        return {**total, "held_ms_max": max(count["held_ms_max"] for count in counts)}

    def slow(self, proxies, meanwhile, **conditions):
        """Conditions for as long as `meanwhile` takes; what the proxies counted under them."""
        for proxy in proxies:
            proxy.set(**conditions)
        try:
            meanwhile()
        finally:
            counts = self.clear(proxies)
        return counts

    def delay(self):
        node = self.any_node() if self.chance.random() < 0.5 else None
        delay_ms = self.chance.choice([20, 50, 100, 200])
        proxies = self.links_of(node)
        yield f"every byte {proxies[0].where}, {self.whom(node)}, is {delay_ms} to {delay_ms * 5 // 4} ms late"
        source = next((one for one in self.nodes if one is not proxies[0].node), proxies[0].node).number
        before_ms = proxies[0].round_trip_ms(source)
        during_ms = []

        def meanwhile():
            during_ms.append(proxies[0].round_trip_ms(source))
            self.lasts(4, 8)

        counts = self.slow(proxies, meanwhile, delay_ms=delay_ms, jitter_ms=delay_ms // 4)
        self.measured(effects.delayed(delay_ms, before_ms, during_ms[0], counts["held"], counts["held_ms_max"], proxies[0].where))

    def loss(self):
        node = self.any_node() if self.chance.random() < 0.5 else None
        chance = self.chance.choice([0.02, 0.1, 0.25])
        proxies = self.links_of(node)
        yield f"a packet {proxies[0].where}, {self.whom(node)}, is lost with a chance of {chance:.0%}"
        counts = self.slow(proxies, lambda: self.lasts(5, 9), loss=chance)
        self.measured(effects.lossy(chance, counts["chunks"], counts["lost"], counts["broken"], proxies[0].where))
