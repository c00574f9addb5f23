#!/usr/bin/env python3
"""Makes a run that was kept into one that is not valid, to see what the judge and the page say then.

Usage: tests/chaos/falsify.py DIRECTORY NEW_DIRECTORY [JUDGE]. Takes one acknowledged record out of everything that was read, as if the
broker had lost it: polls and reads go on with the record behind it. NEW_DIRECTORY gets the journal, the history, the verdict and the page,
which says that it was falsified.
"""

import pathlib
import shutil
import sys

import history
import page
from page import recorded


def lost(journal):
    """(partition, offset, value) of an acknowledged record from the middle of the run; in its partition others follow it."""
    sent, found, ends = {}, [], {}
    for line in journal:
        if line["do"] == "send":
            sent[line["client"]] = line["records"]
        elif line["do"] == "sent":
            records = sent.pop(line["client"])
            found += [(partition, offset, value) for (partition, value), (offset, _) in zip(records, line["results"]) if offset is not None]
    for partition, offset, _ in found:
        ends[partition] = max(offset, ends.get(partition, 0))
    middle = len(found) // 2
    return next(one for one in found[middle:] + found[:middle] if one[1] < ends[one[0]])


def without(journal, value):
    for line in journal:
        if line["do"] in ("poll", "read"):
            line["records"] = [record for record in line["records"] if record[2] != value]
    return journal


def main():
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    source, target = map(pathlib.Path, sys.argv[1:3])
    run = recorded.load(source)
    partition, offset, value = lost(run.journal)
    journal = without(run.journal, value)
    shutil.copytree(source, target)
    judged = history.judge(history.of_journal(journal), target / "history.jsonl", sys.argv[3:] or None)
    note = (
        f"This history was falsified by tests/chaos/falsify.py to show what a page says when a record is lost: record {value}, acknowledged at "
        f"offset {offset} of partition {partition}, was taken out of everything that was read. The cluster had not lost it."
    )
    complaints = history.complaints(journal) + history.of_findings(judged)
    facts = {**run.facts, "outcome": "INVALID", "judged": judged, "complaints": complaints, "note": note}
    falsified = recorded.Recorded(target, facts, journal)
    recorded.keep(falsified)
    print(page.write(falsified, target / page.NAME))


if __name__ == "__main__":
    main()
