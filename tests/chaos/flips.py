"""Bit flips, for `Nemesis`: a node is killed, one bit of a file of its data directory is turned, and it is started again.

Never in the last commit of a log: its damage can not be told from a torn write (docs/decisions/013-damage.md). What nobody reads is not
met, so the last word on a flip is spoken after the run has read everything. May not know: clients, but for what their records look like.
"""

import collections
import os
import re

import effects
from nodes import until

# A commit's header (storage/src/log/commit.rs): its own length at byte 12. The frames follow it.
COMMIT, COMMIT_LENGTH_AT = b"OTTLACMT", 12
# Bytes of a frame's head that its checksum guards: replica, sequence, clock, length of the payload.
HEAD_BYTES = (24, 33, 50, 58)
# A record's value begins with its number (client.py).
VALUE = re.compile(rb"(?<!\d)\d{12,14}:")
REBUILD_SECONDS_MAX = 120
METRICS = ("ottla_damaged_reads_total", "ottla_repaired_batches_total")
SAID = ("corrected by its frame's checksum", "fetched from another replica", "rebuilt", "damaged")

Flip = collections.namedtuple("Flip", "node path at before after log_bytes what")


def commits(log):
    """Where the commits of a segment begin."""
    return [found.start() for found in re.finditer(COMMIT, log)]


def places(log):
    """Bytes of a segment that may be damaged, by what they are; none at or behind its last commit."""
    starts = commits(log)
    if len(starts) < 2:
        return {}
    values = [found.start() for found in VALUE.finditer(log, starts[0], starts[-1])]
    lengths = [(at, int.from_bytes(log[at + COMMIT_LENGTH_AT : at + COMMIT_LENGTH_AT + 4], "little")) for at in starts[:-1]]
    heads = [at + length + byte for at, length in lengths for byte in HEAD_BYTES if at + length + byte < starts[-1]]
    return {kind: found for kind, found in (("record", values), ("head of a frame", heads)) if found}


def flip_bit(path, at, bit):
    """Turns a bit on the disk. The byte before, and as it is read back."""
    with open(path, "r+b", buffering=0) as file:
        before = os.pread(file.fileno(), 1, at)[0]
        os.pwrite(file.fileno(), bytes([before ^ 1 << bit]), at)
        os.fsync(file.fileno())
    with open(path, "rb", buffering=0) as file:
        return before, os.pread(file.fileno(), 1, at)[0]


def noticed(lines, metrics):
    """What a node said of damage: each kind of log line with how often, and the metrics that are not 0."""
    words = (next((words for words in SAID if words in line), None) for line in lines)
    found = collections.Counter(filter(None, words))
    said = [f"log says '{words}' {times}x" for words, times in sorted(found.items())]
    return said + [f"{name} {value:.0f}" for name, value in metrics.items() if value]


class BitFlips:
    FLIP_KINDS = ("bitflip",)

    def bitflip(self):
        node = self.any_node()
        yield f"kill -9 and one bit of the disk of {self.title(node)}"
        until("every replica has caught up", node.voters)
        self.killed([node])
        try:
            flip = self.flip_somewhere(node)
        finally:
            self.back([node])
        # What the start finds may cost a replica; until it is rebuilt, damage elsewhere could be the loss of a majority.
        until(f"node {node.number} has caught up", lambda: node.voters() is not None, REBUILD_SECONDS_MAX)
        self.measured(f"{flip.what}: {flip.before:#04x} -> {flip.after:#04x}")
        self.flips.append(flip)

    def flip_somewhere(self, node):
        logs = sorted((node.data / "log").glob("*.log"))
        found = [(path, kind, where) for path in logs for kind, where in places(path.read_bytes()).items()]
        effects.check(found, f"node {node.number} has no log to damage")
        path, kind, where = self.chance.choice(found)
        at, log_bytes = self.chance.choice(where), (node.directory / node.log_name).stat().st_size
        before, after = flip_bit(path, at, self.chance.randrange(8))
        return Flip(node, path, at, before, after, log_bytes, f"node {node.number}, {kind} at byte {at} of {path.name}")

    def judge_flip(self, flip):
        log = (flip.node.directory / flip.node.log_name).read_bytes()[flip.log_bytes :].decode(errors="replace")
        metrics = {name: flip.node.metric(name) or 0 for name in METRICS}
        return effects.flipped(flip.what, flip.before, flip.after, noticed(log.splitlines(), metrics))
