"""The workloads by name: which clients each of them has. `mixed` has those of all others, fewer of each.

May not know: processes, faults.
"""

import dataclasses

from places import INPUT, OUTPUT, PLAIN

QUEUE, GROUP, OFFSETS, METADATA, TXN, MIXED = "queue", "group", "offsets", "metadata", "txn", "mixed"
RANGE, COOPERATIVE = "range", "cooperative-sticky"
# What each is for, as the page and the help say it.
MEANINGS = {
    QUEUE: "producers, and consumers that assign themselves all partitions and read them from the beginning",
    GROUP: "producers, and two consumer groups, one with each way to rebalance",
    OFFSETS: "clients without membership commit and fetch the offsets of many groups",
    METADATA: "topics are made, altered, given more partitions, deleted and made again; every node is asked what it shows",
    TXN: "transactions over several partitions, some aborted on purpose, some of consumers that write what they make of records; readers of each isolation level",
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

    producers: bool = False
    strategies: tuple = ()
    members: int = 0
    readers: int = 0
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
        others = [(self.readers, "reader"), (self.keepers, "keepers"), (self.admins, "admin")]
        others += [(self.transactors, TRANSACT), (self.transforms, TRANSFORM), (self.isolated, COMMITTED), (self.isolated, UNCOMMITTED)]
        rest = [f"{name}-{n}" for count, name in others for n in range(count)]
        return (["patient", "hasty"] if self.producers else []) + members + rest

    def member_groups(self):
        return range(len(self.strategies))

    def transform_groups(self):
        return [TRANSFORM_GROUP] if self.transforms else []

    def topics(self):
        """Those of the run, by what follows its name; faults act on the first."""
        is_plain = self.producers or self.keepers or self.admins
        return [PLAIN] * bool(is_plain) + [INPUT, OUTPUT] * bool(self.transactors)

    def has_records(self):
        return self.producers or self.transactors > 0

    def kept_groups(self, keepers=None):
        """Of all keepers, or of one by its number."""
        chosen = range(self.keepers) if keepers is None else [keepers]
        return [KEPT_FROM + keeper * GROUPS_A_KEEPER + n for keeper in chosen for n in range(GROUPS_A_KEEPER)]


PLANS = {
    QUEUE: Plan(producers=True, readers=3),
    GROUP: Plan(producers=True, strategies=(RANGE, COOPERATIVE), members=3),
    OFFSETS: Plan(keepers=3),
    METADATA: Plan(admins=3),
    TXN: Plan(transactors=3, transforms=3, isolated=2),
    MIXED: Plan(producers=True, strategies=("any",), members=3, readers=1, keepers=1, admins=1, transactors=1, transforms=1, isolated=1),
}
