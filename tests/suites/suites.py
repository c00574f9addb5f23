"""The suites, with their versions and the settings of a broker that each asks for: in its documentation, or in the
configuration that it starts Apache Kafka with. What is not here has no tests in its package: aiokafka, confluent-kafka,
kafkajs. May not know: how a suite is run.
"""

from batches import KafkaPython
from kinds import Cargo, Go, Librdkafka, Sarama

ALL = [
    KafkaPython(
        "kafka-python",
        "3.0.12",
        environment={"KAFKA_URI": "kafka://localhost:9092", "KAFKA_VERSION": "4.3.0"},
        settings={"node.id": "0", "group.min.session.timeout.ms": "1000", "num.partitions": "4"},
    ),
    Go(
        "kgo",
        "github.com/twmb/franz-go",
        "v1.22.2",
        "pkg/kgo",
        environment={"KGO_SEEDS": "localhost:9092", "KGO_TEST_RF": "1", "KGO_TEST_RECORDS": "50000"},
        seconds_max=600,
    ),
    Go(
        "kafka-go",
        "github.com/segmentio/kafka-go",
        "v0.4.51",
        environment={"KAFKA_VERSION": "3.7.0"},
        settings={"message.max.bytes": "200000000", "socket.request.max.bytes": "210000000"},
    ),
    Sarama(
        "sarama",
        "github.com/IBM/sarama",
        "v1.61.1",
        proxy_version="v2.5.0",
        environment={"TOXIPROXY_ADDR": "http://127.0.0.1:8474", "KAFKA_VERSION": "4.1.0"},
        settings={"advertised.listeners": "PLAINTEXT://localhost:29091", "auto.create.topics.enable": "false"},
        seconds_max=240,
    ),
    Cargo(
        "rdkafka",
        "0.39.0",
        environment={"KAFKA_HOST": "localhost:9092", "KAFKA_VERSION": "4.0"},
        settings={"num.partitions": "3", "node.id": "0"},
    ),
    Cargo(
        "rskafka",
        "0.6.0",
        features=["full"],
        newer=["rsasl"],
        targets=["client", "consumer", "produce_consume", "producer"],
        environment={
            "TEST_INTEGRATION": "1",
            "KAFKA_CONNECT": "localhost:9092",
            "TEST_BROKER_IMPL": "kafka",
            # Without it the tests with a Java client do nothing and pass.
            "TEST_JAVA_INTEROPT": "1",
        },
        settings={"auto.create.topics.enable": "false"},
    ),
    Librdkafka(
        "librdkafka",
        "2.12.1",
        "4.10.0",
        in_parts=("0081",),
        environment={"TEST_KAFKA_VERSION": "4.1.0"},
        # Its test of compaction waits for 20 seconds: one round of Kafka's cleaner. A pass of Ottla follows a checkpoint, which comes every ten.
        settings={"num.partitions": "4", "log.cleaner.backoff.ms": "1000"},
        # Its test of transactions makes topics of three replicas.
        nodes=3,
        seconds_max=300,
    ),
]
SUITES = {suite.name: suite for suite in ALL}
