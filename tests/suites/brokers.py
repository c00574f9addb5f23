"""The broker that a suite meets: Ottla, or Apache Kafka to tell whose fault a failure is.

Both listen on localhost:9092, which some suites have as a constant: a suite runs in a network namespace of its own,
where that port is always free. Further nodes listen on the ports behind it. May not know: any suite.
"""

import contextlib
import fcntl
import pathlib
import socket
import struct
import sys
import time

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "clients"))
from broker import Broker, Cluster, Kafka  # noqa: E402

PORT = 9092
ADDRESS = f"localhost:{PORT}"
LISTENER = f"PLAINTEXT://127.0.0.1:{PORT}"


def listening(port):
    return {"KAFKA_LISTENERS": f"PLAINTEXT://127.0.0.1:{port}", "KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://localhost:{port}"}


def bring_up_loopback():
    """In a new network namespace `lo` is down; this is `ip link set lo up` without the tool."""
    get_flags, set_flags, up = 0x8913, 0x8914, 1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        request = struct.pack("16sH14x", b"lo", 0)
        flags = struct.unpack("16sH14x", fcntl.ioctl(s, get_flags, request))[1]
        fcntl.ioctl(s, set_flags, struct.pack("16sH14x", b"lo", flags | up))


def wait_for_port(process, port, log, seconds_max=60):
    deadline = time.monotonic() + seconds_max
    while True:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"it did not start:\n{log.read_text(errors='replace')[-4000:]}")
        time.sleep(0.05)


def ottla(binary, directory, settings, nodes):
    """`settings` have Kafka's names; the image's way of writing them reaches Ottla."""
    named = {"KAFKA_" + name.upper().replace(".", "_"): value for name, value in settings.items()}
    if nodes == 1:
        return Broker(binary, directory, **{**listening(PORT), **named})
    cluster = Cluster(binary, directory, nodes, **named)
    for port, broker in enumerate(cluster.brokers, PORT):
        broker.environment |= listening(port)
    return cluster


def apache_kafka(jars, directory, settings):
    controller = "controller.quorum.voters", f"{settings.get('node.id', 1)}@127.0.0.1:9093"
    fixed = {
        "bootstrap": "127.0.0.1:9092",
        "listeners": f"{LISTENER},CONTROLLER://127.0.0.1:9093",
        "advertised.listeners": f"PLAINTEXT://{ADDRESS}",
        "transaction.state.log.num.partitions": "4",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
    }
    return Kafka(jars, directory, {**fixed, **dict([controller]), **settings})
