"""Nodes of a real Apache Kafka, in KRaft combined mode, each in a network namespace of its own: what its cluster does under the same faults.

Its settings are its defaults but for those below. May not know: faults, clients.
"""

import pathlib
import socket
import subprocess

from nodes import KAFKA_PORT, NodeProcess, Nodes
from wire_nodes import WireNode

CONTROLLER_PORT = 9093
CLUSTER_ID = "MkU3OEVBNTcwNTJENDM2Qg"
# The JVM compiles less: three nodes start on a small machine in half of the time.
JVM = ["-Xmx768m", "-XX:TieredStopAtLevel=1", "-XX:+UseG1GC", "-Djava.awt.headless=true", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]
JVM += ["-Dorg.slf4j.simpleLogger.showDateTime=true", "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSS'Z'", "-Duser.timezone=UTC"]
SETTINGS = {
    # An acknowledged record is on two of three nodes, as a majority has it. Kafka's own default is one.
    "min.insync.replicas": "2",
    "group.initial.rebalance.delay.ms": "100",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.num.partitions": "4",
    "auto.create.topics.enable": "false",
    "log.cleaner.backoff.ms": "500",
}


def version(jars):
    return next((path.stem.removeprefix("kafka_2.13-") for path in pathlib.Path(jars).glob("kafka_2.13-*.jar")), None)


class KafkaNode(WireNode, NodeProcess):
    good_exits = (0, 143)
    fatal_words = ("Encountered fatal fault", "Exiting Kafka due to fatal", "java.lang.OutOfMemoryError")
    environment = None

    def __init__(self, jars, directory, network, number, topic):
        super().__init__(directory, network, number)
        self.topic, self.place = topic, (self.address, KAFKA_PORT)
        java = ["java", *JVM, "-cp", f"{jars}/*"]
        self.command = [*network.command(number), *java, "kafka.Kafka", "server.properties"]
        self.format = [*java, "kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", "server.properties"]
        properties = {
            "process.roles": "broker,controller",
            "node.id": number,
            "broker.rack": self.zone,
            "controller.quorum.voters": ",".join(f"{n}@{network.addresses[n]}:{CONTROLLER_PORT}" for n in network.nodes),
            "controller.listener.names": "CONTROLLER",
            "listeners": f"PLAINTEXT://{self.address}:{KAFKA_PORT},CONTROLLER://{self.address}:{CONTROLLER_PORT}",
            "advertised.listeners": f"PLAINTEXT://{self.address}:{KAFKA_PORT}",
            "log.dirs": self.data,
            **SETTINGS,
        }
        (directory / "server.properties").write_text("".join(f"{name}={value}\n" for name, value in properties.items()))

    def connect(self, address, timeout):
        """From its own namespace: no cut stands in between."""
        with self.network.inside(self.number):
            return socket.create_connection(address, timeout)


def of_kafka(jars, directory, network, topic):
    if not version(jars):
        raise OSError(f"there is no kafka_2.13-*.jar in {jars}")
    nodes = Nodes(KafkaNode(jars, directory / f"node-{n}", network, n, topic) for n in network.nodes)
    for node in nodes:
        done = subprocess.run(node.format, cwd=node.directory, capture_output=True, text=True)
        if done.returncode != 0:
            raise OSError(f"node {node.number} could not be formatted: {done.stdout[-500:]}{done.stderr[-500:]}")
    return nodes
