"""Bit flips, for `Nemesis`: a node is killed, one bit of a file of its data directory is turned, and it is started again.

Never in the last commit of a log: its damage can not be told from a torn write (docs/decisions/013-damage.md). What nobody reads is not
met, so everything is read through that node's zone, and the last word on a flip is spoken at the end of the run.
May not know: clients, but for what their records look like.
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
HEAD = "head of a frame"
# A checkpoint comes every ten seconds, about.
RECENT_COMMITS = 16
# A record's value begins with its number (client.py).
VALUE = re.compile(rb"(?<!\d)\d{12,14}:")
REBUILD_SECONDS_MAX = 120
# What a node logs of a batch that does not read back: the segment, and where the batch begins.
DAMAGED = re.compile(r"damaged batch.* segment=(\d+) byte=(\d+)")
# What it logs of a commit that its start finds damaged: entries that are not in a checkpoint yet are read then, and their replica is rebuilt.
FOUND_AT_THE_START = re.compile(r"damage in the log, before what was durable .*?(\d+)\.log from=(\d+) to=(\d+)")
# The workload's batches are shorter (client.py: five records).
BATCH_BYTES_MAX = 4096

Flip = collections.namedtuple("Flip", "node path at before after log_bytes what")


def commits(log):
    """Where the commits of a segment begin."""
    return [found.start() for found in re.finditer(COMMIT, log)]


def places(log):
    """Bytes of a segment that may be damaged, by what they are; none at or behind its last commit.

    Heads of frames only close before it: those that a checkpoint covers are not read again.
    """
    starts = commits(log)
    if len(starts) < 2:
        return {}
    values = [found.start() for found in VALUE.finditer(log, starts[0], starts[-1])]
    lengths = [(at, int.from_bytes(log[at + COMMIT_LENGTH_AT : at + COMMIT_LENGTH_AT + 4], "little")) for at in starts[:-1]]
    heads = [at + length + byte for at, length in lengths[-RECENT_COMMITS:] for byte in HEAD_BYTES if at + length + byte < starts[-1]]
    return {kind: found for kind, found in (("record", values), (HEAD, heads)) if found}


def flip_bit(path, at, bit):
    """Turns a bit on the disk. The byte before, and as it is read back."""
    with open(path, "r+b", buffering=0) as file:
        before = os.pread(file.fileno(), 1, at)[0]
        os.pwrite(file.fileno(), bytes([before ^ 1 << bit]), at)
        os.fsync(file.fileno())
    with open(path, "rb", buffering=0) as file:
        return before, os.pread(file.fileno(), 1, at)[0]


def noticed(segment, at, before, now, lines):
    """What became of a flipped byte. `now`: the byte as it is; None if its file is gone. `lines`: the node's log since the flip."""
    places = (found.groups() for found in map(DAMAGED.search, lines) if found)
    met = sum(int(number) == segment and int(begin) <= at < int(begin) + BATCH_BYTES_MAX for number, begin in places)
    said = [f"the node met its damaged batch {met}x"] if met else []
    ranges = (map(int, found.groups()) for found in map(FOUND_AT_THE_START.search, lines) if found)
    said += ["the node found its commit damaged when it started"] if any(n == segment and begin <= at < end for n, begin, end in ranges) else []
    return said + (["the node corrected the byte on the disk"] if now == before else [])


class BitFlips:
    FLIP_KINDS = JUDGED_AT_THE_END = ("bitflip",)

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
        self.flips.append(flip)
        # Through the replicas of its zone: what was flipped is met now, and not when its replica has moved elsewhere.
        self.read_all(node.zone)
        self.measured(f"{flip.what}: {flip.before:#04x} -> {flip.after:#04x}")

    def flip_somewhere(self, node):
        # Of one log, so that its end can be told.
        directory = self.chance.choice([one for one in node.directories if any((one / "log").glob("*.log"))] or [node.data])
        logs = sorted((directory / "log").glob("*.log"))
        found = [(path, kind, where) for path in logs for kind, where in places(path.read_bytes()).items()]
        # Of the log's end alone.
        newest = max((path for path, kind, _ in found if kind == HEAD), default=None)
        found = [(path, kind, where) for path, kind, where in found if kind != HEAD or path == newest]
        effects.check(found, f"node {node.number} has no log to damage")
        path, kind, where = self.chance.choice(found)
        at, log_bytes = self.chance.choice(where), (node.directory / node.log_name).stat().st_size
        before, after = flip_bit(path, at, self.chance.randrange(8))
        return Flip(node, path, at, before, after, log_bytes, f"node {node.number}, {kind} at byte {at} of {path.name}")

    def judge_flip(self, flip):
        log = (flip.node.directory / flip.node.log_name).read_bytes()[flip.log_bytes :].decode(errors="replace")
        now = None
        if flip.path.exists():
            now = flip.path.read_bytes()[flip.at : flip.at + 1][0]
        said = noticed(int(flip.path.stem), flip.at, flip.before, now, log.splitlines())
        return effects.flipped(flip.what, flip.before, flip.after, said)
