"""kafka-python: a steady load with its own check, one of the five of tests/soak.

Usage: load.py BOOTSTRAP TOPIC PARTITIONS RATE SIZE SECONDS. Writes RATE records of SIZE bytes a second, idempotently, each with the next number
of its partition, and reads them in a group. Last line: a JSON object with what was counted; exit code 1 if a record is missing or doubled.
"""

import json
import sys
import threading
import time

from kafka import KafkaConsumer, KafkaProducer

BOOTSTRAP, TOPIC = sys.argv[1:3]
PARTITIONS, RATE, SIZE, SECONDS = map(int, sys.argv[3:7])
DRAIN_SECONDS_MAX = 120

counted = {"client": "kafka-python", "sent": 0, "acknowledged": 0, "read": 0, "gaps": 0, "duplicates": 0, "errors": 0, "retries": None}
end = threading.Event()
lock = threading.Lock()


def acknowledged(_):
    with lock:
        counted["acknowledged"] += 1


def failed(error):
    with lock:
        counted["errors"] += 1
    print("error", error, flush=True)


def produce():
    producer = KafkaProducer(bootstrap_servers=BOOTSTRAP, acks="all", enable_idempotence=True, linger_ms=5)
    padding = b"." * max(0, SIZE - 20)
    started = time.monotonic()
    number = 0
    while (elapsed := time.monotonic() - started) < SECONDS:
        while number < elapsed * RATE:
            value = b"%019d " % (number // PARTITIONS) + padding
            producer.send(TOPIC, value, partition=number % PARTITIONS).add_callback(acknowledged).add_errback(failed)
            number += 1
        time.sleep(0.02)
    producer.flush(DRAIN_SECONDS_MAX)
    producer.close()
    counted["sent"] = number
    end.set()


def consume():
    consumer = KafkaConsumer(TOPIC, bootstrap_servers=BOOTSTRAP, group_id=TOPIC + "-readers", auto_offset_reset="earliest")
    following = [0] * PARTITIONS
    deadline = None
    while not (end.is_set() and counted["read"] >= counted["sent"]):
        if end.is_set():
            deadline = deadline or time.monotonic() + DRAIN_SECONDS_MAX
            if time.monotonic() > deadline:
                break
        for records in consumer.poll(timeout_ms=500).values():
            for record in records:
                number = int(record.value[:19])
                if number < following[record.partition]:
                    counted["duplicates"] += 1
                    continue
                counted["gaps"] += number - following[record.partition]
                following[record.partition] = number + 1
                counted["read"] += 1
    consumer.close()


reader = threading.Thread(target=consume)
reader.start()
produce()
reader.join()
print(json.dumps(counted), flush=True)
whole = counted["acknowledged"] == counted["sent"] == counted["read"]
sys.exit(0 if whole and not counted["gaps"] + counted["duplicates"] + counted["errors"] else 1)
