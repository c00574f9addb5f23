"""A worker of Kafka Connect as a process, and what one asks workers by REST.

May not know: which connector runs, what it writes.
"""

import pathlib
import sys

sys.path.append(str(pathlib.Path(__file__).resolve().parents[2] / "clients"))
from broker import free_ports
from harness import rest

REQUEST_SECONDS_MAX = 30
LOGGED = ["-Dorg.slf4j.simpleLogger.showDateTime=true", "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS"]
# A worker that is killed is missed by its group after the session, and its tasks are given away after the delay; Kafka's five minutes
# for the latter would be the whole run.
SETTINGS = {
    "group.id": "connect",
    "config.storage.topic": "connect-configs",
    "offset.storage.topic": "connect-offsets",
    "status.storage.topic": "connect-status",
    "offset.storage.partitions": "5",
    "status.storage.partitions": "3",
    "exactly.once.source.support": "enabled",
    "key.converter": "org.apache.kafka.connect.storage.StringConverter",
    "value.converter": "org.apache.kafka.connect.storage.StringConverter",
    "offset.flush.interval.ms": "500",
    "scheduled.rebalance.max.delay.ms": "2000",
    "session.timeout.ms": "6000",
    "heartbeat.interval.ms": "1000",
    "rebalance.timeout.ms": "20000",
    # Otherwise a worker opens each class of each jar when it starts.
    "plugin.discovery": "service_load",
}


class Worker:
    def __init__(self, place, number):
        self.place = place
        (port,) = free_ports(1)
        self.address = f"http://127.0.0.1:{port}"
        replicas = {f"{what}.storage.replication.factor": str(place.nodes) for what in ("config", "offset", "status")}
        settings = {**SETTINGS, **replicas, "bootstrap.servers": place.bootstrap, "listeners": self.address}
        self.file = place.directory / f"worker-{number}.properties"
        self.file.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        self.process = None

    def start(self):
        self.process = self.place.java("connect", "org.apache.kafka.connect.cli.ConnectDistributed", str(self.file), options=LOGGED)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def is_alive(self):
        return self.process is not None and self.process.poll() is None

    def ask(self, method, path, body=None):
        """None too where a worker answers 404 or 409, not known yet or a rebalance going on, or 500, when it has not heard from the group's leader."""
        return rest(method, self.address + path, body, REQUEST_SECONDS_MAX)
