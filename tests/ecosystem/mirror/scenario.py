"""MirrorMaker 2 between a real Apache Kafka and Ottla, both ways, exactly once: copies, settings of topics and offsets of groups.

May not know: how nodes of Ottla are started.
"""

import itertools
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path += [str(HERE), str(HERE.parents[1] / "clients")]
from broker import Kafka, free_ports
from direction import CONFIG, Direction
from table import JARS

STARTED_SECONDS_MAX, PROGRESS_SECONDS_MAX, DONE_SECONDS_MAX = 180, 120, 240
# Topics that the mirror makes have the replicas that the cluster gives by default. The periods are short so that a run is.
SETTINGS = {
    "clusters": "kafka, ottla",
    "kafka->ottla.enabled": "true",
    "kafka->ottla.topics": "to-ottla",
    "ottla->kafka.enabled": "true",
    "ottla->kafka.topics": "to-kafka",
    "groups": "readers-of-.*",
    "replication.factor": "-1",
    "offset-syncs.topic.replication.factor": "-1",
    "checkpoints.topic.replication.factor": "-1",
    "heartbeats.topic.replication.factor": "-1",
    "config.storage.replication.factor": "-1",
    "offset.storage.replication.factor": "-1",
    "status.storage.replication.factor": "-1",
    "dedicated.mode.enable.internal.rest": "true",
    "sync.topic.configs.interval.seconds": "2",
    "refresh.topics.interval.seconds": "2",
    "refresh.groups.interval.seconds": "2",
    "emit.checkpoints.interval.seconds": "1",
    "sync.group.offsets.enabled": "true",
    "sync.group.offsets.interval.seconds": "1",
    "offset.lag.max": "10",
    "tasks.max": "2",
}
# Of the workers that write into a cluster: a prefix says which.
WORKER_SETTINGS = {
    "exactly.once.source.support": "enabled",
    "scheduled.rebalance.max.delay.ms": "2000",
    "session.timeout.ms": "6000",
    "heartbeat.interval.ms": "1000",
    "rebalance.timeout.ms": "20000",
    "plugin.discovery": "service_load",
}
DIED = "Task threw an uncaught and unrecoverable exception"
LOGGED = ["-Dorg.slf4j.simpleLogger.showDateTime=true", "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS"]


class Mirror:
    def __init__(self, place, kafka):
        self.place, self.processes, self.kills = place, [], 0
        own = {"kafka.bootstrap.servers": kafka.bootstrap, "ottla.bootstrap.servers": place.bootstrap}
        own |= {f"{cluster}.{name}": value for cluster in ("kafka", "ottla") for name, value in WORKER_SETTINGS.items()}
        own["listeners"] = f"http://127.0.0.1:{free_ports(1)[0]}"
        self.file = place.directory / "mirror.properties"
        self.file.write_text("".join(f"{name} = {value}\n" for name, value in {**SETTINGS, **own}.items()))
        self.start()

    def start(self):
        self.process = self.place.java("mirror", "org.apache.kafka.connect.mirror.MirrorMaker", str(self.file), memory="768m", options=LOGGED)
        self.processes.append(self.process)

    def deaths(self):
        """What MirrorMaker says of tasks that have died, and why."""
        lines = [line for process in self.processes for line in self.place.log_of(process).splitlines()]
        return [(line, why) for line, why in itertools.pairwise(line for line in lines if DIED in line or line.startswith("Caused by")) if DIED in line]

    def kill(self):
        self.place.say("MirrorMaker is killed")
        self.process.kill()
        self.process.wait()
        self.kills += 1


class Both:
    """The two directions."""

    def __init__(self, place, mirror, directions):
        self.place, self.mirror, self.directions = place, mirror, directions

    def until(self, is_so, seconds, what):
        """For both of them."""

        def are_so():
            assert self.mirror.process.poll() is None, "MirrorMaker ended"
            return all(is_so(one) for one in self.directions)

        try:
            self.place.until(are_so, seconds, what)
        except AssertionError as failure:
            raise AssertionError(f"{failure}; tasks that failed, and stay so: {self.mirror.deaths() or 'none'}") from failure

    def go_on(self, by=100):
        due = {one.copy: one.caught_up() + by for one in self.directions}
        self.until(lambda one: one.count() >= due[one.copy], PROGRESS_SECONDS_MAX, f"copies up to {due}")

    def through_faults(self, rounds):
        """The mirror and a node killed in turn; between two of them both copies go on."""
        for _ in range(rounds):
            self.mirror.kill()
            self.mirror.start()
            self.go_on()
            self.place.kill(self.place.chance.randint(1, self.place.nodes))
            self.go_on()


def mirror(place):
    (place.directory / "kafka").mkdir()
    kafka = Kafka(JARS, place.directory / "kafka").start()
    try:
        there, here = (kafka.bootstrap, 1), (place.bootstrap, place.nodes)
        directions = [Direction(place, there, here, "to-ottla", "kafka.to-ottla"), Direction(place, here, there, "to-kafka", "ottla.to-kafka")]
        return mirrored(Both(place, Mirror(place, kafka), directions))
    finally:
        kafka.kill()


def mirrored(both):
    rounds = 1 if both.place.quick else 2
    both.until(Direction.has_copy, STARTED_SECONDS_MAX, "the copies exist")
    both.go_on()
    both.until(lambda one: one.configs() == CONFIG, PROGRESS_SECONDS_MAX, f"the copies have {CONFIG}")
    both.through_faults(rounds)
    for one in both.directions:
        one.change_config()
        one.read_on_source()
    both.until(Direction.is_translated, PROGRESS_SECONDS_MAX, "the groups' offsets are translated")
    both.through_faults(rounds)
    both.until(Direction.has_changed_config, PROGRESS_SECONDS_MAX, "a changed setting is in the copies")
    for one in both.directions:
        one.writer.end()
    both.until(lambda one: one.count() >= len(one.writer.sent), DONE_SECONDS_MAX, "all records are copied")
    said = "; ".join(one.judge() for one in both.directions)
    return f"{said}; {both.mirror.kills} kills of MirrorMaker, {both.place.kills} of nodes; settings of topics as in the source"


SCENARIOS = {"mirror": mirror}
