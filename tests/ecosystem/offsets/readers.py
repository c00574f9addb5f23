"""Tools that build the offsets of groups from __consumer_offsets: each says {(group, topic, partition): offset}.

`Exporter` is prometheus-kafka-consumer-group-exporter from PyPI, `Kommitted` the program of that name from crates.io, `Formatter` Kafka's
console consumer with Kafka's own format. All begin at the start of the topic. May not know: who commits, what is right.
"""

import contextlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
sys.path.append(str(HERE.parents[1] / "clients"))
from broker import free_ports
from compaction import Stored
from harness import INSTALLED, python_of

TOPIC = "__consumer_offsets"
PLACE = INSTALLED / "offsets"
PYTHON = python_of("offsets")
KOMMITTED_VERSION = "0.3.1"
READ_SECONDS_MAX = 180
# The console consumer ends by itself once nothing came for so long.
SILENCE_MS = 90_000
CONSOLE = "org.apache.kafka.tools.consumer.ConsoleConsumer"
# The version that the key of a commit begins with.
COMMIT = b"\x00\x01"
RECORD = '{"key":'
SAMPLE = re.compile(r"^(\w+)\{(.*)\} (\S+)")
LABEL = re.compile(r'(\w+)="([^"]*)"')


def install_kommitted():
    """Built once, which takes minutes: with librdkafka from its sources, and with OpenSSL and SASL of Debian."""
    root = PLACE / f"kommitted-{KOMMITTED_VERSION}"
    program = root / "bin" / "kommitted"
    if not program.exists():
        if subprocess.run(["pkg-config", "--exists", "openssl", "libsasl2"]).returncode:
            as_root = [] if os.geteuid() == 0 else ["sudo"]
            install = [*as_root, "apt-get", "install", "-y", "-qq", "--no-install-recommends", "libssl-dev", "libsasl2-dev"]
            subprocess.run(install, check=True)
        print("building kommitted", flush=True)
        target = PLACE / "kommitted-target"
        words = ["cargo", "install", "-q", "kommitted", "--version", KOMMITTED_VERSION, "--locked", "--root", str(root)]
        # Its own profile links all crates at once, which takes most of an hour on two cores.
        quick = {"CARGO_PROFILE_RELEASE_LTO": "off", "CARGO_PROFILE_RELEASE_CODEGEN_UNITS": "16", "CARGO_PROFILE_RELEASE_OPT_LEVEL": "1"}
        own = {"CARGO_TARGET_DIR": str(target), "OPENSSL_NO_VENDOR": "1", **quick}
        subprocess.run(["nice", "-n", "19", *words], check=True, env={**os.environ, **own})
        shutil.rmtree(target)
    return str(program)


def samples(port):
    """(name, labels, value) of each line of /metrics; none while no one answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
    except OSError:
        return []
    found = (SAMPLE.match(line) for line in lines)
    return [(one[1], dict(LABEL.findall(one[2])), float(one[3])) for one in found if one]


class Reader:
    """A program of someone else's, which ends with the scenario."""

    def __init__(self, place):
        self.place = place
        (self.port,) = free_ports(1)

    def begin(self, *command):
        self.process = self.place.program(type(self).__name__.lower(), command)

    def end(self):
        self.process.kill()
        self.process.wait()

    def gauges(self, name):
        self.place.assert_alive(self.process)
        wanted = (labels for labels in samples(self.port) if labels[0] == name)
        return {(of["group"], of["topic"], int(of["partition"])): int(value) for _, of, value in wanted}


class Exporter(Reader):
    # It asks for the ends of partitions in a version (0) that Kafka 4 does not serve; it does without them.
    QUIET = ("--high-water-interval", "100000", "--low-water-interval", "100000")

    def offsets(self, ends):
        """Once it has read each partition up to `ends`."""
        self.begin(PYTHON, "-m", "prometheus_kafka_consumer_group_exporter", "-b", self.place.bootstrap, "-p", str(self.port), "-s", *self.QUIET)
        try:
            self.place.until(lambda: self.is_at(ends), READ_SECONDS_MAX, "the exporter has read what there is")
            return self.gauges("kafka_consumer_group_offset")
        finally:
            self.end()

    def is_at(self, ends):
        self.place.assert_alive(self.process)
        read = {int(of["partition"]): value for name, of, value in samples(self.port) if name == "kafka_consumer_group_exporter_offset"}
        return all(read.get(partition, 0) >= end for partition, end in ends.items())


class Kommitted(Reader):
    # It would not begin before the ends of partitions have moved often enough, which those of the groups' topics never do.
    READY = ("--history-ready-at", "0")
    # It asks for groups while it reads, and drops commits of one that it has not heard of yet: there is more time for that if nodes wait
    # for so many bytes, which there are not, before they answer its first fetch.
    LATER = ("--kafka-conf", "fetch.min.bytes:10000000", "--kafka-conf", "fetch.wait.max.ms:3000")
    # What its log says when it did so nevertheless, and when it reads nothing since it was not told within half a second where to begin.
    LOST = re.compile(r"OffsetCommit about unknown Group '(.*)'|(Failed to \(self\) assign)")

    def start(self):
        self.begin(install_kommitted(), "--brokers", self.place.bootstrap, "--port", str(self.port), *self.READY, *self.LATER)

    def offsets(self, wanted):
        """What it says once that is `wanted`, or in the end. It is started again whenever it lost something of that."""
        found, groups = {}, {group for group, _, _ in wanted}

        def is_so():
            if any(lost[2] or lost[1] in groups for lost in self.LOST.finditer(self.place.log_of(self.process))):
                self.end()
                self.start()
            found.clear()
            found.update(self.gauges("kmtd_kafka_consumer_partition_offset"))
            return found == wanted

        self.start()
        try:
            self.place.until(is_so, READ_SECONDS_MAX, "kommitted says what was committed")
        except AssertionError:
            self.place.assert_alive(self.process)
        finally:
            self.end()
        return found


class Formatter(Reader):
    def offsets(self):
        """The last of each key, as committed transactions have it."""
        words = ["--bootstrap-server", self.place.bootstrap, "--topic", TOPIC, "--from-beginning", "--timeout-ms", SILENCE_MS]
        words += ["--formatter", "org.apache.kafka.tools.consumer.OffsetsMessageFormatter", "--isolation-level", "read_committed"]
        # It prints the commits and passes over memberships; without silence there is no other sign that it is through.
        count = sum(key[:2] == COMMIT for of in Stored(self.place.bootstrap, TOPIC, "read_committed").records.values() for _, key, _ in of)
        # Its log would stand among the records, which it prints without a line between them.
        process = self.place.java("offsets", CONSOLE, *words, options=["-Dorg.slf4j.simpleLogger.defaultLogLevel=off"])

        def is_through():
            return process.poll() is not None or len(records(self.place.log_of(process))) >= count

        self.place.until(is_through, READ_SECONDS_MAX, f"Kafka's console consumer has read {count} commits")
        process.kill()
        process.wait()
        found = {}
        for record in records(self.place.log_of(process)):
            key, value = record["key"]["data"], record["value"]
            found[key["group"], key["topic"], key["partition"]] = value and value["data"]["offset"]
        return {key: offset for key, offset in found.items() if offset is not None}


def records(text):
    """Each JSON object of a text that begins as a record does; the last one may not be whole yet."""
    decoder, at, found = json.JSONDecoder(), text.find(RECORD), []
    with contextlib.suppress(json.JSONDecodeError):
        while at >= 0:
            record, end = decoder.raw_decode(text, at)
            found.append(record)
            at = text.find(RECORD, end)
    return found
