"""A story's consumer: reads stock prices in a group, commits what it has read and prints it.

Usage: consumer.py BOOTSTRAP TOPIC GROUP COUNT. Prints `read SYMBOL PRICE PARTITION OFFSET TIMESTAMP_MS` a record; ends
after COUNT distinct ones.
"""

import json
import sys

from kafka import KafkaConsumer

bootstrap, topic, group, count = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
consumer = KafkaConsumer(
    topic,
    bootstrap_servers=bootstrap,
    group_id=group,
    auto_offset_reset="earliest",
    enable_auto_commit=False,
    heartbeat_interval_ms=500,
    session_timeout_ms=10000,
    reconnect_backoff_max_ms=500,
)
seen = set()
while len(seen) < count:
    for records in consumer.poll(timeout_ms=500).values():
        for r in records:
            quote = json.loads(r.value)
            seen.add((r.partition, r.offset))
            print("read", quote["symbol"], quote["price"], r.partition, r.offset, r.timestamp, flush=True)
    try:
        consumer.commit()
    except Exception as refused:  # The broker may be away just now; what is read is committed the next time.
        print("commit refused:", refused, file=sys.stderr, flush=True)
consumer.close()
