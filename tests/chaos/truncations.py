"""What clients were told of truncated logs, asked of the leaders once more (KIP-320).

librdkafka compares the end of an epoch with where it reads by the time of the answer, which may be in a newer epoch than it asked for: it then reports a
truncation that never was. The report is refuted if the leader still has the epoch in which the client read, up to where it read.
May not know: faults, the verdict.
"""

import re

import wire
from places import place

CLAIM = re.compile(r"truncation detected at offset (\d+) \(leader epoch (\d+)\)")


def claim(line):
    """The epoch and the offset up to which a client has read what it takes for truncated; None if a line of the journal says nothing of the kind."""
    found = CLAIM.search(line["why"]) if line["do"] == "error" else None
    return found and (int(found[2]), int(found[1]))


def is_refuted(claimed, end):
    """`end`: the epoch and the offset that a leader answers for the claimed epoch."""
    return end[0] == claimed[0] and end[1] >= claimed[1]


def look(journal, topic, bootstrap):
    """Notes in the journal which reports are refuted. Raises OSError where no leader answers."""
    for line, claimed in [(line, claim(line)) for line in journal]:
        if not claimed:
            continue
        name, partition = place(topic, line["partition"])
        shown = wire.first_answer(bootstrap, [name])
        leader = shown.nodes.get(shown.topics[name].parts[partition].leader)
        if leader is None:
            raise OSError(f"{name}-{partition} has no leader")
        end = wire.epoch_end(leader, name, partition, claimed[0])
        if is_refuted(claimed, end):
            line["refuted"] = end
