"""The Spark story's batch queries: the topic read in parallel, by offset and by time, and a summary written back to a topic.

Usage: spark_batch.py BOOTSTRAP TOPIC SUMMARY_TOPIC COPY_TOPIC RECORDS COPY. RECORDS is a file of what the broker acknowledged, a list
of [symbol, price, partition, offset, timestamp in ms]; COPY is what the streaming job has copied. Prints `ok WHAT` for each query;
fails at the first wrong answer.
"""

import json
import sys
import tempfile

from pyspark import BarrierTaskContext
from pyspark.sql import functions as F

from spark_session import quotes, session

bootstrap, topic, summary_topic, copy_topic, records_file, copy = sys.argv[1:7]
acknowledged = {}
for symbol, price, partition, offset, timestamp in json.load(open(records_file)):
    acknowledged.setdefault(partition, []).append((offset, timestamp, symbol, price))
for records in acknowledged.values():
    records.sort()
spark = session("stock-prices-batch")


def read(topic, **options):
    frame = spark.read.format("kafka").option("kafka.bootstrap.servers", bootstrap).option("subscribe", topic)
    return frame.options(**{name: json.dumps(value) if isinstance(value, dict) else value for name, value in options.items()}).load()


def rows(quotes):
    """Quotes as partition -> sorted (offset, time, symbol, price)."""
    found = {}
    for row in quotes.withColumn("ms", F.unix_millis("timestamp")).collect():
        found.setdefault(row.partition, []).append((row.offset, row.ms, row.symbol, row.price))
    return {partition: sorted(records) for partition, records in found.items()}


def expect(what, found, expected):
    expected = {partition: records for partition, records in expected.items() if records}
    if found != expected:
        counts = [{p: len(r) for p, r in sorted(side.items())} for side in (found, expected)]
        sys.exit(f"{what}: {counts[0]} records a partition, expected {counts[1]}, or others than expected")
    print(f"ok {what}: {sum(map(len, found.values()))} records of {len(found)} partitions", flush=True)


def in_parallel():
    """One task a partition, all at once: each holds its first record until every other has one."""

    def task(records):
        context, partitions, count = BarrierTaskContext.get(), set(), 0
        for record in records:
            if count == 0:
                context.barrier()
            count += 1
            partitions.add(record.partition)
        yield context.partitionId(), sorted(partitions), count

    found = read(topic).select("partition", "offset").rdd.barrier().mapPartitions(task).collect()
    expected = sorted(([partition], len(records)) for partition, records in acknowledged.items())
    if sorted((partitions, count) for _, partitions, count in found) != expected:
        sys.exit(f"in parallel: tasks read {found}, expected {expected}")
    print(f"ok in parallel: {len(found)} tasks at once, one partition each", flush=True)


def by_offset():
    """From a third to two thirds of each partition; one of them to its end."""
    start = {partition: len(records) // 3 for partition, records in acknowledged.items()}
    end = {partition: 2 * len(records) // 3 for partition, records in acknowledged.items()}
    open_ended = min(end)
    expected = {p: records[start[p] : end[p] if p != open_ended else None] for p, records in acknowledged.items()}
    named_end = {str(p): offset if p != open_ended else -1 for p, offset in end.items()}
    # The offset of a record is its place: the topic has held nothing else, and nothing was removed.
    options = {"startingOffsets": {topic: {str(p): o for p, o in start.items()}}, "endingOffsets": {topic: named_end}}
    expect("by offset", rows(quotes(read(topic, **options))), expected)


def copied():
    """The streaming job's copy: every record once, and each file, which is a task's, holds one partition."""
    files = spark.read.parquet(copy)
    expect("copied exactly once", rows(files), acknowledged)
    tasks = files.groupBy(F.input_file_name().alias("file")).agg(F.count_distinct("partition").alias("partitions")).collect()
    mixed = [task.file for task in tasks if task.partitions != 1]
    if mixed:
        sys.exit(f"tasks that read several partitions: {mixed}")
    print(f"ok by {len(tasks)} tasks of one partition each", flush=True)


def from_time(records, time):
    """Records from the first one that is not before a time."""
    first = next((i for i, record in enumerate(records) if record[1] >= time), len(records))
    return records[first:]


def by_time():
    times = sorted(record[1] for records in acknowledged.values() for record in records)
    start, end = times[len(times) // 3], times[2 * len(times) // 3]
    expected = {p: from_time(r, start)[: len(from_time(r, start)) - len(from_time(r, end))] for p, r in acknowledged.items()}
    each = {topic: {str(partition): start for partition in acknowledged}}
    until = {topic: {str(partition): end for partition in acknowledged}}
    expect("by time of each partition", rows(quotes(read(topic, startingOffsetsByTimestamp=each, endingOffsetsByTimestamp=until))), expected)
    expected = {p: from_time(r, start) for p, r in acknowledged.items()}
    expect("by one time", rows(quotes(read(topic, startingTimestamp=str(start)))), expected)
    # After the last record: only with this strategy an answer, and then an empty one.
    late = read(topic, startingTimestamp=str(times[-1] + 1), startingOffsetsByTimestampStrategy="latest")
    expect("by a time after the end", rows(quotes(late)), {})


def in_more_tasks():
    """More tasks than partitions: each partition is read from several offsets at once."""
    frame = read(topic, minPartitions="12")
    if frame.rdd.getNumPartitions() < 12:
        sys.exit(f"in more tasks: {frame.rdd.getNumPartitions()} tasks")
    expect(f"in {frame.rdd.getNumPartitions()} tasks", rows(quotes(frame)), acknowledged)


def from_topic_to_topic():
    """A stream in batches of bounded size into another topic: everything once, each partition's order kept."""
    source = {"kafka.bootstrap.servers": bootstrap, "subscribe": topic, "startingOffsets": "earliest", "maxOffsetsPerTrigger": "500"}
    stream = spark.readStream.format("kafka").options(**source).load()
    out = stream.select("key", "value", "partition", F.lit(copy_topic).alias("topic")).writeStream.format("kafka")
    with tempfile.TemporaryDirectory() as checkpoint:
        out = out.option("kafka.bootstrap.servers", bootstrap).option("checkpointLocation", checkpoint)
        query = out.trigger(availableNow=True).start()
        query.awaitTermination()
        batches = sum(1 for progress in query.recentProgress if progress["numInputRows"])
    found = {}
    for partition, records in rows(quotes(read(copy_topic))).items():
        found[partition] = [(symbol, price) for _, _, symbol, price in records]
    expected = {p: [(symbol, price) for _, _, symbol, price in records] for p, records in acknowledged.items()}
    if found != expected or batches < 2:
        sys.exit(f"from topic to topic: {({p: len(r) for p, r in found.items()})} in {batches} batches")
    print(f"ok from topic to topic: {sum(map(len, found.values()))} records in {batches} batches", flush=True)


def written_back():
    """A summary goes to a topic with keys and headers, and is read back the same."""
    prices = quotes(read(topic))
    summary = prices.groupBy("symbol").agg(F.max("price").alias("highest"), F.min("price").alias("lowest"))
    value = F.to_json(F.struct("highest", "lowest")).cast("binary")
    header = F.array(F.struct(F.lit("made-by").alias("key"), F.lit("spark").cast("binary").alias("value")))
    out = summary.select(F.col("symbol").cast("binary").alias("key"), value.alias("value"), header.alias("headers"))
    writer = out.write.format("kafka").option("kafka.bootstrap.servers", bootstrap).option("includeHeaders", "true")
    writer.option("topic", summary_topic).option("kafka.compression.type", "zstd").save()
    expected = {}
    for records in acknowledged.values():
        for _, _, symbol, price in records:
            highest, lowest = expected.get(symbol, (price, price))
            expected[symbol] = (max(highest, price), min(lowest, price))
    back = read(summary_topic, includeHeaders="true").collect()
    found = {}
    for row in back:
        summary = json.loads(row.value)
        found[row.key.decode()] = (summary["highest"], summary["lowest"])
        if [(h.key, bytes(h.value)) for h in row.headers] != [("made-by", b"spark")]:
            sys.exit(f"written back: headers {row.headers}")
    if found != expected or len(back) != len(expected):
        sys.exit(f"written back: {found}, expected {expected}")
    print(f"ok written back: {len(back)} stocks with headers", flush=True)


expect("everything", rows(quotes(read(topic))), acknowledged)
copied()
in_parallel()
by_offset()
by_time()
in_more_tasks()
from_topic_to_topic()
written_back()
spark.stop()
