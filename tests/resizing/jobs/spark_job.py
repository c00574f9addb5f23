"""Spark Structured Streaming: copies every record once, and counts records by key in windows of event time that the watermark closes.

Usage: spark_job.py BOOTSTRAP INPUT DIRECTORY. Two queries, each with a checkpoint in DIRECTORY and files as its sink. Ends when
DIRECTORY/stop is there and everything before it is worked off. Prints `started`, `read COUNT` after each batch of the copy, and at the
end `batches` with the number of those and `slowest` with the milliseconds of the longest one that is not among the
first few; writes DIRECTORY/result.json: `numbers` of all copies, `windows` as [key, start, count, sum].
"""

import json
import pathlib
import sys

from pyspark.sql import functions as F
from pyspark.sql.streaming import StreamingQueryListener

from spark_session import session

WINDOW, WATERMARK = "5 seconds", "30 seconds"
BELL, COPIES = "bell", "copies"
LOOK_SECONDS = 0.05
# Until Spark is warm.
FIRST_BATCHES = 5

bootstrap, topic, directory = sys.argv[1:4]
directory = pathlib.Path(directory)
spark = session("resizing")
spark.sparkContext.setLogLevel("WARN")
log4j = spark.sparkContext._jvm.org.apache.logging.log4j
# A lost connection is information to Kafka's clients.
log4j.core.config.Configurator.setLevel("org.apache.kafka.clients.NetworkClient", log4j.Level.INFO)


def stream():
    options = {"kafka.bootstrap.servers": bootstrap, "subscribe": topic, "startingOffsets": "earliest"}
    words = F.split(F.col("value").cast("string"), " ")
    columns = [words[0].cast("long").alias("number"), words[1].alias("key"), F.timestamp_millis(words[2].cast("long")).alias("at")]
    return spark.readStream.format("kafka").options(**options).load().select(*columns)


def into_files(frame, name):
    into = frame.writeStream.queryName(name).format("parquet").outputMode("append").trigger(processingTime="1 second")
    return into.option("path", str(directory / name)).option("checkpointLocation", str(directory / f"checkpoint-{name}")).start()


class Batches(StreamingQueryListener):
    """What was copied, batch by batch."""

    def __init__(self):
        self.read, self.batches, self.slowest = 0, 0, {}

    def onQueryProgress(self, event):
        progress = event.progress
        if progress.name != COPIES or not progress.numInputRows:
            return
        self.batches, self.read = self.batches + 1, self.read + progress.numInputRows
        if self.batches > FIRST_BATCHES:
            self.slowest = max(self.slowest, dict(progress.durationMs), key=lambda took: took.get("triggerExecution", 0))
        print(f"read {self.read}", flush=True)

    def onQueryStarted(self, event):
        pass

    def onQueryIdle(self, event):
        pass

    def onQueryTerminated(self, event):
        pass


told = Batches()
spark.streams.addListener(told)
copied = into_files(stream().select("number"), COPIES)
# The bell moves the watermark; its own window stays open.
windows = stream().withWatermark("at", WATERMARK).groupBy(F.window("at", WINDOW), "key")
counted = windows.agg(F.count("*").alias("count"), F.sum("number").alias("sum"))
counted = into_files(counted.select("key", F.unix_millis("window.start").alias("start"), "count", "sum"), "windows")
print("started", flush=True)

while not (directory / "stop").exists():
    for query in (copied, counted):
        if query.awaitTermination(LOOK_SECONDS):
            sys.exit(f"{query.name} ended: {query.exception()}")
for query in (copied, counted):
    query.processAllAvailable()
    query.stop()
print(f"batches {told.batches}", flush=True)
print("slowest", ", ".join(f"{what} {took}" for what, took in sorted(told.slowest.items())), flush=True)
numbers = [row.number for row in spark.read.parquet(str(directory / COPIES)).where("number > 0").collect()]
rows = [[row.key, row.start, row["count"], row.sum] for row in spark.read.parquet(str(directory / "windows")).collect()]
(directory / "result.json").write_text(json.dumps({"numbers": numbers, "windows": [row for row in rows if row[0] != BELL]}))
spark.stop()
