"""Records and groups for the monitoring and tools tests, by librdkafka: what lag there is, the test knows to the record.

Usage: workload.py BOOTSTRAP. Prints `ready` when all of it is there, goes on producing and consuming until standard input is
closed, and ends with exit code 0 if nothing failed. May not know: Prometheus, what is made of it.
"""

import sys
import threading

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

PARTITIONS, REPLICAS = 12, 3
# The topic that nothing consumes any more: 1,000 records in each partition, of which every idle group has committed 100.
STILL, STILL_RECORDS, COMMITTED = "still", 1_000, 100
# So many that some group's coordinator is on each node.
IDLE_GROUPS = [f"idle-{number:02}" for number in range(12)]
# The topic that is produced to and consumed all the time, by a group with members.
LIVE, LIVE_GROUP = "live", "steady"


def wait(futures):
    for future in futures.values():
        future.result(30)


def produce(producer, topic, count, failed):
    def delivered(error, _):
        if error is not None:
            failed.append(f"{topic}: {error}")

    for number in range(count):
        while True:
            try:
                producer.produce(topic, f"{number}".encode() * 20, partition=number % PARTITIONS, on_delivery=delivered)
                break
            except BufferError:
                producer.poll(0.1)


def idle_groups(admin):
    places = [TopicPartition(STILL, partition, COMMITTED) for partition in range(PARTITIONS)]
    for group in IDLE_GROUPS:
        wait(admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(group, places)]))


def consume(bootstrap, read, stopping, failed):
    """One member of the group that keeps up."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": LIVE_GROUP, "auto.offset.reset": "earliest", "auto.commit.interval.ms": 500})
    consumer.subscribe([LIVE])
    while not stopping.is_set():
        message = consumer.poll(0.1)
        if message is None:
            continue
        if message.error() and message.error().code() in (KafkaError._ALL_BROKERS_DOWN, KafkaError.UNKNOWN_TOPIC_OR_PART):
            continue
        if message.error():
            failed.append(f"{LIVE_GROUP}: {message.error()}")
        else:
            read.set()
    consumer.close()


def main():
    bootstrap, failed = sys.argv[1], []
    stopping, read = threading.Event(), threading.Event()
    admin = AdminClient({"bootstrap.servers": bootstrap})
    wait(admin.create_topics([NewTopic(name, PARTITIONS, REPLICAS) for name in (STILL, LIVE)]))
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 20})
    produce(producer, STILL, STILL_RECORDS * PARTITIONS, failed)
    produce(producer, LIVE, PARTITIONS, failed)
    producer.flush(60)
    idle_groups(admin)
    members = [threading.Thread(target=consume, args=(bootstrap, read, stopping, failed)) for _ in range(2)]
    for member in members:
        member.start()
    if not read.wait(60):
        failed.append(f"{LIVE_GROUP} has read nothing")
    print("failed" if failed else "ready", flush=True)
    closed = threading.Thread(target=sys.stdin.read, daemon=True)
    closed.start()
    while closed.is_alive():
        produce(producer, LIVE, 100, failed)
        producer.poll(0)
        closed.join(0.5)
    stopping.set()
    for member in members:
        member.join(60)
    producer.flush(60)
    sys.exit("\n".join(failed[:5]) if failed else 0)


main()
