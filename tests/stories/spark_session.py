"""A Spark session that reads and writes Kafka topics; and what the Spark programs of the stories share."""

import os

from pyspark.sql import SparkSession, functions as F, types as T

PARALLEL = 4
QUOTE = T.StructType(
    [T.StructField("symbol", T.StringType()), T.StructField("price", T.DoubleType()), T.StructField("round", T.IntegerType())]
)


def session(name):
    """A session of this machine only. SPARK_PACKAGES and SPARK_IVY name the connector and where it is kept."""
    return (
        SparkSession.builder.appName(name)
        .master(f"local[{PARALLEL}]")
        .config("spark.jars.packages", os.environ["SPARK_PACKAGES"])
        .config("spark.jars.ivy", os.environ["SPARK_IVY"])
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.memory", "1g")
        .config("spark.ui.enabled", "false")
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.sql.shuffle.partitions", str(PARALLEL))
        .config("spark.log.level", "ERROR")
        .getOrCreate()
    )


def quotes(frame):
    """Records of the topic as columns."""
    quote = F.from_json(F.col("value").cast("string"), QUOTE)
    return frame.select("partition", "offset", "timestamp", quote.alias("quote")).select(
        "partition", "offset", "timestamp", "quote.symbol", "quote.price"
    )


def extremes(frame, window):
    """Highest and lowest price of each stock in windows of event time."""
    return frame.groupBy(F.window("timestamp", window), "symbol").agg(
        F.max("price").alias("highest"), F.min("price").alias("lowest"), F.count("*").alias("quotes")
    )
