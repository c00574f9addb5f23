"""confluent-kafka (librdkafka): the scenario that every client runs against a broker.

Usage: confluent.py BOOTSTRAP. Prints what outcome.py reads; the first failure ends it with exit code 1.
"""

import json
import threading
import time

import confluent_kafka
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions, NewTopic, OffsetSpec
from scenario import BOOTSTRAP, LARGE, LARGE_LIMIT_BYTES, NODES, PARTITIONS, REPLICATION_FACTOR, RUN, Warnings
from scenario import check_dense, expected_records, ok, say, stop, transaction, two_members, wait_until

TOPIC = f"confluent-{RUN}"
GROUP = f"confluent-group-{RUN}"
TRANSACTIONAL = f"confluent-transactions-{RUN}"


class Counters:
    """librdkafka's own: every client reports its statistics ten times a second, and calls back with its errors."""

    def __init__(self):
        self.errors = 0
        self.retries = {}
        self.reports = 0

    def error(self, error):
        self.errors += 1
        say(f"  error: {error}")

    def statistics(self, text):
        self.reports += 1
        report = json.loads(text)
        brokers = report["brokers"].values()
        self.retries[report["name"]] = sum(b["txretries"] + b["txerrs"] + b["rxerrs"] + b["req_timeouts"] for b in brokers)

    def settings(self):
        return {"bootstrap.servers": BOOTSTRAP, "error_cb": self.error, "stats_cb": self.statistics, "statistics.interval.ms": 100}


counters = Counters()


def wait_for(futures):
    return {name: future.result(30) for name, future in futures.items()}


def producer(**more):
    return Producer({**counters.settings(), "linger.ms": 5, "enable.idempotence": True, **more})


def delivered(one, records):
    """Produces records and gives, for each, where it landed."""
    places = {}

    def answered(number):
        def callback(error, message):
            assert error is None, error
            places[number] = (message.partition(), message.offset())

        return callback

    for number, record in enumerate(records):
        one.produce(TOPIC, on_delivery=answered(number), **record)
    assert one.flush(30) == 0
    return [places[number] for number in range(len(places))]


def create_and_describe(admin):
    wait_for(admin.create_topics([NewTopic(TOPIC, 2, REPLICATION_FACTOR, config={"retention.ms": "86400000"})]))
    wait_for(admin.create_partitions([NewPartitions(TOPIC, PARTITIONS)]))
    wait_until(lambda: len(admin.list_topics(TOPIC).topics[TOPIC].partitions) == PARTITIONS, "the new partitions")
    described = wait_for(admin.describe_topics(confluent_kafka.TopicCollection([TOPIC])))
    assert len(described[TOPIC].partitions) == PARTITIONS
    assert len(admin.describe_cluster().result(30).nodes) == NODES
    ok("create")
    limit = ConfigEntry("max.message.bytes", str(LARGE_LIMIT_BYTES), incremental_operation=AlterConfigOpType.SET)
    wait_for(admin.incremental_alter_configs([ConfigResource("topic", TOPIC, incremental_configs=[limit])]))

    def described():
        (entries,) = wait_for(admin.describe_configs([ConfigResource("topic", TOPIC)])).values()
        return (entries["retention.ms"].value, entries["max.message.bytes"].value)

    wait_until(lambda: described() == ("86400000", str(LARGE_LIMIT_BYTES)), "the new settings")
    ok("configs")


def produce_with_every_codec():
    sent, by_codec = {}, {}
    for codec, partition, key, value, headers in expected_records():
        by_codec.setdefault(codec, []).append({"partition": partition, "key": key, "value": value, "headers": headers})
    for codec, records in by_codec.items():
        places = delivered(producer(**{"compression.type": codec}), records)
        sent.update({place: (r["key"], r["value"], r["headers"]) for place, r in zip(places, records)})
    check_dense(sent)
    ok("idempotent")
    return sent


def large_record():
    (place,) = delivered(producer(**{"message.max.bytes": LARGE_LIMIT_BYTES}), [{"partition": 3, "value": LARGE}])
    reader = consumer()
    reader.assign([TopicPartition(TOPIC, *place)])
    message = reader.poll(30)
    assert message.value() == LARGE and message.offset() == place[1]
    reader.close()
    ok("large")
    return place


def consumer(**more):
    settings = {"group.id": GROUP, "auto.offset.reset": "earliest", "enable.auto.commit": False, "heartbeat.interval.ms": 300}
    return Consumer({**counters.settings(), **settings, **more})


class Member(threading.Thread):
    """A consumer of the group in a thread of its own."""

    def __init__(self, seen, **more):
        super().__init__(daemon=True)
        self.seen, self.one = seen, consumer(**more)
        self.owned, self.revoked, self.failure = set(), set(), None
        self.stopping, self.committed, self.leaving = threading.Event(), threading.Event(), threading.Event()
        self.start()

    def revoke(self, _, partitions):
        self.revoked |= {tp.partition for tp in partitions}

    def run(self):
        try:
            self.one.subscribe([TOPIC], on_revoke=self.revoke)
            while not self.committed.is_set():
                message = self.one.poll(0.05)
                if message is not None:
                    assert message.error() is None, message.error()
                    self.seen[message.partition(), message.offset()] = (message.key(), message.value(), message.headers())
                self.owned = {tp.partition for tp in self.one.assignment()}
                if self.stopping.is_set():
                    self.commit()
            self.leaving.wait(30)
            self.one.close()
        except Exception as failure:
            self.failure = failure

    def commit(self):
        try:
            self.one.commit(asynchronous=False)
            self.committed.set()
        except KafkaException as failure:
            code = failure.args[0].code()
            # Nothing to commit is what a member has that read nothing since it joined.
            if code == KafkaError._NO_OFFSET:
                self.committed.set()
            elif code not in (KafkaError.REBALANCE_IN_PROGRESS, KafkaError.ILLEGAL_GENERATION):
                raise


def group_with_a_rebalance(sent, large):
    seen, first, second = two_members(Member)
    wait_until(lambda: len(seen) == len(sent) + 1, "every record to be read")
    stop(first, second)
    del seen[large]
    assert seen == sent, "what was read differs from what was sent"
    ok("codecs", "none, gzip, snappy, lz4, zstd")
    ok("group")


def cooperative():
    strategy = {"partition.assignment.strategy": "cooperative-sticky", "group.id": GROUP + "-cooperative"}
    _, first, second = two_members(Member, **strategy)
    revoked = set(first.revoked)
    stop(first, second)
    assert len(revoked) == 2, f"the first member had to give up {revoked}"
    ok("cooperative")


def seek_by_time(admin):
    middle = int(time.time() * 1000) + 60_000
    one = producer(**{"compression.type": "zstd"})
    records = [{"partition": 0, "value": b"timed", "timestamp": middle + i * 1000} for i in range(10)]
    placed = [offset for _, offset in delivered(one, records)]
    reader = consumer()
    (found,) = reader.offsets_for_times([TopicPartition(TOPIC, 0, middle + 4500)], timeout=30)
    assert found.offset == placed[5], (found, placed)
    assert reader.get_watermark_offsets(TopicPartition(TOPIC, 0), timeout=30) == (0, placed[-1] + 1)
    latest = wait_for(admin.list_offsets({TopicPartition(TOPIC, 0): OffsetSpec.max_timestamp()}))
    assert [found.offset for found in latest.values()] == [placed[-1]], latest
    reader.assign([found])
    assert [reader.poll(30).offset() for _ in range(5)] == placed[5:]
    reader.close()
    ok("time")


def commit_and_resume():
    first = consumer()
    first.commit(offsets=[TopicPartition(TOPIC, 1, 7, "half way")], asynchronous=False)
    (committed,) = first.committed([TopicPartition(TOPIC, 1)], timeout=30)
    assert (committed.offset, committed.metadata) == (7, "half way"), committed
    first.close()
    ok("offsets")
    second = consumer()
    second.assign([TopicPartition(TOPIC, 1)])
    assert second.poll(30).offset() == 7
    second.close()
    ok("resume")


def transactions(admin):
    wait_for(admin.create_topics([NewTopic(TRANSACTIONAL, 2, REPLICATION_FACTOR)]))
    one = producer(**{"transactional.id": TRANSACTIONAL})
    one.init_transactions(30)

    def begin(name):
        one.begin_transaction()
        for partition, value in transaction(name):
            one.produce(TRANSACTIONAL, partition=partition, value=value)
        assert one.flush(30) == 0

    begin("first")
    one.commit_transaction(30)
    begin("aborted")
    one.abort_transaction(30)
    begin("last")
    reader = consumer(**{"group.id": TRANSACTIONAL})
    one.send_offsets_to_transaction([TopicPartition(TOPIC, 1, 5)], reader.consumer_group_metadata(), 30)
    one.commit_transaction(30)
    # The end of a transaction is answered before its markers are written; asked for stable offsets meanwhile, librdkafka counts a retry.
    looks = consumer(**{"group.id": TRANSACTIONAL, "isolation.level": "read_uncommitted"})
    wait_until(lambda: looks.committed([TopicPartition(TOPIC, 1)], timeout=30)[0].offset == 5, "the committed offset")
    looks.close()
    reader.assign([TopicPartition(TRANSACTIONAL, partition, 0) for partition in range(2)])
    expected = [*transaction("first"), *transaction("last")]
    messages = [reader.poll(30) for _ in expected]
    assert sorted((m.partition(), m.value()) for m in messages) == sorted(expected)
    assert reader.poll(0.5) is None
    reader.close()
    wait_for(admin.delete_topics([TRANSACTIONAL]))
    ok("transactions")


def groups_and_deletion(admin):
    assert GROUP in {group.group_id for group in admin.list_consumer_groups().result(30).valid}
    state = lambda: wait_for(admin.describe_consumer_groups([GROUP]))[GROUP].state
    wait_until(lambda: state() == confluent_kafka.ConsumerGroupState.EMPTY, "the group to be empty")
    offsets = wait_for(admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(GROUP)]))[GROUP]
    assert "half way" in {tp.metadata for tp in offsets.topic_partitions}
    wait_for(admin.delete_consumer_groups([GROUP]))
    assert GROUP not in {group.group_id for group in admin.list_consumer_groups().result(30).valid}
    ok("groups")
    low = wait_for(admin.delete_records([TopicPartition(TOPIC, 2, 3)]))
    assert [deleted.low_watermark for deleted in low.values()] == [3]
    wait_for(admin.delete_topics([TOPIC]))
    wait_until(lambda: TOPIC not in admin.list_topics().topics, "the topic to be gone")
    ok("delete")


def main():
    warnings = Warnings()
    say(f"version {confluent_kafka.__version__} (librdkafka {confluent_kafka.libversion()[0]})")
    admin = AdminClient(counters.settings())
    create_and_describe(admin)
    sent = produce_with_every_codec()
    large = large_record()
    group_with_a_rebalance(sent, large)
    cooperative()
    seek_by_time(admin)
    commit_and_resume()
    transactions(admin)
    groups_and_deletion(admin)
    assert counters.reports > 0, "librdkafka reported no statistics"
    say(f"count retries {sum(counters.retries.values())}")
    say(f"count errors {counters.errors}")
    say(f"count warnings {warnings.counted}")


main()
