"""A story's producer: sends a stock price for each symbol every interval and prints where it landed.

Usage: producer.py BOOTSTRAP TOPIC ROUNDS INTERVAL_SECONDS. Prints `sent SYMBOL PRICE PARTITION OFFSET` a record.
"""

import json
import sys
import time

from kafka import KafkaProducer

bootstrap, topic, rounds, interval = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
SYMBOLS = ["AAPL", "GOOG", "MSFT", "NVDA", "TSLA"]

producer = KafkaProducer(
    bootstrap_servers=bootstrap,
    acks="all",
    retries=1000,
    delivery_timeout_ms=120000,
    reconnect_backoff_max_ms=500,
    key_serializer=str.encode,
    value_serializer=lambda v: json.dumps(v).encode(),
)
for round_number in range(rounds):
    waiting = []
    for i, symbol in enumerate(SYMBOLS):
        price = 100 + 10 * i + round_number / 100
        quote = {"symbol": symbol, "price": price, "round": round_number}
        waiting.append((symbol, price, producer.send(topic, key=symbol, value=quote)))
    for symbol, price, future in waiting:
        placed = future.get(120)
        print("sent", symbol, price, placed.partition, placed.offset, flush=True)
    time.sleep(interval)
producer.close()
