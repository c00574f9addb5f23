"""kafka-python: the scenario that every client runs against a broker.

Usage: scenario.py BOOTSTRAP. Prints one `ok NAME` line a step; the first failure ends it with exit code 1.
"""

import sys
import threading
import time
import uuid

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient, NewTopic
from kafka.structs import OffsetAndMetadata

BOOTSTRAP = sys.argv[1]
RUN = uuid.uuid4().hex[:8]
TOPIC = f"kafka-python-{RUN}"
GROUP = f"kafka-python-group-{RUN}"
PARTITIONS = 4
RECORDS_PER_CODEC = 200
CODECS = [None, "gzip", "snappy", "lz4", "zstd"]


def ok(name):
    print(f"ok {name}", flush=True)


def admin_creates_and_describes():
    admin = KafkaAdminClient(bootstrap_servers=BOOTSTRAP)
    admin.create_topics([NewTopic(TOPIC, PARTITIONS, 1, topic_configs={"retention.ms": "86400000"})])
    assert TOPIC in admin.list_topics()
    described = admin.describe_topics([TOPIC])[0]
    assert len(described["partitions"]) == PARTITIONS, described
    admin.close()
    ok("admin: create, list, describe")


def produce_with_every_codec():
    sent = {}
    for codec in CODECS:
        producer = KafkaProducer(bootstrap_servers=BOOTSTRAP, compression_type=codec, acks="all", linger_ms=5)
        futures = []
        for i in range(RECORDS_PER_CODEC):
            value = f"{codec}-{i}-".encode() + b"x" * 100
            key = f"key-{i % 17}".encode()
            futures.append((value, producer.send(TOPIC, key=key, value=value, headers=[("codec", str(codec).encode())])))
        producer.flush(30)
        for value, future in futures:
            placed = future.get(10)
            sent[(placed.partition, placed.offset)] = value
        producer.close()
    assert len(sent) == RECORDS_PER_CODEC * len(CODECS), len(sent)
    for partition in {p for p, _ in sent}:
        offsets = sorted(o for p, o in sent if p == partition)
        assert offsets == list(range(len(offsets))), f"offsets of partition {partition} are not dense from 0"
    ok("produce: none, gzip, snappy, lz4, zstd; offsets dense")
    return sent


def consumer(**more):
    return KafkaConsumer(
        bootstrap_servers=BOOTSTRAP,
        group_id=GROUP,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        session_timeout_ms=10000,
        heartbeat_interval_ms=500,
        **more,
    )


def consume_in_a_group_with_a_rebalance(sent):
    seen = {}
    lock = threading.Lock()
    stop = threading.Event()
    assignments = [set(), set()]

    def run(which):
        with_group = consumer()
        with_group.subscribe([TOPIC])
        while not stop.is_set():
            for records in with_group.poll(timeout_ms=200).values():
                with lock:
                    for r in records:
                        seen[(r.partition, r.offset)] = r.value
            with lock:
                assignments[which] = {tp.partition for tp in with_group.assignment()}
        with_group.commit()
        with_group.close()

    first = threading.Thread(target=run, args=(0,))
    first.start()
    wait_until(lambda: len(assignments[0]) == PARTITIONS, "the first consumer to own every partition")
    second = threading.Thread(target=run, args=(1,))
    second.start()
    wait_until(
        lambda: len(assignments[0]) == 2 and len(assignments[1]) == 2 and not assignments[0] & assignments[1],
        "the group to share its partitions",
    )
    wait_until(lambda: len(seen) == len(sent), "every record to be read")
    stop.set()
    first.join(30)
    second.join(30)
    assert seen == sent, "what was read differs from what was sent"
    ok("group: two consumers, one rebalance, every record read as sent")


def wait_until(condition, what, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.05)


def seek_by_time(sent):
    producer = KafkaProducer(bootstrap_servers=BOOTSTRAP)
    middle = int(time.time() * 1000) + 60_000
    placed = [
        producer.send(TOPIC, value=b"timed", partition=0, timestamp_ms=middle + i * 1000).get(10).offset for i in range(10)
    ]
    producer.close()
    reader = KafkaConsumer(bootstrap_servers=BOOTSTRAP)
    tp = TopicPartition(TOPIC, 0)
    found = reader.offsets_for_times({tp: middle + 4500})[tp]
    assert found.offset == placed[5], (found, placed)
    assert reader.beginning_offsets([tp])[tp] == 0
    assert reader.end_offsets([tp])[tp] == placed[-1] + 1
    reader.assign([tp])
    reader.seek(tp, found.offset)
    records = []
    wait_until(lambda: records.extend(r for b in reader.poll(200).values() for r in b) or len(records) == 5, "5 records")
    assert [r.offset for r in records] == placed[5:]
    reader.close()
    ok("seek by time")


def commit_and_resume():
    tp = TopicPartition(TOPIC, 1)
    first = consumer()
    first.assign([tp])
    first.commit({tp: OffsetAndMetadata(7, "half way", -1)})
    assert first.committed(tp) == 7
    first.close()
    second = consumer()
    second.assign([tp])
    got = []
    wait_until(lambda: got.extend(r for b in second.poll(200).values() for r in b) or got, "a record after the commit")
    assert got[0].offset == 7, got[0]
    second.close()
    ok("commit and resume")


def admin_lists_and_deletes():
    admin = KafkaAdminClient(bootstrap_servers=BOOTSTRAP)
    groups = str(admin.list_groups() if hasattr(admin, "list_groups") else admin.list_consumer_groups())
    assert GROUP in groups, groups
    admin.delete_topics([TOPIC])
    wait_until(lambda: TOPIC not in admin.list_topics(), "the topic to be gone")
    admin.close()
    ok("admin: list groups, delete topic")


def main():
    admin_creates_and_describes()
    sent = produce_with_every_codec()
    consume_in_a_group_with_a_rebalance(sent)
    seek_by_time(sent)
    commit_and_resume()
    admin_lists_and_deletes()


main()
