"""The compacted topic: its settings, which key each of its records has, and what compaction has removed, by a journal (`history.py` has the lines).

A record's key, and whether it is a tombstone, follow from its value, as its bytes do (`journal.py`), so journals do not say them. That whoever reads the
whole topic finds the latest record of each key is a law of the checker, compaction-latest. May not know: faults, how clients are run.
"""

import hashlib

import transactions
from places import COMPACT, suffix_of

# How long a tombstone stays. A reading that takes longer may have been given a record and not its tombstone, so it is no history of ours; half of the
# time is left for clocks. Short enough for tombstones to go within a run of some minutes.
DELETE_RETENTION_SECONDS, READING_SECONDS_MAX = 60, 30
SETTINGS = {
    "cleanup.policy": "compact",
    "min.cleanable.dirty.ratio": "0.01",
    "delete.retention.ms": str(DELETE_RETENTION_SECONDS * 1000),
    # What is younger may be spared.
    "segment.ms": "1000",
}
# Keys of a level are written half as often as those of the level before: at a hundred records a second to a partition, those of the last one once in three
# minutes. So some tombstones stay the latest record of their key for longer than the retention.
LEVELS, KEYS_A_LEVEL = 12, 4
TOMBSTONE_ONE_IN = 4


def is_compacted(number):
    """Whether the partition with this number is."""
    return suffix_of(number) == COMPACT


def bits_of(value):
    """Sixty-four bits that follow from a value, each as good as any other."""
    return int.from_bytes(hashlib.blake2b(b"%d" % value, digest_size=8).digest())


def key_of(value):
    bits = bits_of(value)
    level = next((level for level in range(LEVELS) if bits >> level & 1), LEVELS)
    return level * KEYS_A_LEVEL + (bits >> LEVELS) % KEYS_A_LEVEL


def is_tombstone(value):
    return (bits_of(value) >> 32) % TOMBSTONE_ONE_IN == 0


def is_judged(line):
    """Whether a full read is one that the law holds for."""
    partitions = [partition for partition, _ in line["ends"]]
    return line["t"] - line["begun"] <= READING_SECONDS_MAX * 1_000_000_000 or not any(map(is_compacted, partitions))


def acknowledged(journal):
    """(partition, offset, value) of all records in compacted partitions that are certainly there, or were."""
    sent = {}
    for line in journal:
        if line["do"] == "send":
            sent[line["client"]] = line["records"]
        elif line["do"] == "sent":
            told = zip(sent.pop(line["client"]), line["results"])
            yield from ((partition, offset, value) for (partition, value), (offset, _) in told if offset is not None and is_compacted(partition))
    for one in transactions.of_journal(journal):
        known = one.writes if one.told == transactions.COMMITTED else []
        yield from ((write.partition, write.offset, write.value) for write in known if write.offset is not None and is_compacted(write.partition))


def full_reads(journal):
    """Readings of compacted partitions, in their order."""
    return [line for line in journal if line["do"] == "read" and any(is_compacted(partition) for partition, _ in line["ends"])]


def counts(journal):
    """By name: readings of clients and of the observer that are judged, and that took too long; acknowledged records that the last reading could find,
    those that it did not; and tombstones among these that were the last record of their key, which nothing but their age removes."""
    reads, last = full_reads(journal), {}
    judged = [line for line in reads if is_judged(line)]
    found = {"reads": sum("role" in line for line in judged), "observed": sum("role" not in line for line in judged), "late": len(reads) - len(judged)}
    if not judged:
        return {**found, "records": 0, "gone": 0, "tombstones": 0}
    ends, there = dict(judged[-1]["ends"]), list(judged[-1]["records"])
    known = [record for record in acknowledged(journal) if record[1] < ends.get(record[0], 0)]
    for partition, offset, value in [*known, *map(tuple, there)]:
        key = partition, key_of(value)
        last[key] = max((offset, value), last.get(key, (offset, value)))
    values = {(partition, value) for partition, _, value in there}
    gone = [record for record in known if (record[0], record[2]) not in values]
    aged = sum(is_tombstone(value) and last[partition, key_of(value)] == (offset, value) for partition, offset, value in gone)
    return {**found, "records": len(known), "gone": len(gone), "tombstones": aged}
