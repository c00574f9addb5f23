"""Transactions as journals tell of them (`history.py` has the lines), and the promises about them that are no laws of the checker:

- A transaction is atomic: in the end a reader of committed data finds all of its records or none, and before its commit is asked for nobody finds one.
- A zombie is fenced: once a later producer of its transactional id is initialized, no commit that it asks for succeeds, and nothing that it writes
  is in any log, not even for readers of uncommitted data.
- Consume, transform, produce: in the end each committed record of the input has one committed record that was made of it, and only one.

What is known of a transaction's outcome: it is committed if that was acknowledged, aborted if that was, or if its commit was never asked for (a client
says so before it does), or only when it was a zombie already. Of any other nothing is known. May not know: faults, how clients are run.
"""

import collections
import dataclasses

from places import COMPACT, INPUT, OUTPUT, suffix_of

COMMITTED, ABORTED, FAILED, UNKNOWN = "committed", "aborted", "failed", "unknown"
# What a producer is told of which another one has taken the place, or whose transaction was open for too long.
FENCED = {"_FENCED", "PRODUCER_FENCED", "INVALID_PRODUCER_EPOCH"}


@dataclasses.dataclass
class Instance:
    """A producer from its initialization on."""

    client: int
    name: str
    begun: int
    initialized: int
    # Among those of its transactional id, where their order is known.
    epoch: int | None = None
    # When the first later one was initialized.
    fenced: float = float("inf")


@dataclasses.dataclass
class Write:
    partition: int
    value: int
    t: int
    # The place of the record that it is made of.
    source: tuple | None
    offset: int | None = None


@dataclasses.dataclass
class Transaction:
    client: int
    instance: Instance
    begun: int
    polled: list
    rebalanced: list
    writes: list = dataclasses.field(default_factory=list)
    # (group, partition, offset)
    offsets: list = dataclasses.field(default_factory=list)
    # When its commit was asked for.
    asked: int | None = None
    told: str | None = None
    # None: its client was killed.
    ended: int | None = None
    error: str | None = None

    def fate(self):
        if self.told == COMMITTED:
            return COMMITTED
        if self.told == ABORTED:
            return ABORTED
        return FAILED if self.asked is None or self.asked > self.instance.fenced else UNKNOWN


def instances(journal):
    """By client: its producers, in their order."""
    found, by_client = collections.defaultdict(list), collections.defaultdict(list)
    for line in journal:
        if line["do"] == "initialized":
            one = Instance(line["client"], line["name"], line["begun"], line["t"])
            found[one.name].append(one)
            by_client[one.client].append(one)
    for same in found.values():
        same.sort(key=lambda one: one.begun)
        for number, one in enumerate(same):
            later = [other for other in same if other.begun > one.initialized]
            one.fenced = min((other.initialized for other in later), default=one.fenced)
            # Which of two that were initialized at a time was the first is not known.
            others = [other for other in same if other is not one]
            if all(other.initialized < one.begun or other.begun > one.initialized for other in others):
                one.epoch = number
    return by_client


def of_journal(journal):
    """All transactions, in the order in which they began."""
    by_client, found, open_ones = instances(journal), [], {}
    for line in journal:
        client = line.get("client", 0)
        match line["do"]:
            case "begin":
                instance = next(one for one in reversed(by_client[client]) if one.initialized <= line["t"])
                begun = line.get("begun", line["t"])
                open_ones[client] = Transaction(client, instance, begun, line.get("polled", []), line.get("rebalanced", []))
                found.append(open_ones[client])
            case "write":
                sources = line["sources"] or [None] * len(line["records"])
                written = zip(line["records"], sources)
                open_ones[client].writes += [Write(p, v, line["t"], source and tuple(source)) for (p, v), source in written]
            case "offsets":
                open_ones[client].offsets += [(line["group"], partition, offset) for partition, offset in line["offsets"]]
            case "end" if line["commit"]:
                open_ones[client].asked = line["t"]
            case "done":
                one = open_ones.pop(client)
                one.told, one.ended, one.error = line["told"], line["t"], line["error"]
                for write, (offset, _) in zip(one.writes, line["results"]):
                    write.offset = offset
    return found


def final_reads(journal):
    """By partition, what readers of committed data found when all was over: one after the other, each a list of (offset, value)."""
    for line in journal:
        if line["do"] == "read" and line.get("settled") and not line.get("uncommitted"):
            found = {partition: [] for partition, _ in line["ends"]}
            for partition, offset, value in line["records"]:
                found[partition].append((offset, value))
            yield found


def said(one):
    return f"a transaction of {one.instance.name} (client {one.client}, t {one.begun}), {one.fate()}"


def torn(done, read):
    """Transactions of which a part is there. Of one that is compacted any part may be gone."""
    there = {(partition, value) for partition, records in read.items() for _, value in records}
    for one in done:
        known = [write for write in one.writes if write.partition in read and suffix_of(write.partition) != COMPACT]
        missing = [write for write in known if (write.partition, write.value) not in there]
        if missing and len(missing) < len(known):
            first = missing[0]
            yield f"half a transaction: of {said(one)}, {len(missing)} of {len(known)} records are not there, as {first.value} of partition {first.partition}"


def early(done, journal):
    """Records that a reader of committed data was given before the commit of their transaction was asked for."""
    writers = {(write.partition, write.value): one for one in done for write in one.writes if one.asked is not None}
    for line in journal:
        is_committed = line["do"] in ("poll", "read") and not line.get("uncommitted")
        records = line["records"] if is_committed else line.get("polled", []) if line["do"] == "begin" else []
        for partition, offset, value in records:
            if (one := writers.get((partition, value))) and one.asked > line["t"]:
                where = f"client {line['client']} read value {value} at offset {offset} of partition {partition} at {line['t']}"
                yield f"a record that was not committed yet: {where}, and {said(one)} asked for its commit at {one.asked}"


def zombies(done, seen):
    """`seen`: (partition, value) of everything that anybody has read."""
    for one in done:
        if one.told == COMMITTED and one.asked > one.instance.fenced:
            yield f"a zombie's commit: {said(one)}, which asked for it at {one.asked}, though a later producer was initialized at {one.instance.fenced}"
        for write in one.writes:
            if write.t > one.instance.fenced and (write.partition, write.value) in seen:
                yield f"a zombie's record: {write.value} of partition {write.partition}, in {said(one)}, though a later producer was initialized before"


def transformed(done, read):
    """Records of the input that were not processed exactly once."""
    sources = {(write.partition, write.value): write.source for one in done for write in one.writes if write.source}
    # Who reads only one of the topics knows nothing of this.
    if not {INPUT, OUTPUT} <= set(map(suffix_of, read)):
        return
    made = collections.defaultdict(list)
    for partition, records in read.items():
        for offset, value in records:
            if source := sources.get((partition, value)):
                made[source].append((partition, offset))
    for partition, records in sorted(read.items()):
        for offset, value in records if suffix_of(partition) == INPUT else ():
            found = made.get((partition, offset), [])
            if len(found) != 1:
                where = f": as {', '.join(f'partition {p} offset {o}' for p, o in found)}" if found else ""
                yield f"record {value} at offset {offset} of partition {partition} was processed {len(found)} times{where}"


def complaints(journal):
    done = of_journal(journal)
    if not done:
        return []
    seen = {(partition, value) for line in journal if line["do"] in ("poll", "read") for partition, _, value in line["records"]}
    found = [*early(done, journal), *zombies(done, seen)]
    for read in final_reads(journal):
        found += torn(done, read)
        found += transformed(done, read)
    # Each final read says the same again.
    return list(dict.fromkeys(found))


def counts(journal):
    """By name: transactions by what is known of them, producers that were fenced, records that were made of others and committed."""
    done = of_journal(journal)
    found = collections.Counter(one.fate() for one in done)
    made = sum(write.source is not None for one in done if one.fate() == COMMITTED for write in one.writes)
    fenced = sum(one.error in FENCED for one in done)
    return {"committed": found[COMMITTED], "aborted": found[ABORTED] + found[FAILED], "unknown": found[UNKNOWN], "fenced": fenced, "transformed": made}
