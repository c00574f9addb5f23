"""Splits and merges of shards, for `Nemesis`: shards that carry partitions of the topic are split, and merged again, one after the
other, while the workload runs.

May not know: clients.
"""

import json

import effects
from nodes import until

SPLIT_SECONDS_MAX = 60
SPLITS_MAX = 3
MERGES_MAX = 3
MERGE_SECONDS_MAX = 90
# Every group costs the machine; a run has nodes by the day.
SHARDS_MAX = 40


class SplitFaults:
    SPLIT_KINDS = ("split", "merge")

    def shards(self, node):
        """The shards that carry partitions, by number, as a node knows them."""
        found = until("a node lists the shards", lambda: node.page("/v1/shards"))
        return {shard["id"]: shard for shard in json.loads(found)["shards"] if shard["id"] != 0}

    def split(self):
        node = self.any_node()
        yield f"node {node.number} is asked to split shards"
        before, split = self.shards(node), []
        for _ in range(SPLITS_MAX if len(before) < SHARDS_MAX else 0):
            # Right after another fault it may be refused: no leader, an answer that is lost, an earlier split that is not done.
            child = until("a shard may be split", lambda: self.asked(node), SPLIT_SECONDS_MAX)
            split.append(self.carried_out(node, child))
        self.lasts(1, 3)
        self.measured(effects.split(before, self.shards(node), split))

    def asked(self, node):
        """Asks for a split of some shard; gives the number of its child, or None if it is refused."""
        carrying = {number: shard["partitions"] for number, shard in self.shards(node).items() if shard["partitions"] > 0}
        parent = self.chance.choice(list(carrying))
        words = ["shard", "split", str(parent), "-o", "json"]
        if carrying[parent] == 1:
            # All that it carries becomes the child's.
            topics = json.loads(until("the shard is described", lambda: node.page(f"/v1/shards/{parent}")))["topics"]
            words += [word for topic in topics for at in topic["partitions"] for word in ("--partition", f"{topic['name']}:{at}")]
        try:
            return json.loads(self.command(node, *words))["child"]
        except AssertionError:
            return None

    def carried_out(self, node, child):
        """Waits until the child has what is its own, and a leader; gives its number."""

        def is_done():
            found = node.page(f"/v1/shards/{child}")
            page = found and json.loads(found)
            return page and page["split"]["done"] and page["leader"] is not None

        until(f"shard {child} is split off and led", is_done, SPLIT_SECONDS_MAX)
        return child

    def merge(self):
        node = self.any_node()
        yield f"node {node.number} is asked to merge shards"
        merged = {}
        for _ in range(MERGES_MAX):
            found = self.side_by_side(node)
            if found is None:
                child = until("a shard may be split", lambda: self.asked(node), SPLIT_SECONDS_MAX)
                self.carried_out(node, child)
                found = until("the shards lie side by side", lambda: self.side_by_side(node), SPLIT_SECONDS_MAX)
            absorbed, survivor = found
            merged[absorbed] = self.shards(node)[absorbed]["partitions"]
            until(f"shard {absorbed} is merged into shard {survivor}", lambda: self.is_merged(node, absorbed, survivor), MERGE_SECONDS_MAX)
        self.lasts(1, 3)
        self.measured(effects.merged(self.shards(node), merged))

    def side_by_side(self, node):
        """A shard that was split off, and another one of its kind on the same nodes, or None."""
        shards = self.shards(node)
        # What is carried and where.
        places = lambda shard: {(shard["kind"], replica["node"], replica["directory"]) for replica in shard["replicas"]}
        was_split = lambda number: json.loads(until("the shard is described", lambda: node.page(f"/v1/shards/{number}")))["split"]
        pairs = [
            (absorbed, survivor)
            for absorbed in shards
            for survivor in shards
            if absorbed != survivor and places(shards[absorbed]) == places(shards[survivor]) and was_split(absorbed)
        ]
        return self.chance.choice(pairs) if pairs else None

    def is_merged(self, node, absorbed, survivor):
        """Asks for it, also again: a merge that cannot be begun is cancelled by the shard. True once there is no such shard any more."""
        if absorbed not in self.shards(node):
            return True
        try:
            self.command(node, "shard", "merge", str(absorbed), "--into", str(survivor))
        except AssertionError:
            # It is under way, or refused right after another fault.
            pass
        return absorbed not in self.shards(node)
