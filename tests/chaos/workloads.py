"""The workloads by name: which clients each of them has. `mixed` has those of all others, fewer of each.

May not know: processes, faults.
"""

import dataclasses

QUEUE, GROUP, OFFSETS, METADATA, MIXED = "queue", "group", "offsets", "metadata", "mixed"
RANGE, COOPERATIVE = "range", "cooperative-sticky"
# What each is for, as the page and the help say it.
MEANINGS = {
    QUEUE: "producers, and consumers that assign themselves all partitions and read them from the beginning",
    GROUP: "producers, and two consumer groups, one with each way to rebalance",
    OFFSETS: "clients without membership commit and fetch the offsets of many groups",
    METADATA: "topics are made, altered, given more partitions, deleted and made again; every node is asked what it shows",
    MIXED: "all of these at once",
}
# The first number of a group whose offsets are only kept; members' groups are below.
KEPT_FROM = 100
GROUPS_A_KEEPER = 4


@dataclasses.dataclass(frozen=True)
class Plan:
    """How many of each. `strategies`: one for each group of members, "any" for one that the seed chooses."""

    producers: bool = False
    strategies: tuple = ()
    members: int = 0
    readers: int = 0
    keepers: int = 0
    admins: int = 0

    def roles(self):
        """Of every client: by this name it is killed and replaced."""
        members = [f"member-{group}-{n}" for group in range(len(self.strategies)) for n in range(self.members)]
        others = [(self.readers, "reader"), (self.keepers, "keepers"), (self.admins, "admin")]
        rest = [f"{name}-{n}" for count, name in others for n in range(count)]
        return (["patient", "hasty"] if self.producers else []) + members + rest

    def member_groups(self):
        return range(len(self.strategies))

    def kept_groups(self, keepers=None):
        """Of all keepers, or of one by its number."""
        chosen = range(self.keepers) if keepers is None else [keepers]
        return [KEPT_FROM + keeper * GROUPS_A_KEEPER + n for keeper in chosen for n in range(GROUPS_A_KEEPER)]


PLANS = {
    QUEUE: Plan(producers=True, readers=3),
    GROUP: Plan(producers=True, strategies=(RANGE, COOPERATIVE), members=3),
    OFFSETS: Plan(keepers=3),
    METADATA: Plan(admins=3),
    MIXED: Plan(producers=True, strategies=("any",), members=3, readers=1, keepers=1, admins=1),
}
