#!/usr/bin/env bash
# kcat (librdkafka from Debian): the scenario that every client runs against a broker.
#
# Usage: scenario.sh BOOTSTRAP. Prints one `ok NAME` line a step; the first failure ends it with exit code 1.
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

# The topic comes into being by the first record that is sent to it.
echo 'first' | kcat -b "$bootstrap" -P -t "$topic" -p 0 -X topic.acks=all
kcat -b "$bootstrap" -L -t "$topic" | grep -q "topic \"$topic\" with 1 partitions" || die "metadata of the new topic"
ok "auto-create and metadata"

echo first > "$work/sent"
for codec in none gzip snappy lz4 zstd; do
  seq -f "$codec-%g" 200 | tee -a "$work/sent" | kcat -b "$bootstrap" -P -t "$topic" -p 0 -z "$codec"
done
kcat -b "$bootstrap" -C -t "$topic" -p 0 -o beginning -e -q > "$work/read"
cmp "$work/sent" "$work/read" || die "what was read differs from what was sent"
kcat -b "$bootstrap" -C -t "$topic" -p 0 -o beginning -e -q -f '%o\n' | cmp - <(seq 0 1000) || die "offsets are not dense"
ok "produce and consume: none, gzip, snappy, lz4, zstd; offsets dense"

member() { # member FILE: a consumer of the group, unbuffered
  kcat -b "$bootstrap" -G "$group" -u -q -X auto.offset.reset=earliest -X heartbeat.interval.ms=300 \
    -X session.timeout.ms=6000 "$topic" > "$1" 2> "$1.log" &
}
member "$work/one"
enough() { [ "$(cat "$work/one" "$work/two" 2>/dev/null | sort -u | wc -l)" -ge "$1" ]; }
wait_until "the group to read what is there" enough 1001
member "$work/two"
seq -f 'later-%g' 100 | kcat -b "$bootstrap" -P -t "$topic" -p 0
wait_until "the group to read what came later" enough 1101
stop_jobs; wait || true
ok "group with a rebalance"

kcat -b "$bootstrap" -G "$group" -e -q "$topic" > "$work/resumed" 2> "$work/resumed.log" &
resumed=$!
echo resumed | kcat -b "$bootstrap" -P -t "$topic" -p 0
read_resumed() { grep -q '^resumed$' "$work/resumed" || ! kill -0 $resumed 2>/dev/null; }
wait_until "the group to resume" read_resumed
kill $resumed 2>/dev/null || true; wait || true
grep -q '^first$' "$work/resumed" && die "the group started over"
ok "commit and resume"

middle=$(kcat -b "$bootstrap" -C -t "$topic" -p 0 -o 500 -c 1 -q -f '%T')
found=$(kcat -b "$bootstrap" -Q -t "$topic:0:$middle" | grep -o 'offset [0-9]*' | cut -d' ' -f2)
[ "$found" -le 500 ] || die "time $middle was found at offset $found"
[ "$(kcat -b "$bootstrap" -C -t "$topic" -p 0 -o "$found" -c 1 -q -f '%T')" -ge "$middle" ] || die "record at $found is older"
ok "seek by time"
