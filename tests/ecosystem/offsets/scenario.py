"""`__consumer_offsets` as other people's tools read it from its beginning: what groups committed last, and nothing else.

Groups commit while nodes are killed, and stop; only then are the tools started, so that the log alone tells them. They read it once it is
compacted, and again after every node was restarted. Tools from before Kafka 4.1 do not know the version (4) in which a coordinator of Kafka
4 writes a commit, so that on Kafka and here they see the groups whose client gave a retention time, and no other; Kafka's own tool sees
all. May not know: how a tool is built, how a node compacts.
"""

import json
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.append(str(HERE))
import readers
from commits import InTransactions, Steady
from committed import create_topics, differences
from compaction import Stored, compact_early, compact_often, until_compacted
from harness import install_python
from readers import Exporter, Formatter, Kommitted

TOPICS = {"orders": 3, "payments": 2}
CURRENT, TRANSACTIONAL, DELETED = ["current-1", "current-2"], "transactional", "deleted"
EXPLICIT = ["explicit-1", "explicit-2"]
COMMITS, COMMITS_QUICK = 150, 30
COMMITS_SECONDS_MAX = 120
# Beside the last commit of a group for each partition: memberships of groups, tools' own, markers, and what is not due yet.
OTHERS_MAX = 60


class Explicit:
    """Groups in a process of its own: their client is older than the one of the others."""

    def __init__(self, place, groups):
        words = [readers.PYTHON, str(HERE / "members.py"), place.bootstrap, ",".join(TOPICS), *groups]
        self.process = place.program("members", words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        # While it connects for the first time its client does not bear that a node is killed.
        self.line()

    def line(self):
        line = self.process.stdout.readline()
        assert line, f"members.py ended with exit code {self.process.wait()}"
        return line

    def end(self):
        """Ends the commits, not the members."""
        self.process.stdin.write("end\n")
        self.process.stdin.flush()
        found = {}
        for group, offsets in json.loads(self.line()).items():
            for partition, offset in offsets.items():
                topic, number = partition.rsplit("/", 1)
                found[group, topic, int(number)] = offset
        return found


class Groups:
    """All of them, and what they committed last: {(group, topic, partition): offset}."""

    def __init__(self, place):
        self.place = place
        for topic, partitions in TOPICS.items():
            self.admin = create_topics(place.bootstrap, partitions, place.nodes, topic)
        every = [(topic, partition) for topic, partitions in TOPICS.items() for partition in range(partitions)]
        self.transactional = InTransactions(place.bootstrap, TRANSACTIONAL, every)
        self.deleted = Steady(place.bootstrap, DELETED, every)
        self.current = [Steady(place.bootstrap, name, every) for name in CURRENT]
        self.explicit = Explicit(place, EXPLICIT)
        self.commits = 0

    def go_on(self, by):
        due = {group: group.count + by for group in [*self.current, self.deleted]}

        def behind():
            return {group.name: (count - group.count, group.refused[-3:]) for group, count in due.items() if group.count < count}

        try:
            self.place.until(lambda: not behind(), COMMITS_SECONDS_MAX, f"{by} more commits of each group")
        except AssertionError as failure:
            raise AssertionError(f"{failure}; how many are missing of each, and what it was told last: {behind()}") from failure
        self.transactional.go_on(by)

    def end(self):
        """What tools before Kafka 4.1 have to see, and what is there beside it."""
        old, now, gone = self.explicit.end(), self.transactional.end(), self.deleted.end()
        for group in self.current:
            now |= group.end()
        for future in self.admin.delete_consumer_groups([DELETED]).values():
            future.result(60)
        # Each is one record a partition, and its offset one more than that of the commit before.
        self.commits = sum(offset - partition for offsets in (old, now, gone) for (_, _, partition), offset in offsets.items())
        return old, now


def by_exporter(place, old, now):
    """What Kafka's own tool and the exporter are to say, and what they do."""
    yield "Kafka's formatter", {**old, **now}, Formatter(place).offsets()
    yield "the exporter", old, Exporter(place).offsets(Stored(place.bootstrap, readers.TOPIC).ends())


def by_kommitted(place, old, now):
    yield "kommitted", old, Kommitted(place).offsets(old)


def judge(place, when, told):
    for tool, wanted, found in told:
        wrong = differences(found, wanted)
        assert not wrong, f"{when}, {tool}: {len(wrong)} of {len(wanted)} offsets are wrong (which, found, committed): {sorted(wrong)[:5]}"
        place.say(f"{when}, {tool} says the {len(wanted)} offsets that were committed")


def offsets(place, tools):
    """`tools(place, old, now)`: each is begun, reads, and ends."""
    install_python("offsets", "the exporter")
    compact_often(place)
    groups = Groups(place)
    # The markers of transactions stay for a day: with Kafka's ratio of a half as many bytes as they have would stay uncompacted beside them.
    compact_early(place.bootstrap, readers.TOPIC)
    by = COMMITS_QUICK if place.quick else COMMITS
    for number in range(1, (1 if place.quick else place.nodes) + 1):
        groups.go_on(by)
        place.kill(number)
    groups.go_on(by)
    old, now = groups.end()
    compacted = until_compacted(place, readers.TOPIC, len(old) + len(now) + OTHERS_MAX)
    judge(place, "compacted", tools(place, old, now))
    for number in range(1, place.nodes + 1):
        place.kill(number)
        place.restart(number)
    judge(place, "after every node was killed and restarted", tools(place, old, now))
    by_whom = f"{len(old)} offsets of clients with a retention time and {len(now)} of others, as each tool has to see them"
    aborts = f"{groups.transactional.aborted} transactions aborted"
    committed = f"{groups.commits} offsets committed by {len(CURRENT) + len(EXPLICIT) + 2} groups"
    return f"{committed}, {compacted}; {by_whom}; {aborts}; {place.kills} kills of nodes"


def with_kommitted(place):
    readers.install_kommitted()
    return offsets(place, by_kommitted)


SCENARIOS = {"offsets-exporter": lambda place: offsets(place, by_exporter), "offsets-kommitted": with_kommitted}
