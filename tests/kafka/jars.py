"""Kafka's published tests and what they need: fetched, our classes compiled, and which classes of tests there are.

May not know: how a class is run, what became of it.
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import zipfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.append(str(ROOT / "tests" / "clients"))
import maven

PLACE = pathlib.Path(os.environ.get("TEST_CLIENTS_DIR", ROOT / "target" / "clients")) / "kafka-tests"
POM = HERE / "pom.xml"
# A suite, and the artifact that has it.
SUITES = {
    "clients": "kafka-clients-integration-tests",
    "tools": "kafka-tools",
    "core": "kafka_2.13",
    "streams": "kafka-streams-integration-tests",
    "connect": "connect-runtime",
    "mirror": "connect-mirror",
}
# What a class names that runs on the cluster harness.
HARNESS = (b"org/apache/kafka/common/test/ClusterInstance", b"EmbeddedKafkaCluster", b"EmbeddedConnectCluster")
# What a class extends that starts Kafka's brokers from its insides, whatever stands first on the class path.
OTHERS = (b"QuorumTestHarness", b"KafkaServerTestHarness", b"IntegrationTestHarness", b"kafka/server/BaseRequestTest")


def version():
    return re.search(r"<kafka.version>(.+)</kafka.version>", POM.read_text())[1]


def fetch():
    """The jars, once for each version of the list of them."""
    maven.copy_dependencies(POM, PLACE, PLACE / "pom.xml", f"Apache Kafka {version()} and its tests")


def compile_ours():
    """Our classes, in two places: those that stand before Kafka's of the same name are left out where Kafka itself is tested."""
    ours, shadows = PLACE / "ours", PLACE / "shadows"
    shutil.rmtree(ours, ignore_errors=True)
    shutil.rmtree(shadows, ignore_errors=True)
    sources = [str(source) for source in sorted((HERE / "src").rglob("*.java"))]
    subprocess.run(["javac", "-Werror", "-Xlint:all,-classfile,-processing,-try", "-d", str(ours), "-cp", f"{PLACE}/*", *sources], check=True)
    shutil.copytree(HERE / "resources", ours, dirs_exist_ok=True)
    shadows.mkdir()
    (ours / "org").rename(shadows / "org")


def class_path(with_ottla):
    places = [PLACE / "ours", f"{PLACE}/*"]
    return ":".join(str(place) for place in ([PLACE / "shadows"] if with_ottla else []) + places)


def classes(suite):
    """The names of a suite's classes on the cluster harness, in order. A class that only others extend has no tests: none are found in it."""
    found = set()
    jar = zipfile.ZipFile(PLACE / f"{SUITES[suite]}-{version()}-test.jar")
    by_class = {}
    for entry in jar.namelist():
        if entry.endswith(".class"):
            # A test may use the harness in a class that it encloses.
            by_class.setdefault(entry.removesuffix(".class").split("$")[0], []).append(jar.read(entry))
    for name, bodies in by_class.items():
        if not name.endswith("Test"):
            continue
        whole = b"".join(bodies)
        if any(mark in whole for mark in HARNESS) and not any(mark in whole for mark in OTHERS):
            found.add(name.replace("/", "."))
    return sorted(found)
