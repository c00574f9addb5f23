"""The workloads by name: which clients each of them has. `mixed` has those of all others, fewer of each.

May not know: processes, faults.
"""

import dataclasses

from places import COMPACT, INPUT, OUTPUT, PARTITION_FROM, PLAIN

QUEUE, GROUP, OFFSETS, METADATA, TXN, COMPACTION, MIXED = "queue", "group", "offsets", "metadata", "txn", "compaction", "mixed"
RANGE, COOPERATIVE = "range", "cooperative-sticky"
# What each is for, as the page and the help say it.
MEANINGS = {
    QUEUE: "producers, and consumers that assign themselves all partitions and read them from the beginning",
    GROUP: "producers, and two consumer groups, one with each way to rebalance",
    OFFSETS: "clients without membership commit and fetch the offsets of many groups",
    METADATA: "topics are made, altered, given more partitions, deleted and made again; every node is asked what it shows",
    TXN: "transactions over several partitions, some aborted on purpose, some of consumers that write what they make of records; readers of each isolation level",
    COMPACTION: "producers of records with keys and of tombstones, some in transactions; readers of the whole compacted topic, again and again",
    MIXED: "all of these at once",
}
# The group of those that transform, and the first number of a group whose offsets are only kept; members' groups are below.
TRANSFORM_GROUP, KEPT_FROM = 50, 100
GROUPS_A_KEEPER = 4
# Names of roles, without their number: producers of transactions, those that transform what these have written, and readers of each isolation level.
TRANSACT, TRANSFORM, COMMITTED, UNCOMMITTED = "transact", "transform", "committed", "uncommitted"


@dataclasses.dataclass(frozen=True)
class Plan:
    """How many of each. `strategies`: one for each group of members, "any" for one that the seed chooses."""

    # The topics of those that produce outside of transactions, and of those in transactions.
    producers: tuple = ()
    transacted: tuple = (INPUT,)
    strategies: tuple = ()
    members: int = 0
    readers: int = 0
    rereaders: int = 0
    keepers: int = 0
    admins: int = 0
    transactors: int = 0
    transforms: int = 0
    # Of each isolation level.
    isolated: int = 0

    def without_transactions(self):
        return dataclasses.replace(self, transactors=0, transforms=0, isolated=0)

    def roles(self):
        """Of every client: by this name it is killed and replaced."""
        members = [f"member-{group}-{n}" for group in range(len(self.strategies)) for n in range(self.members)]
        others = [(self.readers, "reader"), (self.rereaders, "rereader"), (self.keepers, "keepers"), (self.admins, "admin")]
        others += [(self.transactors, TRANSACT), (self.transforms, TRANSFORM), (self.isolated, COMMITTED), (self.isolated, UNCOMMITTED)]
        rest = [f"{name}-{n}" for count, name in others for n in range(count)]
        return (["patient", "hasty"] if self.producers else []) + members + rest

    def member_groups(self):
        return range(len(self.strategies))

    def transform_groups(self):
        return [TRANSFORM_GROUP] if self.transforms else []

    def topics(self):
        """Those of the run, by what follows its name; faults act on the first."""
        own = {*self.producers, *(self.transacted if self.transactors else ())}
        own |= {PLAIN} if self.keepers or self.admins else set()
        own |= {OUTPUT} if self.transforms else set()
        return [one for one in PARTITION_FROM if one in own]

    def has_records(self):
        return bool(self.producers or self.transactors)

    def proves_compaction(self):
        """Where compaction is one of many things it may not have begun: the cleaner of a cluster that is not the runner's pauses for 15 s, and
        one that begins with an older build compacts when its feature level is raised."""
        return self.producers == (COMPACT,)

    def kept_groups(self, keepers=None):
        """Of all keepers, or of one by its number."""
        chosen = range(self.keepers) if keepers is None else [keepers]
        return [KEPT_FROM + keeper * GROUPS_A_KEEPER + n for keeper in chosen for n in range(GROUPS_A_KEEPER)]


PLANS = {
    QUEUE: Plan(producers=(PLAIN,), readers=3),
    GROUP: Plan(producers=(PLAIN,), strategies=(RANGE, COOPERATIVE), members=3),
    OFFSETS: Plan(keepers=3),
    METADATA: Plan(admins=3),
    TXN: Plan(transactors=3, transforms=3, isolated=2),
    COMPACTION: Plan(producers=(COMPACT,), transacted=(COMPACT,), rereaders=2, transactors=2),
    MIXED: Plan(
        producers=(PLAIN, COMPACT), strategies=("any",), members=3, readers=1, rereaders=1, keepers=1, admins=1, transactors=1, transforms=1, isolated=1
    ),
}
