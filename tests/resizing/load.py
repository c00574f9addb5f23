#!/usr/bin/env python3
"""How load is followed: an on-demand topic whose load is doubled, and nodes that join a cluster under load.

Usage: tests/resizing/load.py on-demand|join [--broker PATH] [--partitions N] [--rate RECORDS] [--bytes BYTES] [--filled MB]
  on-demand   the topic's load is doubled twice; prints how long its shards take to have room for twice of it
  join        a fourth and a fifth node join, one after the other; prints how long they take to have their share of replicas and
              leaderships, what the producers notice, and what the balancer says it did
  --filled    what the topic holds before nodes join, megabytes (default 200)
librdkafka with its default settings, as in run.py beside this file. Needs tests/setup. The last line: PASS, or FAIL if a client saw an
error, a record is missing or stands twice, or the balance was not reached. Times are shown, not judged.
"""

import pathlib
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(ROOT / "tests" / "clients")]
from broker import free_ports
from run import TOPIC, Clients, arguments_of, asked, quantiles, verdict

SETTLE_SECONDS, REACHED_SECONDS_MAX, DOUBLINGS = 8.0, 120, 2


def until(reached):
    """Seconds until it is so; None if that took too long."""
    begun = time.monotonic()
    while not reached():
        if time.monotonic() - begun > REACHED_SECONDS_MAX:
            return None
        time.sleep(0.2)
    return time.monotonic() - begun


def latencies(clients, since, to):
    return [latency for at, latency in clients.latencies if since <= at < to]


def own_shards(binary, node):
    return sum(shard.get("pinned", False) for shard in asked(binary, node, "shard", "list")["shards"])


def configure(given, cluster, *settings):
    words = [word for setting in settings for word in ("--set", setting)]
    command = [given.broker, "topic", "alter", TOPIC, "--bootstrap-server", cluster.bootstrap, *words]
    subprocess.run(command, check=True, capture_output=True)


def on_demand(given, cluster, clients):
    """Doubles the load; the topic's shards are to have room for twice what it then has to do, in the balancer's own eyes as well."""
    node, wrong = cluster.brokers[0], []
    # The first requests look for the leaders.
    time.sleep(SETTLE_SECONDS)
    # Every record is written and read.
    load = lambda: 2 * clients.rate * given.partitions * given.bytes
    room = load() // 4
    configure(given, cluster, f"ottla.shard.bytes.per.second={room}", "ottla.shard.mode=on-demand")
    has_room = lambda: own_shards(given.broker, node) >= min(given.partitions, 2 * load() / room)
    rests = lambda: not any("halved" in step["reason"] or "of its own" in step["reason"] for step in asked(given.broker, node, "balance", "plan")["plan"])
    for doubling in range(DOUBLINGS + 1):
        before, begun = own_shards(given.broker, node), time.monotonic()
        clients.rate *= 2 if doubling else 1
        took = until(has_room)
        ended, after = time.monotonic(), own_shards(given.broker, node)
        told = f"{took:.1f} s" if took is not None else "not reached"
        print(f"{load() / 1e6:.1f} MB/s, {room / 1e6:.1f} for a shard: {before} -> {after} shards in {told}; acknowledgement: {quantiles(latencies(clients, begun, ended + 1))}")
        wrong += [] if took is not None else [f"{after} shards have no room for twice the load"]
        time.sleep(SETTLE_SECONDS)
        until(rests)
    return wrong


def is_even(status, nodes):
    of = lambda what: [node[what] for node in status["nodes"]]
    spread = lambda numbers: max(numbers) - min(numbers)
    return status["complete"] and len(status["nodes"]) == nodes and spread(of("replicas")) <= 2 and spread(of("leaders")) <= 2


def join(given, cluster, clients):
    node, wrong = cluster.brokers[0], []
    while sum(map(len, clients.acknowledged.values())) * given.bytes < given.filled * 1e6:
        time.sleep(0.5)
    now = time.monotonic()
    print(f"before: {quantiles(latencies(clients, now - SETTLE_SECONDS, now))}")
    for _ in range(2):
        begun = time.monotonic()
        cluster.add(f"127.0.0.1:{free_ports(1)[0]}").spawn()
        nodes = len(cluster.brokers)
        shards = lambda: asked(given.broker, node, "shard", "list")["shards"]
        moving = lambda: any(replica["role"] in ("leaving", "learner", "joining") for shard in shards() for replica in shard["replicas"])
        took = until(lambda nodes=nodes: is_even(asked(given.broker, node, "balance", "plan"), nodes) and not moving())
        ended = time.monotonic()
        wrong += [] if took is not None else [f"node {nodes} did not get its share"]
        told = f"{took:.1f} s" if took is not None else "not reached"
        print(f"node {nodes} has its share after {told}; acknowledgement meanwhile: {quantiles(latencies(clients, begun, ended))}")
    history = asked(given.broker, node, "balance", "history")
    for step in history["history"]:
        print(f"  {step['reason']}")
    for share in history["nodes"]:
        print(f"node {share['node']}: {share['replicas']} replicas, {share['leaders']} leaderships, {share['bytes_per_second'] / 1e6:.1f} MB/s")
    return wrong


def follow(given, cluster):
    clients = Clients(cluster.bootstrap, given.partitions, given.rate, given.bytes)
    wrong = (on_demand if given.what == "on-demand" else join)(given, cluster, clients)
    return wrong + clients.stop()


def main():
    arguments = arguments_of(__doc__, partitions=32, rate=25)
    arguments.add_argument("what", choices=["on-demand", "join"])
    arguments.add_argument("--bytes", type=int, default=1000, metavar="BYTES")
    arguments.add_argument("--filled", type=int, default=200, metavar="MB")
    verdict(arguments.parse_args(), follow)


if __name__ == "__main__":
    main()
