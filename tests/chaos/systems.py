"""The systems that can be tested, and which faults each of them can be given.

May not know: how a fault is made, clients.
"""

import dataclasses
import typing

import kafka_nodes
import nodes
from nemesis import FURTHER, KINDS, SABOTAGE, UPGRADE
from page import surroundings

OTTLA, KAFKA = "ottla", "kafka"


@dataclasses.dataclass(frozen=True)
class System:
    kinds: tuple
    # Of any other kind.
    why_not: str
    # Of the arguments, a directory, the network and the topic: its nodes.
    nodes: typing.Callable
    # Of the arguments: by name what is tested, for the page.
    builds: typing.Callable


def ottla_builds(given):
    builds = {"broker": surroundings.build(given.broker)}
    return {**builds, "older broker": surroundings.build(given.old_broker)} if given.old_broker else builds


def ottla_nodes(given, directory, network, topic):
    return nodes.of_ottla(given.old_broker or given.broker, directory, network)


def kafka_builds(given):
    return {"broker": f"Apache Kafka {kafka_nodes.version(given.jars)}, from {given.jars}"}


SYSTEMS = {
    OTTLA: System((*KINDS, *FURTHER, UPGRADE, SABOTAGE), "no node of Ottla can be given it", ottla_nodes, ottla_builds),
    KAFKA: System(
        ("kill", "pause", "cut", "oneway", "leader", "zone", "roll"),
        "a node of Apache Kafka is not given it: it needs what only Ottla's nodes show, or a disk that keeps what Kafka has not synced",
        lambda given, directory, network, topic: kafka_nodes.of_kafka(given.jars, directory, network, topic),
        kafka_builds,
    ),
}
