"""What a scenario of an application is given: nodes of Ottla that it may kill, jars from Maven, JVM processes, a directory, chance.

Used by run.py and by the scenarios of every application beside this file. May not know: any application, what a scenario checks.
"""

import contextlib
import json
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.append(str(ROOT / "tests" / "clients"))
import maven
from broker import Broker, Cluster, die_with_parent

INSTALLED = pathlib.Path(os.environ.get("TEST_CLIENTS_DIR", ROOT / "target" / "clients")).resolve() / "ecosystem"
# How long a node that was killed stays away: shorter and longer than an election takes.
AWAY_SECONDS = (0.5, 4.0)
POLL_SECONDS = 0.1
# Lines of each log that a failure shows.
TAIL_LINES = 12
# What the class path of an application was last made of, and its Python.
STAMP, REQUIREMENTS = "pom.xml", "requirements.txt"


def sources_of(name):
    return sorted(path for path in (HERE / name / "src").rglob("*") if path.is_file())


def fetch(name):
    """The jars that tests/ecosystem/NAME/pom.xml names, once for each version of that file."""
    pom, place = HERE / name / STAMP, INSTALLED / name
    jars, stamp = place / "jars", place / STAMP
    maven.copy_dependencies(pom, jars, stamp, f"the jars of {name}")
    return jars


def python_of(name):
    return str(INSTALLED / name / "venv" / "bin" / "python")


def install_python(name, what):
    """A Python with what tests/ecosystem/NAME/requirements.txt names, once for each version of that file."""
    wanted, stamp = HERE / name / REQUIREMENTS, INSTALLED / name / REQUIREMENTS
    if stamp.exists() and stamp.read_bytes() == wanted.read_bytes():
        return
    print(f"installing {what}", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(stamp.parent / "venv")], check=True)
    subprocess.run([python_of(name), "-m", "pip", "install", "-q", "--disable-pip-version-check", "-r", str(wanted)], check=True)
    shutil.copy(wanted, stamp)


def compiled(name, jars):
    """The classes of tests/ecosystem/NAME/src, and what else lies there, as it lies there."""
    classes, source = INSTALLED / name / "classes", HERE / name / "src"
    shutil.rmtree(classes, ignore_errors=True)
    classes.mkdir()
    for path in sources_of(name):
        if path.suffix != ".java":
            (classes / path.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, classes / path.relative_to(source))
    programs = [str(path) for path in sources_of(name) if path.suffix == ".java"]
    if programs:
        lint = "-Xlint:all,-classfile,-processing,-serial,-try,-options"
        subprocess.run(["javac", "-Werror", lint, "-d", str(classes), "-cp", f"{jars}/*", *programs], check=True)
    return classes


def rest(method, url, body=None, seconds=30):
    """What an application answers to one who asks it by REST ({} for an answer without a body), or None while it cannot answer."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    with contextlib.suppress(urllib.error.HTTPError, OSError):
        with urllib.request.urlopen(request, timeout=seconds) as answer:
            return json.loads(answer.read() or "{}")
    return None


class Place:
    """Where one scenario runs: a cluster of its own, told once to be killed and restarted, and processes that end with it."""

    class_paths = {}

    def __init__(self, binary, directory, nodes, seed, quick):
        self.directory, self.quick, self.seed = pathlib.Path(directory), quick, seed
        self.chance = random.Random(seed)
        # How many; a node is named by its number, from 1 on.
        self.nodes = nodes
        self.cluster = Broker(binary, self.directory) if nodes == 1 else Cluster(binary, self.directory, nodes)
        self.brokers = [self.cluster] if nodes == 1 else self.cluster.brokers
        self.bootstrap = self.cluster.bootstrap
        self.processes, self.logs = [], {}
        self.kills, self.restarts = 0, 0
        self.began = time.monotonic()

    def start(self):
        self.cluster.start()
        return self

    def end(self):
        """Kills what there is; an application first, so that it does not look for nodes."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
        for process in self.processes:
            process.wait()
        self.cluster.kill()

    def say(self, text):
        print(f"  {time.monotonic() - self.began:6.1f} s  {text}", flush=True)

    def kill(self, number):
        """kill -9 of a node, which is started again after some seconds; returns when it is ready. From the main thread only: a process
        ends with the thread that began it."""
        assert threading.current_thread() is threading.main_thread(), "a node is started by the main thread"
        away = self.chance.uniform(*AWAY_SECONDS)
        self.say(f"node {number} is killed, for {away:.1f} s")
        self.brokers[number - 1].kill()
        self.kills += 1
        # How long it is away is the fault itself; nothing is waited for.
        time.sleep(away)
        self.brokers[number - 1].start()

    def restart(self, number):
        """A node is ended as an operator does, and started again; returns when it is ready."""
        assert threading.current_thread() is threading.main_thread(), "a node is started by the main thread"
        self.say(f"node {number} is restarted")
        self.brokers[number - 1].stop()
        self.restarts += 1
        self.brokers[number - 1].start()

    def until(self, condition, seconds, what):
        """Waits until the condition holds, and gives what it gave."""
        deadline = time.monotonic() + seconds
        while not (given := condition()):
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {seconds} s: {what}")
            time.sleep(POLL_SECONDS)
        return given

    def jars(self, name):
        """The class path of tests/ecosystem/NAME: our classes stand before those of jars. NAME may be a folder in a folder."""
        if name not in self.class_paths:
            jars = fetch(name)
            self.class_paths[name] = f"{compiled(name, jars)}:{jars}/*"
        return self.class_paths[name]

    def java(self, name, main, *arguments, memory="512m", options=()):
        """A JVM on the class path of NAME. What it prints goes to a log of its own in the directory (`log_of`)."""
        short = re.split(r"[.$]", main)[-1]
        command = ["java", f"-Xmx{memory}", "-XX:+UseSerialGC", *options, "-cp", self.jars(name), main, *map(str, arguments)]
        return self.program(short, command)

    def program(self, name, command, **options):
        """A process that ends with the scenario. What it prints goes to a log of its own in the directory (`log_of`); `options` are Popen's."""
        path = self.directory / f"{name}-{len(self.processes) + 1}.log"
        with open(path, "wb") as log:
            own = {"stdout": log, "stderr": log, "cwd": self.directory, **options}
            process = subprocess.Popen(command, preexec_fn=die_with_parent, **own)
        self.processes.append(process)
        self.logs[process.pid] = path
        return process

    def assert_alive(self, process):
        assert process.poll() is None, f"{self.logs[process.pid]} ended with exit code {process.returncode}"

    def log_of(self, process):
        return self.logs[process.pid].read_text(errors="replace")

    def tails(self):
        """The last lines of each process, for a failure."""
        paths = [*self.logs.values(), *(broker.directory / broker.log_name for broker in self.brokers)]
        kept = [(path, path.read_text(errors="replace").splitlines()[-TAIL_LINES:]) for path in paths if path.exists()]
        return "\n".join(f"--- {path}\n" + "\n".join(lines) for path, lines in kept)
