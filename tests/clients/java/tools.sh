#!/usr/bin/env bash
# Apache Kafka's command line tools against a broker, each doing what an operator does with it.
#
# Usage: tools.sh BOOTSTRAP JARS. Prints what outcome.py reads (a step is a tool); the first failure ends it with exit code 1.
set -euo pipefail

bootstrap=$1
jars=$2
topic=tools-$(date +%s%N)
group=$topic-group
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# What a tool logs at WARN and above is counted; the tool's own messages go to stdout. The first tool leaves an archive of its
# classes, which halves the start of the others.
tool() {
  local share=-XX:ArchiveClassesAtExit=$work/classes.jsa
  if [ -f "$work/classes.jsa" ]; then share=-XX:SharedArchiveFile=$work/classes.jsa; fi
  java -Xmx256m -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Xlog:disable "$share" \
    -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -Dorg.slf4j.simpleLogger.logFile="$work/log" -cp "$jars/*" "$@"
  cat "$work/log" >> "$work/logged" 2> /dev/null || true
}
topics() { tool org.apache.kafka.tools.TopicCommand --bootstrap-server "$bootstrap" "$@"; }
configs() { tool kafka.admin.ConfigCommand --bootstrap-server "$bootstrap" "$@"; }
groups() { tool org.apache.kafka.tools.consumer.group.ConsumerGroupCommand --bootstrap-server "$bootstrap" "$@"; }
offsets() { tool org.apache.kafka.tools.GetOffsetShell --bootstrap-server "$bootstrap" --topic "$topic" "$@"; }
ok() { echo "ok $*"; }
skip() { echo "skip $*"; }
die() { echo "failed: $1" >&2; exit 1; }
has() { grep -Eq -- "$1" <<<"$2" || die "no '$1' in: $2"; }
lines() { sort -n <<<"$1" | tr '\n' ' '; }

version=$(basename "$(ls "$jars"/kafka-tools-[0-9]*.jar)" .jar)
echo "version ${version#kafka-tools-}"

topics --create --topic "$topic" --partitions 2 --replication-factor "${TEST_REPLICATION_FACTOR:-1}" --config retention.ms=86400000 > /dev/null
has "^$topic$" "$(topics --list)"
has 'PartitionCount: 2.*retention.ms=86400000' "$(topics --describe --topic "$topic")"
topics --alter --topic "$topic" --partitions 3
has 'PartitionCount: 3' "$(topics --describe --topic "$topic")"

configs --alter --entity-type topics --entity-name "$topic" --add-config max.message.bytes=123456,retention.bytes=987654321 > /dev/null
has 'max.message.bytes=123456' "$(configs --describe --entity-type topics --entity-name "$topic")"
configs --alter --entity-type topics --entity-name "$topic" --delete-config max.message.bytes > /dev/null
has 'max.message.bytes=1048588 .*DEFAULT_CONFIG' "$(configs --describe --all --entity-type topics --entity-name "$topic")"
has 'log.retention.hours=168' "$(configs --describe --all --entity-type brokers --entity-name 1)"
ok kafka-configs "sets, describes and deletes a topic's settings; describes a broker's"

seq 100 | tool org.apache.kafka.tools.ConsoleProducer --bootstrap-server "$bootstrap" --topic "$topic"
ok kafka-console-producer "100 records"
read=$(tool org.apache.kafka.tools.consumer.ConsoleConsumer --bootstrap-server "$bootstrap" --topic "$topic" --group "$group" \
  --from-beginning --max-messages 100 --timeout-ms 30000 2> /dev/null | sort -n)
[ "$read" = "$(seq 100)" ] || die "the console consumer read something else"
ok kafka-console-consumer "reads them in a group"

total() { awk -F: '{ sum += $3 } END { print sum }' <<<"$1"; }
[ "$(total "$(offsets)")" = 100 ] || die "ends: $(offsets)"
[ "$(total "$(offsets --time -2)")" = 0 ] || die "beginnings: $(offsets --time -2)"
[ "$(total "$(offsets --time $(($(date +%s%3N) - 3600000)))")" = 0 ] || die "offsets an hour ago"
has "^$topic:[012]:[0-9]+$" "$(offsets --time max-timestamp)"
ok kafka-get-offsets "ends, beginnings, by time, of the largest timestamp"

has "^$group$" "$(groups --list)"
has " 0 +-" "$(groups --describe --group "$group" 2> /dev/null)"
has "$group.*Empty" "$(groups --describe --state --group "$group")"
groups --describe --members --group "$group" > /dev/null 2>&1
has "$group +Classic" "$(groups --list --type)"
has "^$group +Classic +consumer" "$(tool org.apache.kafka.tools.GroupsCommand --bootstrap-server "$bootstrap" --list)"
ok kafka-groups "lists groups with their type and protocol"
groups --export --reset-offsets --group "$group" --topic "$topic" --to-current --dry-run 2> /dev/null > "$work/offsets.csv"
[ "$(grep -c "^\"\?$topic" "$work/offsets.csv")" = 3 ] || die "exported: $(cat "$work/offsets.csv")"
groups --reset-offsets --group "$group" --topic "$topic" --to-earliest --execute > /dev/null
lag() { groups --describe --group "$group" 2> /dev/null | awk -v t="$topic" '$2 == t { sum += $6 } END { print sum }'; }
[ "$(lag)" = 100 ] || die "lag after the reset is '$(lag)'"
groups --reset-offsets --group "$group" --from-file "$work/offsets.csv" --execute > /dev/null
[ "$(lag)" = 0 ] || die "lag after the import is '$(lag)'"
# Records without keys go where the producer's batches went: to one partition or more.
full=$(offsets | awk -F: '$3 > 5 { print $2; exit }')
groups --reset-offsets --group "$group" --topic "$topic:$full" --shift-by -5 --execute > /dev/null
[ "$(lag)" = 5 ] || die "lag after the shift is '$(lag)'"
groups --delete-offsets --group "$group" --topic "$topic:0" > /dev/null
groups --delete --group "$group" > /dev/null
groups --list | grep -q "^$group$" && die "the group is still there"
ok kafka-consumer-groups "lists, describes offsets, members and state, exports offsets to a file and takes them back, resets, shifts, deletes"

has "\"partition\":\"$topic-0\",\"size\":[0-9]+" "$(tool org.apache.kafka.tools.LogDirsCommand --bootstrap-server "$bootstrap" --describe --topic-list "$topic")"
ok kafka-log-dirs "sizes of the partitions"

echo "{\"partitions\":[{\"topic\":\"$topic\",\"partition\":$full,\"offset\":3}],\"version\":1}" > "$work/delete.json"
has 'low_watermark: 3' "$(tool org.apache.kafka.tools.DeleteRecordsCommand --bootstrap-server "$bootstrap" --offset-json-file "$work/delete.json")"
has "^$topic:$full:3$" "$(offsets --time -2)"
ok kafka-delete-records "up to an offset"

has 'Produce\(0\): ' "$(tool org.apache.kafka.tools.BrokerApiVersionsCommand --bootstrap-server "$bootstrap")"
ok kafka-broker-api-versions "what the broker serves"
has 'Cluster ID: ' "$(tool org.apache.kafka.tools.ClusterTool cluster-id --bootstrap-server "$bootstrap")"
ok kafka-cluster "the cluster's id"
features() { tool org.apache.kafka.tools.FeatureCommand --bootstrap-server "$bootstrap" "$@"; }
level=$(features describe)
has 'Feature: metadata\.version.*FinalizedVersionLevel:' "$level"
level=$(grep 'Feature: ottla\.version' <<<"$level")
has 'FinalizedVersionLevel: [0-9]+.*Epoch: [0-9]+' "$level"
read -r _ feature _ _ _ _ _ finalized _ <<<"$level"
has "$feature can be upgraded to $finalized" "$(features upgrade --feature "$feature=$finalized" --dry-run)"
ok kafka-features "describes levels, asks whether one can be raised"
has 'ProducerId' "$(tool org.apache.kafka.tools.TransactionsCommand --bootstrap-server "$bootstrap" describe-producers --topic "$topic" --partition 0)"
has 'TransactionalId' "$(tool org.apache.kafka.tools.TransactionsCommand --bootstrap-server "$bootstrap" list)"
ok kafka-transactions "describes the producers of a partition, lists transactional ids"

quorum() { tool org.apache.kafka.tools.MetadataQuorumCommand --bootstrap-server "$bootstrap" describe "$@"; }
has 'LeaderId: +[0-9]+' "$(quorum --status)"
has 'Leader' "$(quorum --replication)"
ok kafka-metadata-quorum "the metadata's leader and how far its replicas are"
has 'leader election \(PREFERRED\)|replica already elected' \
  "$(tool org.apache.kafka.tools.LeaderElectionCommand --bootstrap-server "$bootstrap" --election-type PREFERRED --topic "$topic" --partition 0)"
ok kafka-leader-election "has the preferred leader lead"
reassign() { tool org.apache.kafka.tools.reassign.ReassignPartitionsCommand --bootstrap-server "$bootstrap" "$@"; }
echo "{\"topics\":[{\"topic\":\"$topic\"}],\"version\":1}" > "$work/move.json"
brokers=$(topics --describe --topic "$topic" | grep -o 'Replicas: [0-9,]*' | grep -o '[0-9]*' | sort -un | paste -sd,)
reassign --topics-to-move-json-file "$work/move.json" --broker-list "$brokers" --generate |
  sed -n '/Current/,/Proposed/p' | grep '"version"' > "$work/current.json"
reassign --reassignment-json-file "$work/current.json" --execute > /dev/null
has "$topic-0 is completed" "$(reassign --reassignment-json-file "$work/current.json" --verify)"
has 'No partition reassignments found' "$(reassign --list)"
ok kafka-reassign-partitions "a plan; the replicas as they are; none under way"

metrics() { tool org.apache.kafka.tools.ClientMetricsCommand --bootstrap-server "$bootstrap" "$@"; }
metrics --alter --name "$topic" --metrics org.apache.kafka.producer. --interval 30000 --match client_software_name=java > /dev/null
has "^$topic$" "$(metrics --list)"
has 'interval.ms=30000' "$(metrics --describe --name "$topic")"
metrics --delete --name "$topic" > /dev/null
metrics --list | grep -q "^$topic$" && die "the subscription is still there"
ok kafka-client-metrics "a subscription is made, listed, described, deleted"

verified=$(tool org.apache.kafka.tools.VerifiableProducer --bootstrap-server "$bootstrap" --topic "$topic" --max-messages 1000 --acks -1)
has '"sent":1000,"acked":1000' "$(tr -d ' ' <<<"$verified")"
ok kafka-verifiable-producer "1,000 records, every one acknowledged"
tool org.apache.kafka.tools.VerifiableConsumer --bootstrap-server "$bootstrap" --topic "$topic" --group-id "$group" --max-messages 1000 \
  --reset-policy earliest > "$work/verified"
[ "$(grep -c '"name":"offsets_committed"' "$work/verified")" -gt 0 ] || die "nothing committed: $(tail -3 "$work/verified")"
grep '"name":"offsets_committed"' "$work/verified" | grep -q '"success":false' && die "a commit failed"
ok kafka-verifiable-consumer "1,000 records and more, commits all"

performance=$(tool org.apache.kafka.tools.ProducerPerformance --topic "$topic" --num-records 50000 --record-size 100 \
  --throughput -1 --producer-props "bootstrap.servers=$bootstrap" acks=all --print-metrics)
has '^50000 records sent' "$performance"
has 'producer-metrics:record-retry-total:.* : 0.000' "$performance"
has 'producer-metrics:record-error-total:.* : 0.000' "$performance"
ok kafka-producer-perf-test "50,000 records, no error and no retry among its metrics"
performance=$(tool org.apache.kafka.tools.ConsumerPerformance --bootstrap-server "$bootstrap" --topic "$topic" --messages 50000 --timeout 30000)
has ', 5[0-9]{4}, ' "$performance"
ok kafka-consumer-perf-test "reads them"
has 'Avg latency' "$(tool org.apache.kafka.tools.EndToEndLatency "$bootstrap" "$topic" 100 all 100)"
ok kafka-e2e-latency "100 records there and back"

acls() { tool org.apache.kafka.tools.AclCommand --bootstrap-server "$bootstrap" "$@" 2>&1 || true; }
disabled='SecurityDisabledException: No Authorizer is configured'
has "$disabled on the broker" "$(acls --list)"
has "$disabled" "$(acls --add --allow-principal User:a --operation Read --topic "$topic")"
has "$disabled" "$(acls --remove --force --allow-principal User:a --operation Read --topic "$topic")"
ok kafka-acls "SECURITY_DISABLED, as Kafka without an authorizer"
# Kafka, too, lists no group of a type whose feature is off.
share() { tool org.apache.kafka.tools.consumer.group.ShareGroupCommand --bootstrap-server "$bootstrap" "$@" 2>&1 || true; }
streams() { tool org.apache.kafka.tools.streams.StreamsGroupCommand --bootstrap-server "$bootstrap" "$@" 2>&1 || true; }
[ -z "$(share --list)$(streams --list)" ] || die "groups of types that are off: $(share --list) $(streams --list)"
has 'UnsupportedVersionException' "$(share --describe --group "$group")"
ok kafka-share-groups "lists none; to describe one is an UnsupportedVersionException, as with Kafka's share groups off"
ok kafka-streams-groups "lists none, as Kafka with streams groups off"

topics --delete --topic "$topic"
topics --list | grep -q "^$topic$" && die "the topic is still there"
ok kafka-topics "creates, lists, describes, alters, deletes"

skip kafka-dump-log "works on the files of a Kafka broker; Ottla's log is one for all partitions and has a format of its own"
skip kafka-delegation-tokens "needs delegation tokens, which Ottla does not serve yet"
grep -E ' (WARN|ERROR) ' "$work/logged" | sed 's/^/  /' || true
echo "count warnings $(grep -cE ' (WARN|ERROR) ' "$work/logged" || true)"
