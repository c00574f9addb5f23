"""The systems that can be tested, and which faults each of them can be given.

May not know: how a fault is made, clients.
"""

import dataclasses
import typing

import client_links
import kafka_nodes
import nodes
import remote_nodes
from nemesis import FURTHER, KINDS, SABOTAGE, UPGRADE, Nemesis
from page import surroundings

OTTLA, KAFKA, FOREIGN, CONTAINERS = "ottla", "kafka", "foreign", "containers"
# Those whose nodes the runner starts.
OWN = (OTTLA, KAFKA)


@dataclasses.dataclass(frozen=True)
class System:
    kinds: tuple
    # Of any other kind.
    why_not: str
    # Without `--nemesis`.
    usual: tuple
    # Of the arguments, a directory, the network and the topic: its nodes.
    nodes: typing.Callable
    # Of the arguments: by name what is tested, for the page.
    builds: typing.Callable
    # How many replicas the topics of administrators may have. Where disks are lost two are too few: one of two is no majority.
    factors: tuple = (2, 3)
    # What makes links between clients and nodes slow, where not those between nodes are.
    links: typing.Callable | None = None


def ottla_builds(given):
    builds = {"broker": surroundings.build(given.broker)}
    return {**builds, "older broker": surroundings.build(given.old_broker)} if given.old_broker else builds


def ottla_nodes(given, directory, network, topic):
    return nodes.of_ottla(given.old_broker or given.broker, directory, network)


def remote(given, directory, network, topic):
    containers = given.containers.split(",") if given.containers else []
    return remote_nodes.of_bootstrap(given.bootstrap, containers, directory, topic)


def remote_builds(given):
    return {"cluster": " ".join(filter(None, (given.bootstrap, given.containers and f"containers {given.containers}")))}


ON_CLIENTS = (*Nemesis.LINK_KINDS, *Nemesis.CLIENT_KINDS)
KAFKA_KINDS = ("kill", "pause", "cut", "oneway", "leader", "zone", "roll")
CONTAINER_KINDS = ("kill", "pause", "zone", "roll")

SYSTEMS = {
    OTTLA: System((*KINDS, *FURTHER, UPGRADE, SABOTAGE), "no node of Ottla can be given it", KINDS, ottla_nodes, ottla_builds, (3,)),
    KAFKA: System(
        (*KAFKA_KINDS, *Nemesis.CLIENT_KINDS, SABOTAGE),
        "a node of Apache Kafka is not given it: it needs what only Ottla's nodes show, or a disk that keeps what Kafka has not synced",
        KAFKA_KINDS,
        lambda given, directory, network, topic: kafka_nodes.of_kafka(given.jars, directory, network, topic),
        lambda given: {"broker": f"Apache Kafka {kafka_nodes.version(given.jars)}, from {given.jars}"},
    ),
    FOREIGN: System(
        ON_CLIENTS,
        "it needs control of the nodes, and those behind --bootstrap are not the runner's",
        Nemesis.CLIENT_KINDS,
        remote,
        remote_builds,
        links=client_links.begin,
    ),
    CONTAINERS: System(
        (*CONTAINER_KINDS, *ON_CLIENTS),
        "it needs more control of the nodes than the docker command gives",
        (*CONTAINER_KINDS, *Nemesis.CLIENT_KINDS),
        remote,
        remote_builds,
        links=client_links.begin,
    ),
}


def name_of(given):
    """Which of them the arguments mean."""
    if given.bootstrap:
        return CONTAINERS if given.containers else FOREIGN
    return given.system
