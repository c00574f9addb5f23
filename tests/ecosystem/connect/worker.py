"""Workers of Kafka Connect as processes, and what one asks them by REST.

Used by the scenarios of connect and debezium. May not know: which connector runs, what it writes.
"""

import pathlib
import sys

sys.path.append(str(pathlib.Path(__file__).resolve().parents[2] / "clients"))
from broker import free_ports
from harness import rest

REQUEST_SECONDS_MAX, STARTED_SECONDS_MAX = 30, 180
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
    """`classes`: the application whose jars it runs with; `settings`: beside, or instead of, those above."""

    def __init__(self, place, number, classes="connect", memory="512m", **settings):
        self.place, self.classes, self.memory = place, classes, memory
        (port,) = free_ports(1)
        self.address = f"http://127.0.0.1:{port}"
        replicas = {f"{what}.storage.replication.factor": str(place.nodes) for what in ("config", "offset", "status")}
        own = {name.replace("_", "."): value for name, value in settings.items()}
        settings = {**SETTINGS, **replicas, **own, "bootstrap.servers": place.bootstrap, "listeners": self.address}
        self.file = place.directory / f"worker-{number}.properties"
        self.file.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        self.process = None

    def start(self):
        main = "org.apache.kafka.connect.cli.ConnectDistributed"
        self.process = self.place.java(self.classes, main, str(self.file), memory=self.memory, options=LOGGED)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def is_alive(self):
        return self.process is not None and self.process.poll() is None

    def ask(self, method, path, body=None):
        """None too where a worker answers 404 or 409, not known yet or a rebalance going on, or 500, when it has not heard from the group's leader."""
        return rest(method, self.address + path, body, REQUEST_SECONDS_MAX)


class Workers:
    """Those of one group, from its start on."""

    def __init__(self, place, *workers):
        self.place, self.all, self.kills, self.failures = place, workers, 0, []
        for worker in workers:
            worker.start()

    def asked(self, *request):
        """The first of them that has an answer gives it: one that was just started has none yet."""
        assert all(worker.is_alive() for worker in self.all), "a worker ended"
        return next((answer for worker in self.all if (answer := worker.ask(*request)) is not None), None)

    def configure(self, name, config):
        """Makes the connector, or gives it another config."""
        config = {key: str(value) for key, value in config.items()}
        path = f"/connectors/{name}/config"
        self.place.until(lambda: self.asked("PUT", path, config), STARTED_SECONDS_MAX, f"a worker that takes the config of {name}")

    def restart_failed(self, name):
        """A task that fails stays so until someone starts it again; here that is done, so that the run says whether the result is exact."""
        status = self.asked("GET", f"/connectors/{name}/status") or {"tasks": []}
        failed = [f"task {task['id']} of {name} failed: {task['trace']}" for task in status["tasks"] if task["state"] == "FAILED"]
        for failure in failed:
            self.place.say(failure.splitlines()[0])
        if failed:
            self.failures += failed
            self.asked("POST", f"/connectors/{name}/restart?includeTasks=true&onlyFailed=true")

    def assert_no_failures(self):
        """What becomes of nodes may not make a task fail: its clients are told to try again."""
        assert not self.failures, f"the result is exact, but {len(self.failures)} tasks failed; the first: {self.failures[0]}"

    def kill(self, *numbers):
        """kill -9 of these together; they are started again at once. A worker's number is from 1 on."""
        self.place.say(f"killed: {', '.join(f'worker {number}' for number in numbers)}")
        for number in numbers:
            self.all[number - 1].kill()
            self.kills += 1
        for number in numbers:
            self.all[number - 1].start()
