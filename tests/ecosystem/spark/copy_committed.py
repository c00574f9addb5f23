"""Spark Structured Streaming: copies committed records of a topic into another, until it is killed.

Usage: copy_committed.py BOOTSTRAP INPUT OUTPUT CHECKPOINT. Spark's writer into Kafka is at least once: a batch that was running when Spark
was killed is written again. May not know: what is in the records.
"""

import os
import sys

from pyspark.sql import SparkSession

bootstrap, topic, output, checkpoint = sys.argv[1:5]
spark = (
    SparkSession.builder.appName("committed")
    .master("local[2]")
    .config("spark.jars.packages", os.environ["SPARK_PACKAGES"])
    .config("spark.jars.ivy", os.environ["SPARK_IVY"])
    .config("spark.driver.bindAddress", "127.0.0.1")
    .config("spark.driver.host", "127.0.0.1")
    .config("spark.driver.memory", "768m")
    .config("spark.ui.enabled", "false")
    .config("spark.log.level", "WARN")
    .getOrCreate()
)
options = {
    "kafka.bootstrap.servers": bootstrap,
    "kafka.isolation.level": "read_committed",
    "subscribe": topic,
    "startingOffsets": "earliest",
    "failOnDataLoss": "true",
}
records = spark.readStream.format("kafka").options(**options).load().select("key", "value")
into = records.writeStream.format("kafka").option("kafka.bootstrap.servers", bootstrap).option("topic", output)
into.option("checkpointLocation", checkpoint).trigger(processingTime="500 milliseconds").start().awaitTermination()
