#!/usr/bin/env python3
"""What clients notice while shards are split and merged again: three nodes, and librdkafka with its default settings.

Usage: tests/resizing/run.py [--broker PATH] [--partitions N] [--rate RECORDS]
  --partitions  of the topic; its shards are split until each partition has one of its own, and then merged again (default 16)
  --rate        records a second for each partition, by an idempotent producer; a consumer group reads them (default 200)
Prints, for acknowledgements and for records that are read, the longest gap of any partition around each split and each merge; the
latency of acknowledgements before them and during them; errors and retries that the clients counted. Needs tests/setup.
The last line: PASS, or FAIL if a client saw an error or a record is missing or stands twice. Times are shown, not judged.
"""

import argparse
import collections
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "clients"))
from broker import Cluster
from table import PYTHON

try:
    from confluent_kafka import Consumer, Producer
    from confluent_kafka.admin import AdminClient, NewTopic
except ImportError:
    os.execv(PYTHON, [PYTHON, *sys.argv])

TOPIC = "resized"
NODES = 3
SETTLE_SECONDS, BETWEEN_SECONDS, MERGE_SECONDS_MAX = 3.0, 0.8, 60
# Around the request for a split or merge.
WINDOW_SECONDS = (-0.2, 0.8)
CONSUMED_SECONDS_MAX = 20


class Clients:
    """A producer and a consumer in threads of their own, and when each record was acknowledged and read."""

    def __init__(self, bootstrap, partitions, rate, value_bytes=1):
        self.bootstrap, self.partitions, self.rate, self.value_bytes = bootstrap, partitions, rate, value_bytes
        self.acknowledged, self.read = collections.defaultdict(list), collections.defaultdict(list)
        self.latencies, self.errors, self.statistics = [], [], {}
        self.written, self.values = set(), collections.defaultdict(list)
        self.stops, self.ends = threading.Event(), threading.Event()
        self.threads = [threading.Thread(target=self.produce), threading.Thread(target=self.consume)]
        for thread in self.threads:
            thread.start()

    def settings(self, what):
        note = lambda error: self.errors.append(f"{what}: {error}")
        return {"bootstrap.servers": self.bootstrap, "error_cb": note}

    def produce(self):
        keep = lambda text: self.statistics.update(json.loads(text))
        own = {"enable.idempotence": True, "statistics.interval.ms": 500, "stats_cb": keep}
        producer = Producer({**self.settings("producer"), **own})
        number, due = 0, time.monotonic()
        while not self.stops.is_set():
            for partition in range(self.partitions):
                number += 1
                producer.produce(TOPIC, f"{number:>{self.value_bytes}}".encode(), partition=partition, on_delivery=self.delivered(number))
            producer.poll(0)
            due += 1 / self.rate
            time.sleep(max(0.0, due - time.monotonic()))
        producer.flush(30)

    def delivered(self, number):
        sent = time.monotonic()

        def told(error, message):
            if error:
                self.errors.append(f"record {number}: {error}")
                return
            now = time.monotonic()
            self.acknowledged[message.partition()].append(now)
            self.latencies.append((now, now - sent))
            self.written.add(number)

        return told

    def consume(self):
        consumer = Consumer({**self.settings("consumer"), "group.id": "resized", "auto.offset.reset": "earliest"})
        consumer.subscribe([TOPIC])
        while not self.ends.is_set():
            message = consumer.poll(0.1)
            if message is None:
                continue
            if message.error():
                self.errors.append(f"read: {message.error()}")
                continue
            self.read[message.partition()].append(time.monotonic())
            self.values[int(message.value())].append((message.partition(), message.offset()))
        consumer.close()

    def stop(self):
        """Ends the producer, lets the consumer read what there is, and gives what is wrong."""
        self.stops.set()
        self.threads[0].join()
        deadline = time.monotonic() + CONSUMED_SECONDS_MAX
        while len(self.values) < len(self.written) and time.monotonic() < deadline:
            time.sleep(0.1)
        self.ends.set()
        self.threads[1].join()
        missing = self.written - set(self.values)
        # A consumer reads again what it had not committed when partitions are assigned anew: that is no second copy.
        twice = {value: sorted(set(places)) for value, places in self.values.items() if len(set(places)) > 1}
        again = sum(len(places) - len(set(places)) for places in self.values.values())
        if again:
            print(f"{again} records were read again")
        return [*self.errors, *(f"record {n} is missing" for n in missing), *(f"record {n} stands at {at}" for n, at in twice.items())]


def asked(binary, node, *words):
    """What a command of `ottla` says of a node's admin port."""
    command = [binary, *words, "--admin", f"http://{node.admin}", "-o", "json"]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


class Operator:
    def __init__(self, binary, node):
        self.binary, self.node = binary, node

    def run(self, *words):
        return asked(self.binary, self.node, "shard", *words)

    def shared(self):
        """A shard that carries several partitions."""
        shards = self.run("list")["shards"]
        return next((shard["id"] for shard in shards if shard["kind"] == "pool" and shard["partitions"] > 1), None)

    def split_all(self):
        """Splits shards until none is shared; gives the moments."""
        moments = []
        while (shard := self.shared()) is not None:
            moments.append(time.monotonic())
            self.run("split", str(shard))
            time.sleep(BETWEEN_SECONDS)
        return moments

    def pool(self):
        return {shard["id"]: shard for shard in self.run("list")["shards"] if shard["kind"] == "pool"}

    def merge_all(self):
        """Merges what was split off into the shard that it comes from; gives the moments."""
        moments = []
        for child in sorted(self.pool(), reverse=True):
            split = self.run("describe", str(child))["split"]
            if split is None:
                continue
            moments.append(time.monotonic())
            self.run("merge", str(child), "--into", str(split["parent"]))
            deadline = time.monotonic() + MERGE_SECONDS_MAX
            while child in self.pool():
                if time.monotonic() > deadline:
                    raise AssertionError(f"shard {child} is not merged: {self.run('describe', str(child))['merge']}")
                time.sleep(0.05)
            time.sleep(max(0.0, moments[-1] + BETWEEN_SECONDS - time.monotonic()))
        return moments


def gaps(times, moments):
    """Milliseconds, one number a split: the longest time in which some partition had nothing."""
    found = []
    for moment in moments:
        first, last = (moment + offset for offset in WINDOW_SECONDS)
        near = ([at for at in of_one if first < at < last] for of_one in times.values())
        found.append(max(1000 * (later - at) for of_one in near for at, later in zip(of_one, of_one[1:], strict=False)))
    return sorted(found)


def quantiles(latencies):
    ordered = sorted(1000 * latency for latency in latencies)
    at = lambda share: ordered[min(len(ordered) - 1, int(len(ordered) * share))]
    return f"p50 {at(0.5):.1f} ms, p99 {at(0.99):.1f} ms, p99.9 {at(0.999):.1f} ms"


def report(clients, what, moments):
    for name, times in [("acknowledged", clients.acknowledged), ("read", clients.read)]:
        found = gaps(times, moments)
        print(f"longest gap of a partition around a {what}, {name}: median {found[len(found) // 2]:.0f} ms, most {found[-1]:.0f} ms")
    during = [latency for at, latency in clients.latencies if moments[0] <= at < moments[-1] + WINDOW_SECONDS[1]]
    print(f"acknowledgement during {len(moments)} {what}s: {quantiles(during)}")


def report_all(clients, splits, merges):
    # The first requests look for the leaders.
    before = [latency for at, latency in clients.latencies if splits[0] - SETTLE_SECONDS / 2 < at < splits[0]]
    print(f"acknowledgement before: {quantiles(before)}")
    report(clients, "split", splits)
    report(clients, "merge", merges)
    brokers = clients.statistics.get("brokers", {}).values()
    retries = sum(broker.get("txretries", 0) for broker in brokers)
    print(f"{len(splits)} splits, {len(merges)} merges, {len(clients.written)} records acknowledged, {retries} requests sent again")


def arguments_of(description, partitions, rate):
    """What every script here can be told."""
    arguments = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    arguments.add_argument("--broker", default=str(target / "release" / "ottla"), metavar="PATH")
    arguments.add_argument("--partitions", type=int, default=partitions, metavar="N")
    arguments.add_argument("--rate", type=int, default=rate, metavar="RECORDS")
    return arguments


def verdict(given, run):
    """Runs a scenario on a cluster that has the topic, prints what is wrong and the verdict, and ends the process."""
    with tempfile.TemporaryDirectory(prefix="ottla-resizing-") as directory:
        cluster = Cluster(given.broker, directory, NODES).start()
        try:
            admin = AdminClient({"bootstrap.servers": cluster.bootstrap})
            admin.create_topics([NewTopic(TOPIC, given.partitions, NODES)])[TOPIC].result()
            wrong = run(given, cluster)
        finally:
            cluster.kill()
    for line in wrong[:20]:
        print(line)
    print("FAIL" if wrong else "PASS")
    sys.exit(bool(wrong))


def resize(given, cluster):
    clients = Clients(cluster.bootstrap, given.partitions, given.rate)
    time.sleep(SETTLE_SECONDS)
    operator = Operator(given.broker, cluster.brokers[0])
    splits, merges = operator.split_all(), operator.merge_all()
    wrong = clients.stop()
    report_all(clients, splits, merges)
    return wrong


def main():
    verdict(arguments_of(__doc__, partitions=16, rate=200).parse_args(), resize)


if __name__ == "__main__":
    main()
