"""A standalone Flink from jars, a JobManager and TaskManagers as processes that may be killed, and what it says by REST.

May not know: what a job does, what its topics hold.
"""

import json
import pathlib
import sys

sys.path.append(str(pathlib.Path(__file__).resolve().parents[2] / "clients"))
from broker import free_ports
from harness import rest

REQUEST_SECONDS_MAX, STARTED_SECONDS_MAX, SUBMITTED_SECONDS_MAX = 10, 300, 180
TASK_MANAGERS = 2
CHECKPOINT_MS = 500
# What Flink's own scripts open of the JDK for its serializers.
OPENED = ["java.lang", "java.net", "java.io", "java.nio", "sun.nio.ch", "java.lang.reflect", "java.text", "java.time", "java.util"]
OPENED += ["java.util.concurrent", "java.util.concurrent.atomic", "java.util.concurrent.locks"]
OPTIONS = [f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in OPENED]
# A transactional producer prints its whole configuration, and there is one for each checkpoint.
OPTIONS += ["-Dorg.slf4j.simpleLogger.log.org.apache.kafka=warn", "-Dorg.slf4j.simpleLogger.showDateTime=true"]
OPTIONS += ["-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS", "-XX:MaxMetaspaceSize=256m", "-XX:TieredStopAtLevel=1"]
# A JVM that is not up within 10 s ends itself, which it may not be on a busy machine; Flink has no setting for it.
OPTIONS += ["-Dpekko.remote.classic.startup-timeout=120s"]
# Small processes, one slot each; a TaskManager that is killed is missed by its calls that fail, long before Flink's 50 s without a
# heartbeat. A job is begun again as often as it takes.
SETTINGS = {
    "jobmanager.rpc.address": "127.0.0.1",
    "rest.address": "127.0.0.1",
    "rest.bind-address": "127.0.0.1",
    "taskmanager.host": "127.0.0.1",
    "taskmanager.numberOfTaskSlots": 1,
    "taskmanager.cpu.cores": 1.0,
    "taskmanager.memory.framework.heap.size": "96m",
    "taskmanager.memory.framework.off-heap.size": "32m",
    "taskmanager.memory.jvm-metaspace.size": "256m",
    "taskmanager.memory.jvm-overhead.min": "32m",
    "taskmanager.memory.jvm-overhead.max": "32m",
    "taskmanager.memory.task.heap.size": "160m",
    "taskmanager.memory.task.off-heap.size": "32m",
    "taskmanager.memory.network.min": "32m",
    "taskmanager.memory.network.max": "32m",
    "taskmanager.memory.managed.size": "64m",
    # A TaskManager that is there before the JobManager asks again after that.
    "cluster.registration.error-delay": 500,
    "cluster.registration.refused-registration-delay": 500,
    "heartbeat.interval": 1000,
    "heartbeat.timeout": 10000,
    "heartbeat.rpc-failure-threshold": 2,
    "restart-strategy.type": "fixed-delay",
    "restart-strategy.fixed-delay.attempts": 1000,
    "restart-strategy.fixed-delay.delay": "500 ms",
    "execution.target": "remote",
    "execution.attached": False,
    "execution.checkpointing.interval": f"{CHECKPOINT_MS} ms",
    "execution.checkpointing.timeout": "30 s",
    # A checkpoint that a killed node holds up is given up, the job goes on to the next.
    "execution.checkpointing.tolerable-failed-checkpoints": 1000,
    "execution.checkpointing.externalized-checkpoint-retention": "RETAIN_ON_CANCELLATION",
}


class Flink:
    """The processes; `folder` is the one whose class path they have (flink, flink/sql)."""

    def __init__(self, place, folder, parallelism=TASK_MANAGERS):
        """`parallelism`: of each job, out of one slot a TaskManager."""
        self.place, self.folder, self.parallelism = place, folder, parallelism
        self.checkpoints = place.directory / "checkpoints"
        self.configuration = place.directory / "conf"
        self.configuration.mkdir()
        self.task_managers, self.kills = [], 0
        self.start()

    def configure(self):
        rpc, rest = free_ports(2)
        self.rest = f"http://127.0.0.1:{rest}"
        own = {"jobmanager.rpc.port": rpc, "rest.port": rest, "rest.bind-port": rest}
        own["parallelism.default"] = self.parallelism
        own |= {"execution.checkpointing.dir": self.checkpoints.as_uri(), "io.tmp.dirs": str(self.place.directory)}
        lines = (f"{name}: {json.dumps(value)}\n" for name, value in {**SETTINGS, **own}.items())
        (self.configuration / "config.yaml").write_text("".join(lines))

    def java(self, main, *arguments, memory):
        return self.place.java(self.folder, main, *arguments, memory=memory, options=OPTIONS)

    def start(self):
        self.configure()
        entry = "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint"
        self.job_manager = self.java(entry, "--configDir", self.configuration, memory="384m")
        self.task_managers = [self.task_manager() for _ in range(TASK_MANAGERS)]
        self.place.until(self.is_whole, STARTED_SECONDS_MAX, "Flink with all of its TaskManagers")

    def task_manager(self):
        return self.java("org.apache.flink.runtime.taskexecutor.TaskManagerRunner", "--configDir", self.configuration, memory="320m")

    def assert_alive(self):
        """A TaskManager ends itself when a sink cannot be closed: its transaction was refused, which nodes that die are no reason for."""
        for process in [self.job_manager, *self.task_managers]:
            if process.poll() is not None:
                causes = [line for line in self.place.log_of(process).splitlines() if line.startswith("Caused by: ")]
                raise AssertionError(f"a process of Flink ended by itself, {self.place.logs[process.pid]}: {causes[-1:]}")

    def is_whole(self):
        self.assert_alive()
        return (self.ask("GET", "/overview") or {}).get("slots-total") == TASK_MANAGERS

    def kill_task_manager(self):
        """kill -9; another one takes its place at once."""
        victim = self.place.chance.randrange(TASK_MANAGERS)
        self.place.say("a TaskManager is killed")
        self.end(self.task_managers[victim])
        self.task_managers[victim] = self.task_manager()
        self.kills += 1

    def kill_all(self):
        """Every process at once, JobManager included: what is left of a job is its last checkpoint."""
        self.place.say("all of Flink is killed")
        for process in [self.job_manager, *self.task_managers]:
            self.end(process)
        self.kills += 1

    @staticmethod
    def end(process):
        process.kill()
        process.wait()

    def submit(self, main, *arguments, checkpoint=None):
        """Begins a job, which `main` prints the id of, where a checkpoint left it."""
        command = [main, self.configuration, checkpoint or "-", *arguments]
        process = self.java(*command, memory="384m")
        self.place.until(lambda: process.poll() is not None, SUBMITTED_SECONDS_MAX, f"{main} that submits its job")
        assert process.returncode == 0, f"{main} ended with exit code {process.returncode}"
        ids = [line.split()[1] for line in self.place.log_of(process).splitlines() if line.startswith("job ")]
        return Job(self, ids[0])

    def last_checkpoint(self, job):
        """The directory of the last one that is complete: only such a one has its metadata."""
        found = [path.parent for path in (self.checkpoints / job.id).glob("chk-*/_metadata")]
        return max(found, key=lambda path: int(path.name.removeprefix("chk-")))

    def ask(self, method, path):
        """The answer, or None while there is none."""
        return rest(method, self.rest + path, seconds=REQUEST_SECONDS_MAX)


class Job:
    def __init__(self, flink, id):
        self.flink, self.id = flink, id

    def state(self):
        return (self.flink.ask("GET", f"/jobs/{self.id}") or {}).get("state")

    def assert_alive(self):
        self.flink.assert_alive()
        state = self.state()
        assert state not in ("FAILED", "FINISHED", "CANCELED"), f"the job is {state}"

    def checkpoint_counts(self):
        """completed, failed, in_progress, restored, as Flink counts them."""
        return (self.flink.ask("GET", f"/jobs/{self.id}/checkpoints") or {}).get("counts", {})

    def checkpoint_is_under_way(self):
        self.assert_alive()
        return self.checkpoint_counts().get("in_progress", 0) > 0

    def cancel(self):
        self.flink.ask("PATCH", f"/jobs/{self.id}?mode=cancel")
        self.flink.place.until(lambda: self.state() == "CANCELED", 60, "a job that is cancelled")
