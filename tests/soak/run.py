#!/usr/bin/env python3
"""A long mixed load from five client libraries, with short and long retention, deleted topics and one topic that never expires.

Usage: tests/soak/run.py [--minutes 60] [--seed N] [--broker PATH] [--samples FILE] [--ledger]
Needs tests/setup and `cargo build --release`. Each library writes numbered records, reads them back in a group and checks that none is missing or
doubled. The broker's memory, files and disk are sampled every ten seconds. Passes (exit code 0) if every load ended clean, the private memory of the
last two thirds grew by less than 1 MiB per 10 minutes, and the disk stayed within its budget: twice the live bytes and a fixed number of segments.
`--ledger` appends the outcome to docs/ledger.md.
"""

import argparse
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
CLIENTS = HERE.parent / "clients"
sys.path.insert(0, str(CLIENTS))

import ledger
from broker import Broker

ROOT = HERE.parents[1]
INSTALLED = pathlib.Path(os.environ.get("TEST_CLIENTS_DIR", ROOT / "target" / "clients"))
PYTHON = str(INSTALLED / "venv" / "bin" / "python")

MINUTE_MS = 60_000
MIB = 1 << 20
SEGMENT_BYTES = 64 * MIB
# Beyond the live bytes: the active segment, two prepared ones, what waits for the two checkpoint generations, one rewrite under way.
SEGMENTS_ALLOWED = 10
SLOPE_MAX_MIB = 1.0
SAMPLE_SECONDS = 10

JAVA = ["java", "-Xmx256m", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-cp", f"{INSTALLED}/classes:{INSTALLED}/jars/*", "Load"]
# Client, its command, partitions, records a second, bytes a record, configs of its topic.
STREAMS = [
    ("kafka-python", [PYTHON, str(CLIENTS / "python" / "load.py")], 8, 200, 1000, {"retention.ms": str(MINUTE_MS)}),
    ("kafkajs", ["env", f"NODE_PATH={INSTALLED}/node/node_modules", "node", str(CLIENTS / "node" / "load.js")], 8, 300, 500, {"retention.ms": str(5 * MINUTE_MS)}),
    ("franz-go", [str(INSTALLED / "franz-go-load")], 64, 1500, 1000, {"retention.ms": str(2 * MINUTE_MS)}),
    ("rdkafka", [str(INSTALLED / "rust" / "debug" / "load")], 16, 1500, 1000, {"retention.bytes": str(8 * MIB)}),
    ("java", JAVA, 4, 50, 1000, {"retention.ms": "-1", "retention.bytes": "-1"}),
]
# A topic that comes and goes beside them, by kafka-python in a process of its own.
PASSING = """
import sys, random
from kafka import KafkaProducer
from kafka.admin import KafkaAdminClient, NewTopic
bootstrap, name, before, size = sys.argv[1:5]
admin = KafkaAdminClient(bootstrap_servers=bootstrap)
if before:
    admin.delete_topics([before])
admin.create_topics([NewTopic(name, 8, 1)])
producer = KafkaProducer(bootstrap_servers=bootstrap, acks="all")
sent = [producer.send(name, b"p" * 10_000, partition=n % 8) for n in range(int(size) // 10_000)]
for each in sent:
    each.get(60)
"""


def create_topics(broker):
    program = (
        "import sys, json\nfrom kafka.admin import KafkaAdminClient, NewTopic\n"
        "admin = KafkaAdminClient(bootstrap_servers=sys.argv[1])\n"
        "admin.create_topics([NewTopic(n, p, 1, topic_configs=c) for n, p, c in json.loads(sys.argv[2])])\n"
    )
    topics = [(f"soak-{name}", partitions, configs) for name, _, partitions, _, _, configs in STREAMS]
    subprocess.run([PYTHON, "-c", program, broker.bootstrap, json.dumps(topics)], check=True, timeout=60)


def passing_topics(broker, seed, until, failures):
    """Creates a topic of a random size every minute or two and deletes the one before."""
    chance = random.Random(seed)
    before, number = "", 0
    while time.monotonic() < until:
        name = f"passing-{number}"
        try:
            command = [PYTHON, "-c", PASSING, broker.bootstrap, name, before, str(chance.randrange(1, 40) * MIB)]
            subprocess.run(command, check=True, timeout=120, capture_output=True, text=True)
        except subprocess.SubprocessError as failure:
            failures.append(f"{name}: {failure} {getattr(failure, 'stderr', '')}")
            return
        before, number = name, number + 1
        time.sleep(max(0, min(chance.uniform(30, 90), until - time.monotonic())))


def status(pid):
    fields = dict(line.split(":", 1) for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines())
    kib = {name: int(fields[name].split()[0]) / 1024 for name in ("VmRSS", "RssAnon", "RssFile")}
    return {**kib, "Threads": int(fields["Threads"]), "fds": len(os.listdir(f"/proc/{pid}/fd"))}


def disk_bytes(directory):
    total = 0
    for folder, _, files in os.walk(directory):
        for name in files:
            try:
                total += os.stat(os.path.join(folder, name)).st_blocks * 512
            except FileNotFoundError:
                pass  # removed between listing and looking
    return total


def metrics(broker):
    text = urllib.request.urlopen(f"http://{broker.admin}/metrics", timeout=30).read().decode()
    found = {}
    for line in text.splitlines():
        if line.startswith("ottla_") and not line.startswith("ottla_topic"):
            name, _, value = line.rpartition(" ")
            name = name.split("{")[0]
            found[name] = found.get(name, 0) + float(value)
    return found


def slope_per_10_minutes(samples, name):
    """Least squares over (seconds, MiB)."""
    points = [(s["at"], s[name]) for s in samples]
    count = len(points)
    mean_x, mean_y = sum(x for x, _ in points) / count, sum(y for _, y in points) / count
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return 600 * sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0


def sample(broker, started):
    seen = metrics(broker)
    return {
        "at": round(time.monotonic() - started, 1),
        **status(broker.process.pid),
        "disk": disk_bytes(broker.directory / "data"),
        "live": seen.get("ottla_log_live_bytes", 0),
        "metrics": seen,
    }


def run(given, directory):
    broker = Broker(
        given.broker,
        directory,
        KAFKA_LOG_RETENTION_CHECK_INTERVAL_MS="5000",
        KAFKA_LOG_SEGMENT_DELETE_DELAY_MS="5000",
        OTTLA_LOG_SEGMENT_BYTES=str(SEGMENT_BYTES),
    ).start()
    failures, samples, seconds = [], [], int(given.minutes * 60)
    loads = []
    try:
        create_topics(broker)
        started = time.monotonic()
        until = started + seconds
        for name, command, partitions, rate, size, _ in STREAMS:
            words = [*command, broker.bootstrap, f"soak-{name}", *map(str, (partitions, rate, size, seconds))]
            loads.append((name, subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)))
        passing = threading.Thread(target=passing_topics, args=(broker, given.seed, until, failures))
        passing.start()
        while (now := time.monotonic()) < until and broker.process.poll() is None:
            samples.append(sample(broker, started))
            if given.samples:
                with open(given.samples, "a") as out:
                    out.write(json.dumps(samples[-1]) + "\n")
            time.sleep(max(0, SAMPLE_SECONDS - (time.monotonic() - now)))
        for name, load in loads:
            output, _ = load.communicate(timeout=300)
            last = (output.strip().splitlines() or ["(nothing printed)"])[-1]
            print(f"    {name}: {last}", flush=True)
            if load.returncode != 0:
                failures.append(f"{name}: exit code {load.returncode}: {output[-500:]}")
        passing.join()
        broker.stop()
    except (AssertionError, OSError, subprocess.SubprocessError) as failure:
        failures.append(f"{failure}\n{broker.tail()}")
    finally:
        for _, load in loads:
            load.kill()
        if broker.process.poll() is None:
            broker.kill()
    return failures, samples


def judge(failures, samples):
    """What failed, and the figures in one line."""
    judged = samples[len(samples) // 3 :]
    if len(judged) < 3:
        return [*failures, "too short to judge memory"], "-"
    slopes = {name: slope_per_10_minutes(judged, name) for name in ("RssAnon", "VmRSS")}
    # Pages of mapped segments are page cache, which the kernel takes back at will: they follow the disk, whose budget is judged below.
    if slopes["RssAnon"] >= SLOPE_MAX_MIB:
        failures.append(f"private memory grows by {slopes['RssAnon']:.2f} MiB per 10 minutes")
    for each in samples:
        budget = 2 * each["live"] + SEGMENTS_ALLOWED * SEGMENT_BYTES
        if each["disk"] > budget:
            failures.append(f"after {each['at']:.0f} s: {each['disk'] / MIB:.0f} MiB on disk, {each['live'] / MIB:.0f} MiB live")
            break
    last = samples[-1]
    figures = (
        f"private memory {last['RssAnon']:.1f} MiB ({slopes['RssAnon']:+.2f} MiB per 10 min), with mapped pages {last['VmRSS']:.1f} MiB"
        f" ({slopes['VmRSS']:+.2f}), disk at most {max(s['disk'] for s in samples) / MIB:.0f} MiB, live at the end {last['live'] / MIB:.0f} MiB,"
        f" {last['fds']} files, {last['Threads']} threads"
    )
    return failures, figures


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--broker", default=str(ROOT / "target" / "release" / "ottla"), help="the binary to test")
    arguments.add_argument("--minutes", type=float, default=60)
    arguments.add_argument("--seed", type=int, default=1, help="sizes and times of the passing topics")
    arguments.add_argument("--samples", help="a file that each sample is appended to, one JSON object a line")
    arguments.add_argument("--ledger", action="store_true", help="append the outcome to docs/ledger.md")
    given = arguments.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    built_from, started = ledger.commit(), time.monotonic()
    print(f"seed {given.seed}, {given.minutes:g} minutes, commit {built_from}", flush=True)
    with tempfile.TemporaryDirectory(prefix="ottla-soak-") as directory:
        failures, figures = judge(*run(given, directory))
    for failure in failures:
        print(f"FAIL {failure}")
    print(figures)
    verdict = "failed: " + "; ".join(f.splitlines()[0] for f in failures) if failures else "passed"
    if given.ledger:
        command = f"tests/soak/run.py --minutes {given.minutes:g} --seed {given.seed}"
        ledger.append(built_from, command, given.seed, time.monotonic() - started, verdict, figures)
    print(verdict)
    sys.exit(1 if failures else 0)


main()
