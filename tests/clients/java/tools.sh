#!/usr/bin/env bash
# Apache Kafka's command line tools against a broker: topics, configs, consumer groups, console producer and consumer.
#
# Usage: tools.sh BOOTSTRAP JARS. Prints one `ok NAME` line a step; the first failure ends it with exit code 1.
set -euo pipefail

bootstrap=$1
jars=$2
topic=tools-$(date +%s%N)
group=$topic-group
tool() { java -Xmx256m -XX:TieredStopAtLevel=1 -Dorg.slf4j.simpleLogger.defaultLogLevel=error -cp "$jars/*" "$@"; }
topics() { tool org.apache.kafka.tools.TopicCommand --bootstrap-server "$bootstrap" "$@"; }
configs() { tool kafka.admin.ConfigCommand --bootstrap-server "$bootstrap" "$@"; }
groups() { tool org.apache.kafka.tools.consumer.group.ConsumerGroupCommand --bootstrap-server "$bootstrap" "$@"; }
ok() { echo "ok $1"; }
die() { echo "failed: $1" >&2; exit 1; }
has() { grep -Eq -- "$1" <<<"$2" || die "no '$1' in: $2"; }

topics --create --topic "$topic" --partitions 2 --replication-factor 1 --config retention.ms=86400000
has "^$topic$" "$(topics --list)"
has 'PartitionCount: 2.*retention.ms=86400000' "$(topics --describe --topic "$topic")"
topics --alter --topic "$topic" --partitions 3
has 'PartitionCount: 3' "$(topics --describe --topic "$topic")"
ok "kafka-topics: create, list, describe, alter"

configs --alter --entity-type topics --entity-name "$topic" --add-config max.message.bytes=123456,retention.bytes=987654321
has 'max.message.bytes=123456' "$(configs --describe --entity-type topics --entity-name "$topic")"
configs --alter --entity-type topics --entity-name "$topic" --delete-config max.message.bytes
has 'max.message.bytes=1048588 .*DEFAULT_CONFIG' "$(configs --describe --all --entity-type topics --entity-name "$topic")"
ok "kafka-configs: set, describe, delete"

seq 100 | tool org.apache.kafka.tools.ConsoleProducer --bootstrap-server "$bootstrap" --topic "$topic"
read=$(tool org.apache.kafka.tools.consumer.ConsoleConsumer --bootstrap-server "$bootstrap" --topic "$topic" --group "$group" \
  --from-beginning --max-messages 100 --timeout-ms 30000 | sort -n)
[ "$read" = "$(seq 100)" ] || die "the console consumer read something else"
ok "console producer and consumer"

has "^$group$" "$(groups --list)"
has " 0 +-" "$(groups --describe --group "$group" 2>/dev/null)"
groups --reset-offsets --group "$group" --topic "$topic" --to-earliest --execute > /dev/null
described=$(groups --describe --group "$group" 2>/dev/null)
lag=$(awk -v t="$topic" '$2 == t { sum += $6 } END { print sum }' <<<"$described")
[ "$lag" = 100 ] || die "lag after the reset is '$lag' in: $described"
groups --delete --group "$group" > /dev/null
groups --list | grep -q "^$group$" && die "the group is still there"
ok "kafka-consumer-groups: list, describe, reset offsets, delete"

topics --delete --topic "$topic"
topics --list | grep -q "^$topic$" && die "the topic is still there"
ok "kafka-topics: delete"
