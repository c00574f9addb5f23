"""A story's producer: sends a stock price for each symbol every interval and prints where it landed.

Usage: producer.py BOOTSTRAP TOPIC ROUNDS INTERVAL_SECONDS [SYMBOL ...].
Prints `sent SYMBOL PRICE PARTITION OFFSET TIMESTAMP_MS` a record, once it is acknowledged. SIGTERM ends it after the round.
"""

import json
import math
import signal
import sys
import threading

from kafka import KafkaProducer

bootstrap, topic, rounds, interval = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
symbols = sys.argv[5:] or ["AAPL", "GOOG", "MSFT", "NVDA", "TSLA"]
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())

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
    for i, symbol in enumerate(symbols):
        price = round(100 + 10 * i + 5 * math.sin(round_number * (i + 1) / 7), 2)
        quote = {"symbol": symbol, "price": price, "round": round_number}
        waiting.append((symbol, price, producer.send(topic, key=symbol, value=quote)))
    for symbol, price, future in waiting:
        placed = future.get(120)
        print("sent", symbol, price, placed.partition, placed.offset, placed.timestamp, flush=True)
    if stop.wait(interval):
        break
producer.close()
