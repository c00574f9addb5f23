"""The jobs of pipelines.py that are programs of their own: Spark, Flink and Kafka Streams; how they are installed and judged.

What they print is in the heads of their sources, in `jobs`. May not know: how shards are resized.
"""

import collections
import json
import os
import pathlib
import re
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "stories"))
import programs
from notices import of_java
from records import Progress, Results
from table import INSTALLED

SOURCES = HERE / "jobs"
OPENED = [f"--add-opens=java.base/java.{name}=ALL-UNNAMED" for name in ("lang", "util", "util.concurrent", "net", "nio")]
JAVA = ["java", "-Xmx768m", *OPENED]
# Kafka's clients log a lost connection as information.
LOGGED = {"defaultLogLevel": "warn", "showDateTime": "true", "dateTimeFormat": "HH:mm:ss.SSS", "log.org.apache.kafka.clients.NetworkClient": "info"}
END_SECONDS_MAX = 120


class Program(programs.Lines):
    """A job's process; `read COUNT` is its progress."""

    def __init__(self, progress, *command, environment, log):
        self.progress, self.read_before = progress, 0
        super().__init__(*command, environment=environment, log=log)

    def heard(self, line):
        if line.startswith("read "):
            count = int(line.split()[1])
            self.progress.moved(count - self.read_before)
            self.read_before = count


class ProgramJob:
    """A job in a process of its own."""

    def __init__(self, place):
        self.place, self.progress, self.program = place, Progress(), None
        self.logged_before = self.said_before = 0
        self.log = place.directory / f"{self.name}.log"
        self.work = place.directory / "work"
        self.work.mkdir()

    def start(self):
        command, environment = self.command()
        self.program = Program(self.progress, *command, environment=environment, log=self.log)

    def has_started(self):
        return "started" in self.program.lines

    def check_alive(self):
        if self.program.process.poll() is not None:
            raise AssertionError(f"{self.name} ended\n{self.program.tail()}")

    def stop(self):
        """Gives what the job says at its end, by word."""
        (self.work / "stop").touch()
        told = dict(line.split(" ", 1) for line in self.program.end(END_SECONDS_MAX) if " " in line)
        told.pop("read", None)
        print(", ".join(f"{what} {value}" for what, value in told.items()))
        return told

    def resizing_begins(self):
        self.logged_before, self.said_before = self.log.stat().st_size, len(self.program.lines)

    def notices(self):
        """What was logged since resizing began."""
        return of_java(self.log.read_bytes()[self.logged_before :].decode(errors="replace"))

    def kill(self):
        if self.program is not None:
            self.program.kill()


def is_installed(stamp, wanted):
    return stamp.exists() and stamp.read_text() == wanted


class JavaJob(ProgramJob):
    """A job that writes results of windows to a topic."""

    def __init__(self, place):
        super().__init__(place)
        self.results = None

    def command(self):
        home = INSTALLED / "resizing" / self.name
        options = [f"-Dorg.slf4j.simpleLogger.{name}={value}" for name, value in LOGGED.items()]
        words = [self.place.bootstrap, self.place.input, self.place.output, str(self.work)]
        return [*JAVA, *options, "-cp", f"{home}/classes:{home}/jars/*", self.main, *words], os.environ

    @classmethod
    def install(cls):
        """Its jars from Maven Central, made anew when their list changes, and its classes."""
        home, pom = INSTALLED / "resizing" / cls.name, SOURCES / f"{cls.name}-pom.xml"
        home.mkdir(parents=True, exist_ok=True)
        if not is_installed(home / "stamp", pom.read_text()):
            print(f"installing {cls.name} in {home}", flush=True)
            copied = ["dependency:copy-dependencies", f"-DoutputDirectory={home}/jars"]
            subprocess.run(["mvn", "-q", "-B", "-f", str(pom), *copied], check=True)
            (home / "stamp").write_text(pom.read_text())
        sources = [str(SOURCES / "Job.java"), str(SOURCES / f"{cls.main}.java")]
        subprocess.run(["javac", "-d", f"{home}/classes", "-cp", f"{home}/jars/*", *sources], check=True)

    def is_through(self, records):
        """True if the results are there; they may still be corrected."""
        if self.results is None:
            self.results = Results(self.place.bootstrap, self.place.output, self.place.output_partitions)
            self.expected = records.windows()
        self.results.read(0.2)
        return all(self.results.values.get(window, [None])[-1] == result for window, result in self.expected.items())

    def end(self, records, resizes):
        told = self.stop()
        self.results.read_to_end()
        found = self.results.values
        wrong = [f"window {window}: {found.get(window, [])[-3:]}, expected {result}" for window, result in self.expected.items() if not self.is_right(found.get(window, []), result)]
        wrong += [f"window {window}: {values}, nothing was expected" for window, values in found.items() if window not in self.expected]
        count = sum(map(len, found.values()))
        print(f"{count} results of {len(found)} windows, {len(self.expected)} expected; {self.again}: {count - len(found)}")
        return wrong + self.judge(told)


class Flink(JavaJob):
    name, main, group, again = "flink", "FlinkJob", "flink", "duplicates"

    @staticmethod
    def is_right(values, result):
        """At least once, and always the same."""
        return set(values) == {result}

    def judge(self, told):
        return [f"{what} {told.get(what)}" for what, right in [("restarts", "0"), ("late", "0"), ("status", "RUNNING")] if told.get(what) != right]


class Streams(JavaJob):
    name, main, group, again = "streams", "StreamsJob", "streams", "updates before the last one"

    @staticmethod
    def is_right(values, result):
        return values[-1:] == [result]

    def judge(self, told):
        rebalances = self.program.lines[self.said_before :].count("running")
        print(f"rebalances since the first resize: {rebalances}")
        return [f"{what} {told.get(what)}" for what, right in [("died", "0"), ("status", "RUNNING")] if told.get(what) != right]


class Spark(ProgramJob):
    name, group = "spark", "unused"
    python = None

    @classmethod
    def install(cls):
        cls.python = programs.install(programs.VERSION)

    def command(self):
        environment = programs.environment(programs.VERSION, self.place.directory, self.python)
        environment["PYTHONPATH"] = str(HERE.parent / "stories")
        return [str(self.python), str(SOURCES / "spark_job.py"), self.place.bootstrap, self.place.input, str(self.work)], environment

    def is_through(self, records):
        # It works off what there is before it ends.
        return self.progress.count >= len(records.written)

    def end(self, records, resizes):
        self.stop()
        kept = json.loads((self.work / "result.json").read_text())
        copies = collections.Counter(kept["numbers"])
        windows = collections.defaultdict(list)
        for key, start, count, total in kept["windows"]:
            windows[f"{key}@{start}"].append(f"{count} {total}")
        expected, numbers = records.windows(), records.numbers()
        twice = sum(copies.values()) - len(copies)
        print(f"{sum(copies.values())} records copied, {len(copies)} different ones, {twice} duplicates; {len(windows)} windows, {len(expected)} expected")
        return [
            *(f"record {number} is copied {copies[number]} times" for number in sorted(numbers | set(copies)) if copies[number] != 1 or number not in numbers),
            *(f"window {window}: {windows.get(window)}, expected {expected.get(window)}" for window in sorted(expected.keys() | windows.keys()) if windows.get(window) != [expected.get(window)]),
        ]
