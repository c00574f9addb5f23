"""The kinds of suites: how each is fetched, built, listed and run.

A suite is fetched by the ordinary client of its registry (cargo, go, pip), copied to where it may be built, and left as
it is: what does not run is left out on the command line. Every test runs as a process of its own where the suite
allows it, so one that hangs or dies takes no other with it.
"""

import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import time
import urllib.request

from brokers import wait_for_port
from lists import Outcome

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
HOME = pathlib.Path(os.environ.get("TEST_CLIENTS_DIR", ROOT / "target" / "clients")).resolve() / "suites"
TAIL_LINES = 60
# librdkafka's test of compaction asks for segments that the tool of Kafka 4 itself refuses, before any broker is asked.
AS_KAFKA_4_ALLOWS = 'for one do shift; [ "$one" = segment.bytes=10000 ] && one=segment.bytes=1048576; set -- "$@" "$one"; done'


def sh(command, cwd=None, **environment):
    """Runs a command of the preparation; its output appears only if it fails."""
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}:\n{(done.stdout + done.stderr)[-6000:]}")
    return done.stdout


def run_one(test, command, seconds_max, cwd, environment):
    """One test as one process group, which is killed when its time is over; returns (exit code or None, output, seconds)."""
    started = time.monotonic()
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=seconds_max)
        code = process.returncode
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        code = None
    text = output.decode(errors="replace")
    (HOME / "logs").mkdir(exist_ok=True)
    (HOME / "logs" / (re.sub(r"[^A-Za-z0-9_.-]", "_", test) + ".log")).write_text(text)
    return code, text, time.monotonic() - started


def failure(code, text):
    ended = "did not end in time" if code is None else f"exit code {code}"
    return ended + "\n" + "\n".join(text.splitlines()[-TAIL_LINES:])


class Suite:
    """What all kinds share. `settings` are broker settings that the suite's own documentation asks for,
    `nodes` how many brokers."""

    def __init__(self, name, version, settings=None, environment=None, seconds_max=120, nodes=1):
        self.name = name
        self.version = version
        self.settings, self.nodes = settings or {}, nodes
        self.environment = environment or {}
        self.seconds_max = seconds_max
        self.source = HOME / f"{name}-{version}"
        self.skips = None

    def beside(self):
        """What has to run beside the broker while the tests run."""
        return contextlib.nullcontext()

    def run(self, tests, seconds_max, report):
        for test in tests:
            code, text, seconds = self.run_process(test, seconds_max)
            report(self.judge(test, code, text, seconds))

    def run_process(self, test, seconds_max):
        command, cwd = self.command(test)
        return run_one(f"{self.name}.{test}", command, seconds_max, cwd, self.environment)

    def judge(self, test, code, text, seconds):
        said = re.search(r"\bskipping (integration|sasl) tests?\b.*", text, re.IGNORECASE)
        if code == 0 and said:
            return Outcome(test, "skipped", seconds, "the suite itself: " + said[0])
        if code == 0:
            return Outcome(test, "passed", seconds)
        return Outcome(test, "failed", seconds, failure(code, text))


def fetch_crate(name, version):
    """Where cargo has put the source of a crate after it was asked for its dependencies' metadata."""
    asking = HOME / "asking" / name
    (asking / "src").mkdir(parents=True, exist_ok=True)
    (asking / "src" / "lib.rs").touch()
    manifest = '[package]\nname = "asking"\nversion = "0.1.0"\nedition = "2021"\n[workspace]\n[dependencies]\n'
    (asking / "Cargo.toml").write_text(f'{manifest}{name} = "={version}"\n')
    metadata = json.loads(sh(["cargo", "metadata", "--format-version", "1"], cwd=asking))
    found = next(package for package in metadata["packages"] if package["name"] == name)
    return pathlib.Path(found["manifest_path"]).parent


class Cargo(Suite):
    """A crate whose package has its `tests/`."""

    def __init__(self, name, version, features=(), targets=(), newer=(), **more):
        """`newer` names dependencies whose locked version today's compiler refuses."""
        super().__init__(name, version, **more)
        self.features, self.targets, self.newer = features, targets, newer
        self.registry = f"crates.io: {name} {version}, tests/"

    def prepare(self):
        if not self.source.exists():
            shutil.copytree(fetch_crate(self.name, self.version), self.source)
            (self.source / "rust-toolchain.toml").unlink(missing_ok=True)
            for dependency in self.newer:
                sh(["cargo", "update", "-p", dependency], cwd=self.source)
        build = ["cargo", "test", "--no-run", "--locked", "--message-format=json", "--features", ",".join(self.features)]
        build += [word for target in self.targets for word in ("--test", target)]
        messages = sh(build, cwd=self.source, CARGO_TARGET_DIR=str(HOME / "target"))
        binaries = {}
        for message in map(json.loads, messages.splitlines()):
            if message.get("executable") and message["target"]["kind"] == ["test"]:
                binaries[message["target"]["name"]] = message["executable"]
        (self.source / "binaries.json").write_text(json.dumps(binaries))

    def binaries(self):
        return json.loads((self.source / "binaries.json").read_text())

    def tests(self):
        found = []
        for target, binary in sorted(self.binaries().items()):
            for line in sh([binary, "--list"], cwd=self.source).splitlines():
                if line.endswith(": test"):
                    found.append(f"{target}::{line[: -len(': test')]}")
        return found

    def command(self, test):
        target, _, name = test.partition("::")
        return [self.binaries()[target], "--exact", name, "--nocapture", "--test-threads=1"], self.source

    def judge(self, test, code, text, seconds):
        if code == 0 and f"test {test.partition('::')[2]} ... ignored" in text:
            return Outcome(test, "skipped", seconds, "the suite itself: ignored")
        return super().judge(test, code, text, seconds)


class Go(Suite):
    """A Go module; the module cache has its tests. `folder` is the package's place in the module."""

    def __init__(self, name, module, version, folder=".", tags="", **more):
        super().__init__(name, version, **more)
        self.module, self.folder, self.tags = module, folder, tags
        self.binary = HOME / f"{name}-{version}.test"
        self.registry = f"Go module {module} {version}" + ("" if folder == "." else f", {folder}")

    def prepare(self):
        self.fetch()
        self.build()

    def fetch(self):
        if not self.source.exists():
            download = ["go", "mod", "download", "-json", f"{self.module}@{self.version}"]
            found = json.loads(sh(download, cwd=HOME, GOFLAGS="-mod=mod"))
            shutil.copytree(found["Dir"], self.source)
            sh(["chmod", "-R", "u+w", self.source])

    def build(self, *options):
        if not self.binary.exists():
            build = ["go", "test", "-mod=mod", "-c", "-o", str(self.binary), "-tags", self.tags, *options, "."]
            sh(build, cwd=self.source / self.folder)

    def tests(self):
        listed = sh([str(self.binary), "-test.list", "^Test"], cwd=self.source / self.folder)
        return [line for line in listed.splitlines() if line.startswith("Test")]

    def command(self, test):
        exactly = "/".join(f"^{re.escape(level)}$" for level in test.split("/"))
        one = [str(self.binary), "-test.run", exactly, "-test.v", "-test.count=1"]
        parts = self.parts_left_out(test)
        if parts:
            one += ["-test.skip", "|".join(parts)]
        return one, self.source / self.folder

    def parts_left_out(self, test):
        """Entries of the skip list below this test, `Test/part`, as patterns of -test.skip."""
        whole = (e for e in self.skips.entries if e.startswith(test + "/"))
        return ["/".join(f"^{re.escape(level)}$" for level in entry.split("/")) for entry in whole]

    def judge(self, test, code, text, seconds):
        if code == 0 and f"\n--- SKIP: {test} " in "\n" + text:
            said = [line.strip() for line in text.splitlines() if re.match(r"\s+\w+_test.go:\d+: ", line)]
            why = re.sub(r"^\w+\.go:\d+:\s*", "", said[-1]) if said else ""
            return Outcome(test, "skipped", seconds, f"the suite itself: {why or 'without a reason'}")
        return super().judge(test, code, text, seconds)


class Sarama(Go):
    """Sarama's functional tests. They reach the broker through toxiproxy, which is a Go module, too; their topics have
    three copies, a constant, which is read as one: `go test -overlay` does that without a change to the source."""

    def __init__(self, name, module, version, proxy_version, **more):
        super().__init__(name, module, version, tags="functional", **more)
        self.proxy_version = proxy_version
        self.registry += ", functional tests with one copy of each topic"

    def prepare(self):
        if not (HOME / "bin" / "server").exists():
            proxy = f"github.com/Shopify/toxiproxy/v2/cmd/server@{self.proxy_version}"
            sh(["go", "install", proxy], cwd=HOME, GOBIN=str(HOME / "bin"))
        self.fetch()
        original = self.source / "functional_test.go"
        single = HOME / f"{self.name}-single.go"
        single.write_text(re.sub(r"ReplicationFactor: 3", "ReplicationFactor: 1", original.read_text()))
        overlay = HOME / f"{self.name}-overlay.json"
        overlay.write_text(json.dumps({"Replace": {str(original): str(single)}}))
        self.build("-overlay", str(overlay))

    def tests(self):
        """From the source: the binary wants a broker even to list its tests."""
        texts = (path.read_text() for path in sorted(self.source.glob("functional_*_test.go")))
        return [name for text in texts for name in re.findall(r"^func (Test(?!Main\()\w+)\(", text, re.MULTILINE)]

    @contextlib.contextmanager
    def beside(self):
        """toxiproxy with the five ways that the tests know; all lead to the one broker."""
        with open(HOME / "logs" / "toxiproxy.log", "wb") as log:
            server = subprocess.Popen([HOME / "bin" / "server", "-port", "8474"], stdout=log, stderr=log)
        try:
            wait_for_port(server, 8474, HOME / "logs" / "toxiproxy.log")
            for number in range(1, 6):
                way = {"name": f"kafka{number}", "listen": f"127.0.0.1:{29090 + number}", "upstream": "127.0.0.1:9092"}
                body = json.dumps({**way, "enabled": True}).encode()
                urllib.request.urlopen(urllib.request.Request("http://127.0.0.1:8474/proxies", body), timeout=10).close()
            yield
        finally:
            server.kill()
            server.wait()


class Librdkafka(Suite):
    """librdkafka's own tests: a number each, with parts of it in one process. Its source comes with the crate rdkafka-sys."""

    def __init__(self, name, version, crate_version, in_parts=(), **more):
        super().__init__(name, version, **more)
        self.crate_version, self.in_parts = crate_version, in_parts
        self.registry = f"crates.io: rdkafka-sys {crate_version}, librdkafka/tests"

    def prepare(self):
        if not self.source.exists():
            shutil.copytree(fetch_crate("rdkafka-sys", self.crate_version) / "librdkafka", self.source)
        if not self.is_built():
            sh(["./configure"], cwd=self.source)
            sh(["make", "-j2", "libs"], cwd=self.source)
            sh(["make", "-j2", "test-runner"], cwd=self.source / "tests")
        self.write_scripts()
        (self.source / "tests" / "test.conf").write_text("metadata.broker.list=localhost:9092\ntest.topic.random=true\n")

    def is_built(self):
        """With RapidJSON: without it the tests that read statistics skip themselves."""
        config = self.source / "config.h"
        has_json = config.exists() and "#define WITH_RAPIDJSON 1" in config.read_text()
        return has_json and (self.source / "tests" / "test-runner").exists()

    def write_scripts(self):
        """Some tests call scripts of a Kafka distribution, others compile and run producers of their own in Java; the jars are those of the
        Java client."""
        jars, folder = HOME.parent / "jars", self.source / "distribution"
        (folder / "bin").mkdir(parents=True, exist_ok=True)
        libs = folder / "libs"
        libs.unlink(missing_ok=True)
        libs.symlink_to(jars)
        java = "exec java -Dorg.slf4j.simpleLogger.defaultLogLevel=error"
        scripts = {
            "kafka-topics.sh": f'{AS_KAFKA_4_ALLOWS}\n{java} -cp "{jars}/*" org.apache.kafka.tools.TopicCommand "$@"',
            "kafka-run-class.sh": f'{java} -cp "$CLASSPATH:{jars}/*" "$@"',
        }
        for script, lines in scripts.items():
            (folder / "bin" / script).write_text(f"#!/bin/sh\n{lines}\n")
            (folder / "bin" / script).chmod(0o755)

    def tests(self):
        """Names of the tests that are not local, and for `in_parts` the parts: a part of a test fails without the others."""
        table = (self.source / "tests" / "test.c").read_text()
        table = table[table.index("struct test tests[] = {") :]
        found = {}
        for name, flags in re.findall(r"_TEST\(\s*(\w+),\s*(\w+)", table[: table.index("{NULL}")]):
            if flags not in ("TEST_F_LOCAL", "TEST_F_MANUAL"):
                found.setdefault(name[:4], name)
        return [part for number, name in sorted(found.items()) for part in self.parts(number, name)]

    def parts(self, number, name):
        if number not in self.in_parts:
            return [name]
        text = next((self.source / "tests").glob(f"{number}-*.c*")).read_text()
        bodies = re.findall(r"^(?:static )?void\s+(do_test_\w+)\((.*?)^}", text, re.MULTILINE | re.DOTALL)
        return [f"{name}/{part}" for part in sorted({part for part, body in bodies if "SUB_TEST" in body})]

    def command(self, test):
        return ["./test-runner", "-L", "-Q", "-p1"], self.source / "tests"

    def run_process(self, test, seconds_max):
        command, cwd = self.command(test)
        environment = {
            **self.environment,
            "TESTS": test[:4],
            "LD_LIBRARY_PATH": f"{self.source}/src:{self.source}/src-cpp",
            "KAFKA_PATH": str(self.source / "distribution"),
            "BROKERS": "localhost:9092",
        }
        if "/" in test:
            environment["SUBTESTS"] = test.partition("/")[2] + ":"
        return run_one(f"{self.name}.{test}", command, seconds_max, cwd, environment)

    def judge(self, test, code, text, seconds):
        part = test.partition("/")[2]
        if code == 0 and part and f"[ {part}:" not in text:
            return Outcome(test, "skipped", seconds, "the suite itself: not run against this version of a broker")
        text = re.sub(r"\x1b\[\d*m", "", text)
        said = re.search(rf"\[{test.partition('/')[0]}\s*/[^\]]*\] WARN: SKIPPING TEST: (.*)", text)
        if code == 0 and said:
            return Outcome(test, "skipped", seconds, "the suite itself: " + said[1])
        return super().judge(test, code, text, seconds)
