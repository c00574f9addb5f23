#!/usr/bin/env python3
"""Makes a run that was kept into one that is not valid, to see what the judge and the page say then.

Usage: tests/chaos/falsify.py DIRECTORY NEW_DIRECTORY [--kind KIND] [--judge JUDGE]. KIND is what the broker is made to have forgotten:

  record       an acknowledged record: polls and reads go on with the record behind it (workloads queue, group, mixed)
  transaction  one of several records of a committed transaction (txn, mixed)
  offset       the last commits of a group: at the end it has what was committed before (offsets, mixed)
  latest       the latest record of a key of the compacted topic, at the end (compaction, mixed)
  topic        an acknowledged topic: at the end one node shows none (metadata, mixed)

Without one: the first of them that the run's workload has. NEW_DIRECTORY gets the journal, the history, the verdict and the page, which says
that it was falsified.
"""

import argparse
import pathlib
import shutil

import compacted
import history
import page
import topics
import transactions
import workloads
from page import recorded
from places import PLAIN

OBSERVER = 0


def lost(journal):
    """(partition, offset, value) of an acknowledged record from the middle of the run; in its partition others follow it."""
    sent, found, ends = {}, [], {}
    for line in journal:
        if line["do"] == "send":
            sent[line["client"]] = line["records"]
        elif line["do"] == "sent":
            records = sent.pop(line["client"])
            known = [(partition, offset, value) for (partition, value), (offset, _) in zip(records, line["results"]) if offset is not None]
            found += [record for record in known if not compacted.is_compacted(record[0])]
    for partition, offset, _ in found:
        ends[partition] = max(offset, ends.get(partition, 0))
    middle = len(found) // 2
    return next(one for one in found[middle:] + found[:middle] if one[1] < ends[one[0]])


def without(journal, value):
    for line in journal:
        if line["do"] in ("poll", "read"):
            line["records"] = [record for record in line["records"] if record[2] != value]
    return journal


def without_record(journal):
    partition, offset, value = lost(journal)
    without(journal, value)
    return f"record {value}, acknowledged at offset {offset} of partition {partition}, was taken out of everything that was read"


def without_half(journal):
    done = [one for one in transactions.of_journal(journal) if one.told == transactions.COMMITTED and len(one.writes) > 1]
    one = done[len(done) // 2]
    write = one.writes[0]
    for line in without(journal, write.value):
        if line["do"] == "begin" and "polled" in line:
            line["polled"] = [record for record in line["polled"] if record[2] != write.value]
    return f"record {write.value} of partition {write.partition}, one of {len(one.writes)} of a transaction, was taken out of everything that was read"


def without_commits(journal):
    """What the observer fetched last of a group that has no members is what was committed there first."""
    line = next(line for line in reversed(journal) if line["do"] == "fetched" and line["client"] == OBSERVER and line["group"] >= workloads.KEPT_FROM)
    known, open_commits = {}, {}
    for one in journal:
        if one.get("group") != line["group"]:
            continue
        if one["do"] == "commit":
            open_commits[one["client"]] = dict(one["offsets"])
        elif one["do"] == "committed":
            for partition in one["partitions"]:
                known.setdefault(partition, []).append(open_commits[one["client"]][partition])
    partition = next(partition for partition, offsets in sorted(known.items()) if len(offsets) > 1)
    line["offsets"] = [[p, known[p][0] if p == partition else offset] for p, offset in line["offsets"]]
    return f"the last fetch of group {line['group']} was made to answer {known[partition][0]} for partition {partition}, an older commit"


def without_latest(journal):
    """The last reading of the compacted topic has nothing of one key, whose last record is no tombstone."""
    line, latest = compacted.full_reads(journal)[-1], {}
    for partition, offset, value in line["records"]:
        latest[partition, compacted.key_of(value)] = (offset, value)
    (partition, key), (offset, value) = next(one for one in sorted(latest.items()) if not compacted.is_tombstone(one[1][1]))
    line["records"] = [record for record in line["records"] if (record[0], compacted.key_of(record[2])) != (partition, key)]
    return f"record {value} at offset {offset} of partition {partition}, the latest of key {key}, was taken out of what the observer read last"


def without_topic(journal):
    line = next(line for line in reversed(journal) if line.get("settled"))
    surely = {name for name, done in topics.changes(journal).items() if topics.GONE not in topics.possible(done)}
    shown = next(one for one in line["topics"] if one[0] in surely)
    shown[1:] = [None, None, None]
    return f"topic {shown[0]} was taken out of what node {line['node']} showed in the end"


KINDS = {"record": without_record, "transaction": without_half, "offset": without_commits, "latest": without_latest, "topic": without_topic}


def kind_of(run):
    plan = workloads.PLANS[run.facts.get("workload", workloads.GROUP)]
    has = {"record": PLAIN in plan.producers, "latest": plan.rereaders, "transaction": plan.transactors, "offset": plan.keepers, "topic": plan.admins}
    return next(kind for kind, is_there in has.items() if is_there)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=pathlib.Path, metavar="DIRECTORY")
    parser.add_argument("target", type=pathlib.Path, metavar="NEW_DIRECTORY")
    parser.add_argument("--kind", choices=list(KINDS))
    parser.add_argument("--judge")
    given = parser.parse_args()
    run = recorded.load(given.source)
    what = KINDS[given.kind or kind_of(run)](run.journal)
    shutil.copytree(given.source, given.target)
    judged = history.judge(history.of_journal(run.journal), given.target / "history.jsonl", given.judge and [given.judge])
    note = f"This history was falsified by tests/chaos/falsify.py to show what a page says then: {what}. The cluster had not lost it."
    complaints = history.complaints(run.journal) + history.of_findings(judged)
    facts = {**run.facts, "outcome": "INVALID" if complaints else "valid", "judged": judged, "complaints": complaints, "note": note}
    falsified = recorded.Recorded(given.target, facts, run.journal)
    recorded.keep(falsified)
    print(f"{what}: {facts['outcome']}, {complaints[:2]}")
    print(page.write(falsified, given.target / page.NAME))


if __name__ == "__main__":
    main()
