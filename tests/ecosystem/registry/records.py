"""Avro records with schemas of a registry, written and read by Confluent's serializers.

Usage: records.py write BOOTSTRAP REGISTRY TOPIC VERSION FROM COUNT    registers the version, if it is not, and writes records by it
       records.py read BOOTSTRAP REGISTRY TOPIC                        a line of JSON a record: [partition, schema id, key, value]

Runs in the Python of server.py, which has the serializers; scenario.py takes `schema` and `record` from here. May not know: that the
registry and nodes are killed.
"""

import json
import sys

VERSIONS = 4
FLUSH_SECONDS_MAX, END_SECONDS_MAX, READ_SECONDS = 120, 120, 0.5
# What a version adds to the one before: each with a default, so that the registry takes it for compatible.
ADDED = [
    {"name": "currency", "type": "string", "default": "EUR"},
    {"name": "tags", "type": {"type": "array", "items": "string"}, "default": []},
    {"name": "buyer", "type": ["null", {"type": "record", "name": "Buyer", "fields": [{"name": "name", "type": "string"}]}], "default": None},
]


def schema(topic, version):
    fields = [{"name": "number", "type": "long"}, {"name": "price", "type": "double"}, *ADDED[: version - 1]]
    return {"type": "record", "name": topic.capitalize(), "namespace": "ottla.tests", "fields": fields}


def record(version, number):
    whole = {
        "number": number,
        "price": number / 4,
        "currency": ["EUR", "CHF", "ISK"][number % 3],
        "tags": [f"tag-{tag}" for tag in range(number % 3)],
        "buyer": {"name": f"buyer {number}"} if number % 2 else None,
    }
    names = [field["name"] for field in schema("any", version)["fields"]]
    return {name: whole[name] for name in names}


def key(number):
    return f"order-{number}"


def write(bootstrap, registry, topic, version, first, count):
    from confluent_kafka import Producer
    from confluent_kafka.schema_registry import SchemaRegistryClient
    from confluent_kafka.schema_registry.avro import AvroSerializer
    from confluent_kafka.serialization import MessageField, SerializationContext

    serializer = AvroSerializer(SchemaRegistryClient({"url": registry}), json.dumps(schema(topic, version)))
    context = SerializationContext(topic, MessageField.VALUE)
    producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, "linger.ms": 5})
    errors = []
    for number in range(first, first + count):
        value = serializer(record(version, number), context)
        producer.produce(topic, value, key(number), on_delivery=lambda error, _: error and errors.append(str(error)))
        producer.poll(0)
    left = producer.flush(FLUSH_SECONDS_MAX)
    assert not left and not errors, f"{left} records are not acknowledged, {len(errors)} failed: {errors[:3]}"


def read(bootstrap, registry, topic):
    import time

    from confluent_kafka import Consumer, KafkaError, TopicPartition
    from confluent_kafka.schema_registry import SchemaRegistryClient
    from confluent_kafka.schema_registry.avro import AvroDeserializer
    from confluent_kafka.serialization import MessageField, SerializationContext

    # By the schema that a record was written with.
    deserializer = AvroDeserializer(SchemaRegistryClient({"url": registry}))
    context = SerializationContext(topic, MessageField.VALUE)
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "unused", "enable.auto.commit": False, "enable.partition.eof": True})
    partitions = consumer.list_topics(topic, 30).topics[topic].partitions
    consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
    left, deadline = set(partitions), time.monotonic() + END_SECONDS_MAX
    while left:
        assert time.monotonic() < deadline, f"no end in partitions {sorted(left)}"
        for message in consumer.consume(500, READ_SECONDS):
            if not message.error():
                # A byte 0, then the id of the schema.
                id = int.from_bytes(message.value()[1:5], "big")
                told = [message.partition(), id, message.key().decode(), deserializer(message.value(), context)]
                print(json.dumps(told))
            elif message.error().code() == KafkaError._PARTITION_EOF:
                left.discard(message.partition())
            else:
                assert message.error().retriable(), str(message.error())


if __name__ == "__main__":
    command, *given = sys.argv[1:]
    if command == "write":
        write(*given[:3], *map(int, given[3:]))
    else:
        read(*given)
