"""The clients that are run, and the steps of the scenario that each of them goes through.

May not know: how a broker is started, how a result is kept.
"""

import dataclasses
import os
import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = ROOT / "tests" / "clients"
INSTALLED = pathlib.Path(os.environ.get("TEST_CLIENTS_DIR", ROOT / "target" / "clients")).resolve()
PYTHON = str(INSTALLED / "venv" / "bin" / "python")
JARS = str(INSTALLED / "jars")
NODE = ("env", f"NODE_PATH={INSTALLED}/node/node_modules:{INSTALLED}/node-rdkafka/node_modules", "node")

# What users do with a client. A scenario says of each step `ok` or `skip` with a reason; it may not pass over one.
STEPS = {
    "create": "create a topic with a setting, add partitions, describe it",
    "configs": "describe and alter the topic's settings",
    "codecs": "records with keys and headers in none, gzip, snappy, lz4 and zstd; read back byte for byte",
    "idempotent": "an idempotent producer",
    "large": "a record of 3 MiB on a topic that allows it",
    "group": "a group of two members with a rebalance; every record is read as sent",
    "cooperative": "the cooperative rebalance: what a member keeps it goes on reading",
    "resume": "commit, leave, come back: reading goes on at the committed offset",
    "offsets": "the committed offset with its metadata; beginning and end of a partition",
    "time": "seek by time",
    "transactions": "a transaction over two partitions, one that is aborted, one that commits a group's offset; readers of committed data see the first and the last",
    "groups": "list, describe and delete groups",
    "delete": "delete records up to an offset; delete the topic",
}


@dataclasses.dataclass(frozen=True)
class Client:
    """A client as a user has it. `command` takes the bootstrap address as its next argument."""

    language: str
    command: tuple
    steps: tuple = tuple(STEPS)
    # Not part of tests/run: to install it takes too long.
    slow: bool = False
    after: tuple = ()


def java(jars):
    classpath = f"{INSTALLED}/classes:{jars}/*"
    return ("java", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", classpath, "Scenario")


CLIENTS = {
    "kcat": Client("C", (str(HERE / "kcat" / "scenario.sh"),)),
    "confluent-kafka": Client("Python", (PYTHON, str(HERE / "python" / "confluent.py"))),
    "kafka-python": Client("Python", (PYTHON, str(HERE / "python" / "kafka_python.py"))),
    "aiokafka": Client("Python", (PYTHON, str(HERE / "python" / "aio.py"))),
    "kafkajs": Client("JavaScript", (*NODE, str(HERE / "node" / "kafkajs.js"))),
    "node-rdkafka": Client("JavaScript", (*NODE, str(HERE / "node-rdkafka" / "scenario.js")), slow=True),
    "franz-go": Client("Go", (str(INSTALLED / "franz-go"),)),
    "sarama": Client("Go", (str(INSTALLED / "sarama"),)),
    "kafka-go": Client("Go", (str(INSTALLED / "kafka-go"),)),
    "rdkafka": Client("Rust", (str(INSTALLED / "rust" / "debug" / "rdkafka-scenario"),)),
    "rskafka": Client("Rust", (str(INSTALLED / "rust" / "debug" / "rskafka-scenario"),)),
    "java": Client("Java", java(JARS)),
    "java-4.4": Client("Java", java(INSTALLED / "jars-4.4")),
    "java-3.9": Client("Java", java(INSTALLED / "jars-3.9")),
    "java-2.8": Client("Java", java(INSTALLED / "jars-2.8")),
    "kafka-tools": Client("Java", (str(HERE / "java" / "tools.sh"),), steps=(), after=(JARS,)),
}
