"""Expressions that dashboards ask: of deploy/grafana/ottla.json, and of well-known ones for kafka_exporter's names.

May not know: Prometheus.
"""

import json

from table import ROOT

OURS = ROOT / "deploy" / "grafana" / "ottla.json"

# What Grafana puts in for its variables where everything is chosen; an instance is put in by the caller.
VARIABLES = {"$__rate_interval": "20s", "$job": "ottla", "$topic": ".*", "$group": ".*", "$consumergroup": ".*"}

# The expressions of dashboards and alerts that people have for kafka_exporter, as they stand there.
EXPORTER = {
    "Grafana 7589, Kafka Exporter Overview": [
        'sum(rate(kafka_topic_partition_current_offset{instance="$instance", topic=~"$topic"}[1m])) by (topic)',
        'sum(kafka_consumergroup_lag{instance="$instance",topic=~"$topic"}) by (consumergroup, topic)',
        "sum(delta(kafka_topic_partition_current_offset{instance=~'$instance', topic=~\"$topic\"}[5m])/5) by (topic)",
        "sum(delta(kafka_consumergroup_current_offset{instance=~'$instance',topic=~\"$topic\"}[5m])/5) by (consumergroup, topic)",
        'sum by(topic) (kafka_topic_partitions{instance="$instance",topic=~"$topic"})',
    ],
    "kafka_exporter, kafka_exporter_overview.json": [
        'sum(rate(kafka_topic_partition_current_offset{topic!="__consumer_offsets"}[1m])) by (topic)',
        "sum(kafka_consumergroup_lag) by (consumergroup, topic)",
        'sum by(topic) (kafka_topic_partitions{topic!="__consumer_offsets"})',
    ],
    "Strimzi, strimzi-kafka-exporter.json": [
        'count(kafka_topic_partitions{topic=~"$topic"})',
        'sum(kafka_topic_partitions{topic=~"$topic"})',
        'sum(kafka_topic_partition_replicas{topic=~"$topic"})',
        'sum(kafka_topic_partition_in_sync_replica{topic=~"$topic"})',
        'sum(kafka_topic_partition_under_replicated_partition{topic=~"$topic"})',
        'count(kafka_topic_partition_leader_is_preferred{topic=~"$topic"}<1)',
        'sum(rate(kafka_topic_partition_current_offset{topic=~"$topic"}[1m])) by (topic)',
        'sum(delta(kafka_consumergroup_current_offset{consumergroup=~"$consumergroup",topic=~"$topic"}[1m])/60) by (consumergroup, topic)',
        'sum(kafka_consumergroup_lag{consumergroup=~"$consumergroup",topic=~"$topic"}) by (consumergroup, topic)',
        'sum(kafka_consumergroup_current_offset{consumergroup=~"$consumergroup",topic=~"$topic"}) by (consumergroup,partition,topic)',
        'sum(kafka_consumergroup_lag{consumergroup=~"$consumergroup",topic=~"$topic"}) by (consumergroup,partition,topic)',
        'sum(kafka_topic_partitions{topic=~"$topic"}) by (topic)',
        'sum(kafka_topic_partition_current_offset{topic=~"$topic"}) by (partition,topic)',
        'sum(kafka_topic_partition_oldest_offset{topic=~"$topic"}) by (partition,topic)',
    ],
    "alerts for kafka_exporter": [
        "kafka_brokers",
        "kafka_broker_info",
        "sum(kafka_topic_partition_in_sync_replica) by (topic)",
        "sum(kafka_consumergroup_lag) by (consumergroup)",
        "kafka_consumergroup_lag_sum",
        "kafka_consumergroup_current_offset_sum",
        "kafka_consumergroup_members",
        "kafka_topic_partition_leader",
    ],
}

# On a healthy cluster these have no sample, and should not.
EMPTY_WHEN_HEALTHY = {
    'count(kafka_topic_partition_leader_is_preferred{topic=~"$topic"}<1)': "counts partitions that another node than the preferred one leads",
    "Cluster: Requests answered with an error": "there is a series for each error that was answered",
    "Shards: Tasks and requests that panicked A": "there is a series for each task that panicked",
}


def ours():
    """{row: title and letter: expression} of the dashboard that Ottla comes with."""
    found, row = {}, ""
    for panel in json.loads(OURS.read_text())["panels"]:
        if panel["type"] == "row":
            row = panel["title"]
            continue
        for target in panel["targets"]:
            letter = f" {target['refId']}" if len(panel["targets"]) > 1 else ""
            found[f"{row}: {panel['title']}{letter}"] = target["expr"]
    return found


def filled(expression, **more):
    """With values in place of variables; the longest name first, for some begin like others."""
    for name, value in sorted({**VARIABLES, **more}.items(), key=lambda pair: -len(pair[0])):
        expression = expression.replace(name, value)
    return expression
