"""Programs that a story starts, and PySpark, on which some of them run.

Used by `spark` beside this file and by tests/resizing/pipelines.py. May not know: any broker, any story.
"""

import os
import pathlib
import re
import signal
import subprocess
import sys
import threading

ROOT = pathlib.Path(__file__).resolve().parents[2]
INSTALLED = pathlib.Path(os.environ.get("TEST_CLIENTS_DIR", ROOT / "target" / "clients")) / "spark"
VERSION = "4.0.0"
# setuptools holds a module that PySpark still asks for and Python 3.12 no longer has; the rest runs the notebook.
BESIDE = ["setuptools<81", "nbclient==0.11.0", "nbformat==5.11.1", "ipykernel==7.4.0"]
PATIENCE_SECONDS = 300


def connector(version):
    scala = "2.12" if version.startswith("3.") else "2.13"
    return f"org.apache.spark:spark-sql-kafka-0-10_{scala}:{version}"


def install(version):
    """A Python with PySpark, made once a version."""
    home = INSTALLED / version
    python = home / "bin" / "python"
    (client,) = re.findall(r"^kafka-python==.*$", (ROOT / "tests/clients/python/requirements.txt").read_text(), re.M)
    wanted = [f"pyspark=={version}", client, *BESIDE]
    stamp = home / "installed"
    if not stamp.exists() or stamp.read_text().split() != wanted:
        print(f"installing PySpark {version} in {home}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        subprocess.run([*pip, *wanted], check=True)
        stamp.write_text("\n".join(wanted))
    return python


def environment(version, directory, python=sys.executable):
    """What the Spark programs are given; `python` has PySpark."""
    own = dict(
        PYSPARK_PYTHON=str(python),
        SPARK_PACKAGES=connector(version),
        SPARK_IVY=str(INSTALLED / "ivy"),
        SPARK_LOCAL_IP="127.0.0.1",
        TMPDIR=str(directory),
    )
    return {**os.environ, **own}


class Lines:
    """A program whose lines are kept as they come; killed with everything it started."""

    def __init__(self, *command, environment, log):
        self.lines, self.changed = [], threading.Condition()
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=open(log, "ab"), env=environment, text=True, start_new_session=True
        )
        self.log = log
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            with self.changed:
                self.lines.append(line.rstrip("\n"))
                self.heard(self.lines[-1])
                self.changed.notify_all()
        with self.changed:
            self.lines.append(None)
            self.changed.notify_all()

    def heard(self, line):
        """Called for each line as it comes."""

    def wait_for(self, what, found):
        """Waits until `found(lines)` is true."""
        with self.changed:
            there = self.changed.wait_for(lambda: found(self.lines) or self.lines[-1:] == [None], PATIENCE_SECONDS)
            if not there or not found(self.lines):
                raise AssertionError(f"{what}: not within {PATIENCE_SECONDS} s, or the program ended\n{self.tail()}")

    def end(self, seconds=PATIENCE_SECONDS):
        code = self.process.wait(seconds)
        if code != 0:
            raise AssertionError(f"exit code {code}\n{self.tail()}")
        self.wait_for("its last line", lambda lines: lines[-1:] == [None])
        return self.lines[:-1]

    def kill(self):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def tail(self):
        said = [line or "" for line in self.lines[-20:]]
        return "\n".join(said + pathlib.Path(self.log).read_text(errors="replace").splitlines()[-40:])
