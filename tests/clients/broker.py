"""A broker process for the client tests: a real one on free ports of 127.0.0.1, with an empty data directory of its own.

Used by run.py and by the other runners beside it (stories, suites, soak).
"""

import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import time
import urllib.request


def free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]


class Broker:
    """One broker process on a data directory; may be killed and started again on the same ports."""

    def __init__(self, binary, directory, **settings):
        """`settings`: further environment variables (KAFKA_..., OTTLA_...)."""
        self.binary = binary
        self.directory = pathlib.Path(directory)
        kafka, admin, cluster = free_ports(3)
        self.bootstrap = f"127.0.0.1:{kafka}"
        self.admin = f"127.0.0.1:{admin}"
        own = dict(
            KAFKA_NODE_ID="1",
            KAFKA_LISTENERS=f"PLAINTEXT://{self.bootstrap}",
            KAFKA_LOG_DIRS=str(self.directory / "data"),
            KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS="100",
            OTTLA_ADMIN_LISTENER=self.admin,
            OTTLA_CLUSTER_LISTENER=f"127.0.0.1:{cluster}",
        )
        self.environment = {**os.environ, **own, **settings}
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
