"""Numbers over time from a journal: latencies, acknowledged records, records that no consumer has read yet. Plain values in, plain values out.

May not know: how any of it is drawn.
"""

import dataclasses
import itertools

from compacted import is_compacted

SEND, POLL, COMMIT, FETCH, READ, CHANGE, TXN = "send", "poll", "commit", "fetch", "read", "change", "txn"
# In the order in which they are drawn, and what each is.
KINDS = {
    SEND: "record sent, until its acknowledgement",
    POLL: "poll that returned records (waits up to 0.2 s for more)",
    COMMIT: "commit of offsets",
    FETCH: "committed offsets fetched",
    READ: "everything read from the beginning",
    CHANGE: "topic made, altered or deleted",
    TXN: "transaction, from its beginning until its outcome",
}


@dataclasses.dataclass(frozen=True)
class Point:
    """One operation, a record for what is sent. `ended` is None if its client was killed before an answer came."""

    kind: str
    begun: int
    ended: int | None
    # Whether the client was told that it was done.
    done: bool = True


def points(journal):
    found, open_sends, open_commits, open_changes, open_transactions = [], {}, {}, {}, {}
    for line in journal:
        client = line.get("client", 0)
        match line["do"]:
            case "send":
                open_sends[client] = line
            case "sent":
                begun = open_sends.pop(client)["t"]
                found += [Point(SEND, begun, line["t"] if offset is None else t, offset is not None) for offset, t in line["results"]]
            case "commit":
                open_commits[client] = line
            case "committed":
                begun = open_commits.pop(client)
                done = len(line["partitions"]) == len(begun["offsets"])
                found.append(Point(COMMIT, begun["t"], line["t"], done))
            case "poll" if line["records"]:
                found.append(Point(POLL, line["begun"], line["t"]))
            case "fetched":
                found.append(Point(FETCH, line["begun"], line["t"]))
            case "read":
                found.append(Point(READ, line["begun"], line["t"]))
            case "change":
                open_changes[client] = line["t"]
            case "begin":
                open_transactions[client] = line["t"]
            case "done":
                found.append(Point(TXN, open_transactions.pop(client), line["t"], line["told"] is not None))
            case "changed":
                found.append(Point(CHANGE, open_changes.pop(client), line["t"], line["error"] is None))
    for line in open_sends.values():
        found += [Point(SEND, line["t"], None, False) for _ in line["records"]]
    found += [Point(COMMIT, line["t"], None, False) for line in open_commits.values()]
    found += [Point(CHANGE, t, None, False) for t in open_changes.values()]
    found += [Point(TXN, t, None, False) for t in open_transactions.values()]
    return found


def summary(found):
    """By kind: how many, how many of unknown outcome, how many without an answer, and median, 99th percentile and maximum in ns of those done."""
    rows = {}
    for kind in KINDS:
        own = [point for point in found if point.kind == kind]
        if not own:
            continue
        took = sorted(point.ended - point.begun for point in own if point.done)
        ranks = [took[int(len(took) * share)] for share in (0.5, 0.99)] + [took[-1]] if took else [None] * 3
        silent = sum(point.ended is None for point in own)
        rows[kind] = (len(own), sum(not point.done for point in own) - silent, silent, *ranks)
    return rows


def acknowledged(journal, is_meant=lambda partition: True):
    """(time, value) of each acknowledged record of the partitions that are meant; one of a transaction is with its commit."""
    found, sent, written = [], {}, {}
    for line in journal:
        if line["do"] == "send":
            sent[line["client"]] = line["records"]
        elif line["do"] == "sent":
            records = sent.pop(line["client"])
            found += [(t, value) for (partition, value), (offset, t) in zip(records, line["results"]) if offset is not None and is_meant(partition)]
        elif line["do"] == "begin":
            written[line["client"]] = []
        elif line["do"] == "write":
            written[line["client"]] += [value for partition, value in line["records"] if is_meant(partition)]
        elif line["do"] == "done" and line["told"] == "committed":
            found += [(line["t"], value) for value in written.pop(line["client"])]
    return found


def first_seen(journal):
    """When a consumer first had a record, by its value; who reads what is not committed is not meant."""
    seen = {}
    for line in journal:
        if line["do"] in ("poll", "read") and not line.get("uncommitted"):
            for _, _, value in line["records"]:
                seen[value] = min(line["t"], seen.get(value, line["t"]))
    return seen


def unseen(journal):
    """(time, how many acknowledged records nobody had read then), at each change; and how many were never read. Of a compacted partition many never are."""
    seen, changes, never = first_seen(journal), [], 0
    for t, value in acknowledged(journal, lambda partition: not is_compacted(partition)):
        read_at = seen.get(value)
        never += read_at is None
        if read_at is None or read_at > t:
            changes.append((t, 1))
        if read_at is not None and read_at > t:
            changes.append((read_at, -1))
    changes.sort()
    counts = itertools.accumulate(change for _, change in changes)
    return list(zip((t for t, _ in changes), counts)), never


def per_second(seconds, duration):
    """How many of these moments lie in each second since the start."""
    counts = [0] * (int(duration) + 1)
    for moment in seconds:
        counts[min(max(int(moment), 0), len(counts) - 1)] += 1
    return counts


def thinned(steps, duration, columns):
    """At most so many steps over the time: of those that fall together the greatest, so that no peak is lost, and the last at the end."""
    peaks = {}
    for moment, value in steps:
        column = min(max(int(moment / duration * columns), 0), columns - 1)
        peaks[column] = max(value, peaks.get(column, value))
    # Between two changes the value stays what the last change made of it, which is not the peak of its column.
    last = {min(max(int(moment / duration * columns), 0), columns - 1): value for moment, value in steps}
    found = []
    for column, peak in sorted(peaks.items()):
        found.append((column * duration / columns, peak))
        if last[column] != peak and column + 1 not in peaks:
            found.append(((column + 1) * duration / columns, last[column]))
    return found
