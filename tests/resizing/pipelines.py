#!/usr/bin/env python3
"""25 resizes under a job that has to be exact: Spark, Flink, Kafka Streams or a group of librdkafka's consumers.

Usage: tests/resizing/pipelines.py [--broker PATH] [--nodes N] [--partitions N] [--rate RECORDS] [--keep] [spark|flink|streams|librdkafka|all]
  spark        Structured Streaming with a checkpoint: a copy into files, each record once, and windows of event time
  flink        windows of event time with a checkpoint every two seconds, at least once into a topic; duplicates are counted
  streams      Kafka Streams: windows behind a repartition topic, at least once into a topic
  librdkafka   two consumers of a group, which commit; what is read again is counted
  --nodes      3: a shard that is moved gets another leader; 4: other replicas, too (default 3)
  --rate       records a second of an idempotent producer, all together (default 320)
  --keep       keeps the directory with all logs; it is kept in any case if something is wrong
One after the other if none is named. Shards of the topic and of the group's coordinator are split, moved and merged, and the topic is
given more and fewer shards, one after the other, while the job runs: each resize waits until the one before is done, the job has gone
on, and records of some seconds were written. Then the producer ends, the job works off what is left, and its results are compared with
what was acknowledged. Installs PySpark, Flink and Kafka Streams in target/clients when first needed; needs tests/setup.
The last line: PASS, or FAIL if a record or a window is missing, wrong or there twice, the job was begun again, or nothing goes on for
minutes. Other times are shown, not judged.
"""

import dataclasses
import os
import pathlib
import shutil
import signal
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(ROOT / "tests" / "clients")]
from broker import Cluster
from table import PYTHON

try:
    from confluent_kafka import Consumer, KafkaException, TopicPartition
    from confluent_kafka.admin import AdminClient, NewTopic
except ImportError:
    os.execv(PYTHON, [PYTHON, *sys.argv])

from consumer_group import ConsumerGroup
from job_programs import Flink, Spark, Streams
from notices import Notices, show
from records import Records
from resizes import RESIZES, Resizes
from run import arguments_of

JOBS = {job.name: job for job in (Spark, Flink, Streams, ConsumerGroup)}
INPUT, OUTPUT, OUTPUT_PARTITIONS, FACTOR = "input", "output", 4, 3
# Before the first resize, and between two.
SETTLE_SECONDS, RECORDS_SECONDS = 15, 3
STUCK_SECONDS, LOOK_SECONDS, WRONG_SHOWN_MAX = 120, 0.1, 20


@dataclasses.dataclass
class Place:
    """Where a job works."""

    bootstrap: str
    directory: pathlib.Path
    notices: Notices
    input: str = INPUT
    output: str = OUTPUT
    output_partitions: int = OUTPUT_PARTITIONS


def comes(is_so, job):
    """Waits for a condition, as long as the job lives and something goes on in it; whether it came."""
    begun = time.monotonic()
    while not is_so():
        job.check_alive()
        if time.monotonic() - max([begun, *job.progress.moments[-1:]]) > STUCK_SECONDS:
            return False
        time.sleep(LOOK_SECONDS)
    return True


def until(what, is_so, job):
    if not comes(is_so, job):
        raise AssertionError(f"{what}: not yet, and nothing went on in the job for {STUCK_SECONDS} s")


def create_topics(place, partitions, group):
    admin = AdminClient({"bootstrap.servers": place.bootstrap})
    for future in admin.create_topics([NewTopic(INPUT, partitions, FACTOR), NewTopic(OUTPUT, OUTPUT_PARTITIONS, FACTOR)]).values():
        future.result()
    # To look for a coordinator creates the topic of the groups' offsets.
    consumer = Consumer({"bootstrap.servers": place.bootstrap, "group.id": group})
    consumer.committed([TopicPartition(INPUT, 0)], timeout=30)
    consumer.close()


def run_resizes(resizes, records, job):
    """All of them; after each, waits until the job has read on and more records were written."""
    for number, resize in enumerate(resizes.run(), 1):
        print(f"  {number:>2} {resize.kind}: {resize.said} ({resize.ended - resize.begun:.1f} s)", flush=True)
        read, written = job.progress.count, records.acknowledged.count
        until(f"the job reads on after resize {number}", lambda read=read: job.progress.count > read, job)
        until("more records are written", lambda written=written: records.acknowledged.count >= written + RECORDS_SECONDS * records.rate, job)


def report(resizes, records, job, begun, ended):
    print(f"{resizes.counts()}; refused and asked again: {len(resizes.refused)}")
    for text in sorted(set(resizes.refused))[:5]:
        print(f"  {text}")
    print(f"{len(records.numbers())} records produced and acknowledged, {job.progress.count} read by the job")
    for what, progress in [("acknowledgement", records.acknowledged), ("progress of the job", job.progress)]:
        seconds, at = progress.longest(begun, ended)
        before, _ = progress.longest(begun - SETTLE_SECONDS / 2, begun)
        print(f"longest time without {what}: {seconds * 1000:.0f} ms, at resize {resizes.near(at)}; {before * 1000:.0f} ms in the seconds before")


def run_job(job, place, cluster, given):
    """Gives what is wrong."""
    create_topics(place, given.partitions, job.group)
    records = Records(place.bootstrap, INPUT, given.partitions, given.rate, place.notices)
    try:
        job.start()
        until("the job has begun", job.has_started, job)
        settled = time.monotonic()
        until("the job reads on", lambda: time.monotonic() > settled + SETTLE_SECONDS and job.progress.count > SETTLE_SECONDS * given.rate, job)
        resizes, begun = Resizes(given.broker, cluster, INPUT, job.group), time.monotonic()
        job.resizing_begins()
        run_resizes(resizes, records, job)
        ended = time.monotonic()
    finally:
        records.stop()
    # If it never is, its end says what is missing.
    is_through = comes(lambda: job.is_through(records), job)
    report(resizes, records, job, begun, ended)
    wrong = [*records.errors, *job.end(records, resizes)]
    show("logged by the job during the resizes and after", job.notices())
    show("logged by librdkafka", place.notices.counted(begun, time.monotonic()))
    print("answered by the nodes with an error: " + ", ".join(f"{api} {error} {count}" for (api, error), count in sorted(cluster.errors().items())))
    done = sum(resize.ended > 0 for resize in resizes.done)
    wrong += [] if is_through else [f"the job has not worked off what is there, and nothing went on in it for {STUCK_SECONDS} s"]
    return [*wrong, *([f"{done} resizes were done"] if done != RESIZES else [])]


def run(name, given):
    """One job with a cluster of its own; whether it went well."""
    print(f"{name}:", flush=True)
    directory = pathlib.Path(tempfile.mkdtemp(prefix=f"ottla-{name}-"))
    notices = Notices(directory / "librdkafka.log")
    cluster, job = Cluster(given.broker, directory, given.nodes), None
    try:
        cluster.start()
        job = JOBS[name](Place(cluster.bootstrap, directory, notices))
        wrong = run_job(job, job.place, cluster, given)
    except (AssertionError, KafkaException, OSError) as failure:
        wrong = [f"{type(failure).__name__}: {failure}"]
    finally:
        if job is not None:
            job.kill()
        cluster.kill()
    for line in wrong[:WRONG_SHOWN_MAX]:
        print(line)
    if wrong or given.keep:
        print(f"{len(wrong)} wrong; the logs are in {directory}")
    else:
        shutil.rmtree(directory)
    print(f"{name}: {'FAIL' if wrong else 'PASS'}", flush=True)
    return not wrong


def main():
    arguments = arguments_of(__doc__, partitions=16, rate=320)
    arguments.add_argument("name", nargs="?", default="all", choices=[*JOBS, "all"])
    arguments.add_argument("--nodes", type=int, default=3, metavar="N")
    arguments.add_argument("--keep", action="store_true")
    given = arguments.parse_args()
    # Told to end, it still ends what it has started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    names = list(JOBS) if given.name == "all" else [given.name]
    for name in names:
        JOBS[name].install()
    went_well = [run(name, given) for name in names]
    print("PASS" if all(went_well) else "FAIL")
    sys.exit(not all(went_well))


if __name__ == "__main__":
    main()
