"""The Spark story's streaming job: copies every quote, and prints the highest and lowest price per stock and window.

Usage: spark_stream.py BOOTSTRAP TOPIC EXTREMES_TOPIC DIRECTORY. Two queries, each with a checkpoint in DIRECTORY:

    quotes      every record into files, exactly once (one file a task)
    extremes    windows that the watermark has closed: printed, kept in a file per batch, written to EXTREMES_TOPIC

Ends when DIRECTORY/stop is there and everything before it is worked off. May be killed at any moment and started again.
"""

import json
import os
import pathlib
import sys
import time

from pyspark.sql import functions as F

from spark_session import extremes, quotes, session

WINDOW, WATERMARK = "5 seconds", "20 seconds"

bootstrap, topic, extremes_topic, directory = sys.argv[1:5]
directory = pathlib.Path(directory)
spark = session("stock-prices")


def stream():
    options = {"kafka.bootstrap.servers": bootstrap, "subscribe": topic, "startingOffsets": "earliest"}
    return quotes(spark.readStream.format("kafka").options(**options).load())


def write_extremes(frame, batch):
    """Printed, kept under the batch's number (so that a batch that runs again replaces what it wrote), sent on."""
    frame = frame.select(
        F.unix_millis("window.start").alias("start"), "symbol", "highest", "lowest", "quotes"
    ).orderBy("start", "symbol")
    frame.persist()
    rows = [row.asDict() for row in frame.collect()]
    kept = directory / "extremes" / f"{batch:06}.json"
    kept.with_suffix(".new").write_text(json.dumps(rows))
    os.replace(kept.with_suffix(".new"), kept)
    for row in rows:
        at = time.strftime("%H:%M:%S", time.gmtime(row["start"] / 1000))
        print(f"window {at} {row['symbol']} highest {row['highest']:.2f} lowest {row['lowest']:.2f} of {row['quotes']}", flush=True)
    if rows:
        key = F.concat_ws("@", "symbol", "start").cast("binary")
        value = F.to_json(F.struct("highest", "lowest", "quotes")).cast("binary")
        out = frame.select(key.alias("key"), value.alias("value")).write.format("kafka")
        out.option("kafka.bootstrap.servers", bootstrap).option("topic", extremes_topic).save()
    frame.unpersist()
    print(f"batch {batch} {len(rows)}", flush=True)


(directory / "extremes").mkdir(parents=True, exist_ok=True)
copied = (
    stream()
    .writeStream.queryName("quotes")
    .format("parquet")
    .option("path", str(directory / "quotes"))
    .option("checkpointLocation", str(directory / "checkpoint-quotes"))
    .trigger(processingTime="1 second")
    .start()
)
watched = (
    extremes(stream().withWatermark("timestamp", WATERMARK), WINDOW)
    .writeStream.queryName("extremes")
    .outputMode("append")
    .foreachBatch(write_extremes)
    .option("checkpointLocation", str(directory / "checkpoint-extremes"))
    .trigger(processingTime="1 second")
    .start()
)
print("started", flush=True)
while not (directory / "stop").exists():
    for query in (copied, watched):
        if query.awaitTermination(0.2):
            sys.exit(f"{query.name} ended: {query.exception()}")
for query in (copied, watched):
    query.processAllAvailable()
    query.stop()
print("done", flush=True)
spark.stop()
