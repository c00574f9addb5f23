"""kafka-python: the scenario that every client runs against a broker.

Usage: kafka_python.py BOOTSTRAP. Prints what outcome.py reads; the first failure ends it with exit code 1.
"""

import threading
import time

import kafka
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient, NewPartitions, NewTopic
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.errors import RebalanceInProgressError
from kafka.structs import OffsetAndMetadata
from scenario import BOOTSTRAP, LARGE, LARGE_LIMIT_BYTES, PARTITIONS, REPLICATION_FACTOR, RUN, Warnings
from scenario import check_dense, expected_records, ok, say, stop, transaction, two_members, wait_until

TOPIC = f"kafka-python-{RUN}"
GROUP = f"kafka-python-group-{RUN}"
TRANSACTIONAL = f"kafka-python-transactions-{RUN}"
counted = {"retries": 0.0, "errors": 0.0}


def producer(**more):
    return KafkaProducer(bootstrap_servers=BOOTSTRAP, acks="all", linger_ms=5, **more)


def close(one):
    """Closes a producer and adds its own counters."""
    metrics = one.metrics()["producer-metrics"]
    counted["retries"] += metrics["record-retry-rate"]
    counted["errors"] += metrics["record-error-rate"]
    one.close()


def create_and_describe(admin):
    admin.create_topics([NewTopic(TOPIC, 2, REPLICATION_FACTOR, topic_configs={"retention.ms": "86400000"})])
    assert TOPIC in admin.list_topics()
    admin.create_partitions({TOPIC: NewPartitions(PARTITIONS)})
    wait_until(lambda: len(admin.describe_topics([TOPIC])[0]["partitions"]) == PARTITIONS, "the new partitions")
    ok("create")
    resource = ConfigResource(ConfigResourceType.TOPIC, TOPIC, {"max.message.bytes": str(LARGE_LIMIT_BYTES)})
    admin.alter_configs([resource])
    described = str(admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, TOPIC)]))
    assert "86400000" in described and str(LARGE_LIMIT_BYTES) in described, described
    ok("configs")


def produce_with_every_codec():
    sent, waiting, producers = {}, [], {}
    for codec, partition, key, value, headers in expected_records():
        if codec not in producers:
            producers[codec] = producer(compression_type=None if codec == "none" else codec, enable_idempotence=True)
        future = producers[codec].send(TOPIC, key=key, value=value, partition=partition, headers=headers)
        waiting.append(((key, value, headers), future))
        if len(waiting) % 200 == 0:
            # One codec after the other, so that offsets can be told apart by codec.
            producers[codec].flush(30)
    for record, future in waiting:
        placed = future.get(10)
        sent[(placed.partition, placed.offset)] = record
    for one in producers.values():
        close(one)
    check_dense(sent)
    ok("idempotent")
    return sent


def reader_of_one_partition():
    return KafkaConsumer(bootstrap_servers=BOOTSTRAP, enable_auto_commit=False)


def large_record():
    big = producer(max_request_size=LARGE_LIMIT_BYTES)
    placed = big.send(TOPIC, value=LARGE, partition=3).get(30)
    close(big)
    reader = reader_of_one_partition()
    tp = TopicPartition(TOPIC, 3)
    reader.assign([tp])
    reader.seek(tp, placed.offset)
    got = []
    wait_until(lambda: got.extend(r for b in reader.poll(200).values() for r in b) or got, "the large record")
    assert got[0].value == LARGE
    reader.close()
    ok("large")
    return (placed.partition, placed.offset)


def consumer(**more):
    settings = dict(group_id=GROUP, auto_offset_reset="earliest", enable_auto_commit=False)
    return KafkaConsumer(bootstrap_servers=BOOTSTRAP, heartbeat_interval_ms=300, **{**settings, **more})


class Member(threading.Thread):
    """A consumer of the group in a thread of its own."""

    def __init__(self, seen, **more):
        super().__init__(daemon=True)
        self.seen, self.more = seen, more
        self.owned, self.lost, self.failure = set(), set(), None
        self.stopping, self.committed, self.leaving = threading.Event(), threading.Event(), threading.Event()
        self.start()

    def run(self):
        try:
            one = consumer(**self.more)
            one.subscribe([TOPIC])
            while not self.committed.is_set():
                for records in one.poll(timeout_ms=200).values():
                    for r in records:
                        self.seen[(r.partition, r.offset)] = (r.key, r.value, r.headers)
                owned = {tp.partition for tp in one.assignment()}
                self.lost |= self.owned - owned
                self.owned = owned
                if self.stopping.is_set():
                    self.commit(one)
            self.leaving.wait(30)
            one.close()
        except Exception as failure:
            self.failure = failure

    def commit(self, one):
        try:
            one.commit()
            self.committed.set()
        except RebalanceInProgressError:
            say("  a rebalance: the member polls and commits again")


def group_with_a_rebalance(sent, large):
    seen, first, second = two_members(Member)
    wait_until(lambda: len(seen) == len(sent) + 1, "every record to be read")
    stop(first, second)
    del seen[large]
    assert {at: (k, v, [(h, bytes(b)) for h, b in hs]) for at, (k, v, hs) in seen.items()} == sent
    ok("codecs", "none, gzip, snappy, lz4, zstd")
    ok("group")


def cooperative():
    _, first, second = two_members(Member, partition_assignment_strategy=[CooperativeStickyAssignor], group_id=GROUP + "-cooperative")
    assert len(first.lost) == 2, f"the first member lost {first.lost}"
    stop(first, second)
    ok("cooperative")


def seek_by_time():
    middle = int(time.time() * 1000) + 60_000
    one = producer()
    placed = [one.send(TOPIC, value=b"timed", partition=0, timestamp_ms=middle + i * 1000).get(10).offset for i in range(10)]
    close(one)
    reader = reader_of_one_partition()
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
    ok("time")


def commit_and_resume():
    tp = TopicPartition(TOPIC, 1)
    first = consumer()
    first.assign([tp])
    first.commit({tp: OffsetAndMetadata(7, "half way", -1)})
    committed = first.committed(tp, metadata=True)
    assert (committed.offset, committed.metadata) == (7, "half way"), committed
    first.close()
    ok("offsets")
    second = consumer()
    second.assign([tp])
    got = []
    wait_until(lambda: got.extend(r for b in second.poll(200).values() for r in b) or got, "a record after the commit")
    assert got[0].offset == 7, got[0]
    second.close()
    ok("resume")


def transactions(admin):
    admin.create_topics([NewTopic(TRANSACTIONAL, 2, REPLICATION_FACTOR)])
    one = producer(transactional_id=TRANSACTIONAL)
    one.init_transactions()

    def begin(name):
        one.begin_transaction()
        for partition, value in transaction(name):
            one.send(TRANSACTIONAL, value=value, partition=partition)
        one.flush(30)

    begin("first")
    one.commit_transaction()
    begin("aborted")
    one.abort_transaction()
    begin("last")
    one.send_offsets_to_transaction({TopicPartition(TOPIC, 1): OffsetAndMetadata(5, "", -1)}, TRANSACTIONAL)
    one.commit_transaction()
    close(one)
    # The end of a transaction is answered before its markers are written. A consumer of committed data asks for stable offsets, and
    # this client logs an error where they are not yet, as with Kafka: one that does not ask for them waits.
    group = {"bootstrap_servers": BOOTSTRAP, "group_id": TRANSACTIONAL, "enable_auto_commit": False}
    waiting = KafkaConsumer(**group)
    wait_until(lambda: waiting.committed(TopicPartition(TOPIC, 1)) == 5, "the committed offset")
    waiting.close()
    reader = KafkaConsumer(**group, auto_offset_reset="earliest", isolation_level="read_committed")
    assert reader.committed(TopicPartition(TOPIC, 1)) == 5
    partitions = [TopicPartition(TRANSACTIONAL, partition) for partition in range(2)]
    reader.assign(partitions)
    reader.seek_to_beginning(*partitions)
    expected, got = [*transaction("first"), *transaction("last")], []

    def read():
        for records in reader.poll(200).values():
            got.extend((record.partition, record.value) for record in records)
        return len(got) >= len(expected)

    wait_until(read, "the committed records")
    assert sorted(got) == sorted(expected) and not reader.poll(500)
    reader.close()
    admin.delete_topics([TRANSACTIONAL])
    ok("transactions")


def groups_and_deletion(admin):
    assert GROUP in str(admin.list_groups())
    assert "Empty" in str(admin.describe_groups([GROUP]))
    assert "half way" in str(admin.list_group_offsets({GROUP: [TopicPartition(TOPIC, 1)]}))
    admin.delete_groups([GROUP])
    assert f"'{GROUP}'" not in str(admin.list_groups())
    ok("groups")
    tp = TopicPartition(TOPIC, 2)
    admin.delete_records({tp: 3})
    reader = reader_of_one_partition()
    assert reader.beginning_offsets([tp])[tp] == 3
    reader.close()
    admin.delete_topics([TOPIC])
    wait_until(lambda: TOPIC not in admin.list_topics(), "the topic to be gone")
    ok("delete")


def main():
    # A busy machine; and its own assignor at a first join, before it has seen the topic: it assigns again once it has.
    # Then the client's name for requests of its own that were under way when it closed their connection itself, and what
    # its reader of a socket says if the socket was closed by the client after it had become readable: it has no address
    # any more. Of a connection that a broker closes the client says "socket disconnected", with the address.
    harmless = (
        "blocking the event loop",
        "No partition metadata for topic",
        "Metadata refresh: failed Cancelled",
        "[none] (closed)>: Error receiving network data",
    )
    warnings = Warnings(harmless=harmless)
    say(f"version {kafka.__version__}")
    admin = KafkaAdminClient(bootstrap_servers=BOOTSTRAP)
    create_and_describe(admin)
    sent = produce_with_every_codec()
    large = large_record()
    group_with_a_rebalance(sent, large)
    cooperative()
    seek_by_time()
    commit_and_resume()
    transactions(admin)
    groups_and_deletion(admin)
    admin.close()
    say(f"count retries {round(counted['retries'])}")
    say(f"count errors {round(counted['errors'])}")
    say(f"count warnings {warnings.counted}")


main()
