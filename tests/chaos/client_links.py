"""Slow and lossy links between clients and nodes, where nodes are not the runner's: a proxy (`proxy.py`) for each node, to which the clients' connections
are led (`redirect.c`). Needs a C compiler, and no right. May not know: what clients do.
"""

import contextlib
import pathlib
import shutil
import socket
import subprocess

from broker import free_ports
from links import Proxy

HERE = pathlib.Path(__file__).resolve().parent
ADDRESS = "127.0.0.1"


def missing():
    """What these links need and this machine lacks."""
    return [] if shutil.which("cc") else ["a C compiler"]


class ClientProxy(Proxy):
    """The proxy in front of one node."""

    where = "of clients"

    def __init__(self, network, node):
        self.node, self.address = node, ADDRESS
        self.port, self.echo_port = free_ports(2)
        self.begin(network, [], [ADDRESS, self.port, node.port, self.echo_port, node.host])

    def redirections(self):
        """By every address that the node's name may stand for."""
        found = {info[4][0] for info in socket.getaddrinfo(self.node.host, self.node.port, type=socket.SOCK_STREAM)}
        return "".join(f"{address} {self.node.port} {self.port};" for address in sorted(found))


def begin(nodes, network, directory):
    """A proxy for each node; every client that is begun from now on goes through them."""
    library = directory / "redirect.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, HERE / "redirect.c", "-ldl"], check=True)
    proxies = {node: ClientProxy(network, node) for node in nodes}
    with contextlib.suppress(socket.gaierror):
        redirect = "".join(proxy.redirections() for proxy in proxies.values())
        network.environment |= {"LD_PRELOAD": str(library), "CHAOS_REDIRECT": redirect}
    return proxies
