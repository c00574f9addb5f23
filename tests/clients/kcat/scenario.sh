#!/usr/bin/env bash
# kcat (librdkafka from Debian): the scenario that every client runs against a broker.
#
# Usage: scenario.sh BOOTSTRAP. Prints what outcome.py reads; the first failure ends it with exit code 1.
set -euo pipefail

bootstrap=$1
run=$(date +%s%N)
topic=kcat-$run
group=kcat-group-$run
work=$(mktemp -d)
# The shell's own kill: a bare Debian has no other.
stop_jobs() { jobs -p | while read -r id; do kill "$id" 2> /dev/null || true; done; }
trap 'stop_jobs; rm -rf "$work"' EXIT

ok() { echo "ok $1"; }
die() { echo "failed: $1" >&2; exit 1; }
wait_until() { # wait_until WHAT COMMAND...
  local what=$1; shift
  for _ in $(seq 600); do "$@" && return; sleep 0.1; done
  die "waited 60 s for $what"
}
# Every kcat says on stderr what went wrong, at any log level; the lines are counted at the end.
cat_k() { command kcat -b "$bootstrap" "$@" 2>> "$work/said"; }

echo "version $(kcat -V | grep -o 'Version [0-9.]*' | cut -d' ' -f2) (librdkafka $(kcat -V | grep -o 'librdkafka [0-9.]*' | cut -d' ' -f2))"

# The topic comes into being by the first record that is sent to it.
echo 'first' | cat_k -P -t "$topic" -p 0 -X topic.acks=all
cat_k -L -t "$topic" | grep -q "topic \"$topic\" with 1 partitions" || die "metadata of the new topic"
ok "create by the first record (kcat cannot create with settings)"
echo "skip configs kcat has no admin calls"

echo '|first|' > "$work/sent"
for codec in none gzip snappy lz4 zstd; do
  seq -f "key-$codec|$codec-%g" 200 | tee >(sed "s/$/|codec=$codec/" >> "$work/sent") |
    cat_k -P -t "$topic" -p 0 -z "$codec" -K '|' -H "codec=$codec"
done
wait_until "the list of what was sent" [ "$(wc -l < "$work/sent")" = 1001 ]
cat_k -C -t "$topic" -p 0 -o beginning -e -q -f '%k|%s|%h\n' > "$work/read"
cmp "$work/sent" "$work/read" || die "what was read differs from what was sent"
cat_k -C -t "$topic" -p 0 -o beginning -e -q -f '%o\n' | cmp - <(seq 0 1000) || die "offsets are not dense"
ok "codecs none, gzip, snappy, lz4, zstd"

seq -f "idempotent-%g" 200 | cat_k -P -t "$topic" -p 0 -X enable.idempotence=true
[ "$(cat_k -C -t "$topic" -p 0 -o 1001 -e -q)" = "$(seq -f 'idempotent-%g' 200)" ] || die "what was read differs from what was sent"
ok "idempotent"
echo "skip large kcat cannot set the topic's limit; a record below the default limit is sent by the others"

member() { # member FILE: a consumer of the group, unbuffered
  command kcat -b "$bootstrap" -G "$group" -u -q -X auto.offset.reset=earliest -X heartbeat.interval.ms=300 \
    -X session.timeout.ms=6000 "${@:2}" "$topic" > "$1" 2>> "$work/said" &
}
member "$work/one"
enough() { [ "$(cat "$work"/one* "$work"/two* 2>/dev/null | sort -u | wc -l)" -ge "$1" ]; }
wait_until "the group to read what is there" enough 1201
member "$work/two"
seq -f 'later-%g' 100 | cat_k -P -t "$topic" -p 0
wait_until "the group to read what came later" enough 1301
stop_jobs; wait || true
ok "group"

cat_k -G "$group" -e -q "$topic" > "$work/resumed" &
resumed=$!
echo resumed | cat_k -P -t "$topic" -p 0
read_resumed() { grep -q '^resumed$' "$work/resumed" || ! kill -0 $resumed 2>/dev/null; }
wait_until "the group to resume" read_resumed
kill $resumed 2>/dev/null || true; wait || true
grep -q '^first$' "$work/resumed" && die "the group started over"
ok "resume"

group=$group-cooperative
rm "$work/one" "$work/two"
member "$work/one" -X partition.assignment.strategy=cooperative-sticky
wait_until "the group to read what is there" enough 1302
member "$work/two" -X partition.assignment.strategy=cooperative-sticky
seq -f 'last-%g' 100 | cat_k -P -t "$topic" -p 0
wait_until "the group to read what came later" enough 1402
stop_jobs; wait || true
ok "cooperative"

cat_k -Q -t "$topic:0:-1" | grep -q 'offset 1402$' || die "the end of the partition"
cat_k -Q -t "$topic:0:-2" | grep -q 'offset 0$' || die "the beginning of the partition"
ok "offsets beginning and end (kcat does not show committed offsets)"

middle=$(cat_k -C -t "$topic" -p 0 -o 500 -c 1 -q -f '%T')
found=$(cat_k -Q -t "$topic:0:$middle" | grep -o 'offset [0-9]*' | cut -d' ' -f2)
[ "$found" -le 500 ] || die "time $middle was found at offset $found"
[ "$(cat_k -C -t "$topic" -p 0 -o "$found" -c 1 -q -f '%T')" -ge "$middle" ] || die "record at $found is older"
ok "time"
echo "skip transactions kcat has none"
echo "skip groups kcat has no admin calls"
echo "skip delete kcat has no admin calls"

grep -v '^% \(Auto-selecting\|Reached end\|Waiting for group\|Group .* rebalanced\)' "$work/said" | sed 's/^/  /' > "$work/errors" || true
cat "$work/errors"
echo "count errors $(wc -l < "$work/errors")"
