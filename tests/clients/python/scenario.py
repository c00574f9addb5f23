"""What the Python scenarios share: the names of a run, what is printed, and a count of what a library warns of."""

import logging
import os
import sys
import time
import uuid

BOOTSTRAP = sys.argv[1] if len(sys.argv) > 1 else ""
RUN = uuid.uuid4().hex[:8]
# What run.py says of the cluster; alone a scenario is for one broker.
NODES = int(os.environ.get("TEST_NODES", "1"))
REPLICATION_FACTOR = int(os.environ.get("TEST_REPLICATION_FACTOR", "1"))
PARTITIONS = 4
RECORDS_PER_CODEC = 200
CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
LARGE_BYTES = 3 * 1024 * 1024
LARGE_LIMIT_BYTES = 4 * 1024 * 1024
# Random bytes: no codec makes the large record a small one.
LARGE = os.urandom(LARGE_BYTES)


def say(line):
    print(line, flush=True)


def ok(step, detail=""):
    say(f"ok {step} {detail}".rstrip())


def skip(step, why):
    say(f"skip {step} {why}")


def expected_records():
    """What is produced in the `codecs` step: (codec, key, value, headers)."""
    for codec in CODECS:
        for i in range(RECORDS_PER_CODEC):
            value = f"{codec}-{i}-".encode() + b"x" * 100
            yield codec, i % PARTITIONS, f"key-{i % 17}".encode(), value, [("codec", codec.encode()), ("empty", b"")]


def transaction(name):
    """What is produced in a transaction of the `transactions` step: (partition, value)."""
    return [(i % 2, f"{name}-{i:02}".encode()) for i in range(20)]


def check_dense(sent):
    """`sent` is (partition, offset) to record: each partition's offsets go from 0 up without a gap."""
    assert len(sent) == RECORDS_PER_CODEC * len(CODECS), len(sent)
    for partition in range(PARTITIONS):
        offsets = sorted(o for p, o in sent if p == partition)
        assert offsets == list(range(len(offsets))), f"offsets of partition {partition} are not dense from 0"


def wait_until(condition, what, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.05)


def stop(*members):
    """Everybody commits before anybody leaves: a commit in the rebalance after a leave is refused."""
    for member in members:
        member.stopping.set()
    for member in members:
        member.committed.wait(30)
    for member in members:
        member.leaving.set()
        member.join(30)
        assert not member.failure, repr(member.failure)


def two_members(member, **more):
    """Two members of a group, one after the other: what they read, the first and the second. `member` begins one of them."""
    seen = {}
    first = member(seen, **more)
    wait_until(lambda: len(first.owned) == PARTITIONS, "the first member to own every partition")
    second = member(seen, **more)
    shared = lambda: len(first.owned) == 2 and len(second.owned) == 2 and not first.owned & second.owned
    wait_until(shared, "the group to share its partitions")
    return seen, first, second


class Warnings(logging.Handler):
    """Counts what the library logs at WARNING and above; `harmless` are parts of lines that no user has to act on."""

    def __init__(self, harmless=()):
        super().__init__(logging.WARNING)
        self.harmless = harmless
        self.counted = 0
        logging.getLogger().addHandler(self)

    def emit(self, record):
        line = record.getMessage()
        if not any(part in line for part in self.harmless):
            self.counted += 1
            say(f"  {record.levelname} {record.name}: {line}")
