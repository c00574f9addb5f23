"""Splits and merges of shards, for `Nemesis`: shards that carry partitions of the topic are split, and merged again, one after the
other, while the workload runs; or the topic asks for a number of shards, or for as many as its load needs, and the cluster does it.

May not know: clients.
"""

import json

import effects
from nodes import KAFKA_PORT, until

SPLIT_SECONDS_MAX = 60
SPLITS_MAX = 3
MERGES_MAX = 3
MERGE_SECONDS_MAX = 90
RESIZE_SECONDS_MAX = 180
RESIZED_SHARDS_MAX = 4
# Far below what any workload sends: each partition gets a shard of its own.
ON_DEMAND_ROOM_BYTES = 1024
SHARD_COUNT, SHARD_MODE, SHARD_ROOM = "ottla.shard.count", "ottla.shard.mode", "ottla.shard.bytes.per.second"
# Every group costs the machine; a run has nodes by the day.
SHARDS_MAX = 40


class SplitFaults:
    SPLIT_KINDS = ("split", "merge", "resize")

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
            if not self.side_by_side(node, self.shards(node)):
                child = until("a shard may be split", lambda: self.asked(node), SPLIT_SECONDS_MAX)
                self.carried_out(node, child)
            merging, refused = {}, []
            try:
                absorbed = until("a shard is merged into another one", lambda: self.is_merged(node, merging, refused), MERGE_SECONDS_MAX)
            except AssertionError as error:
                raise AssertionError(f"{error}; asked for {merging}, {len(refused)} times refused, at last: {refused[-1:]}") from error
            merged[absorbed] = merging[absorbed]
        self.lasts(1, 3)
        self.measured(effects.merged(self.shards(node), merged))

    def side_by_side(self, node, shards):
        """Of these shards, pairs of one that was split off, and another one of its kind on the same nodes."""
        # What is carried and where.
        places = lambda shard: {(shard["kind"], replica["node"], replica["directory"]) for replica in shard["replicas"]}

        def was_split(number):
            # It may have been merged away meanwhile.
            found = node.page(f"/v1/shards/{number}")
            return found and json.loads(found)["split"]

        return [
            (absorbed, survivor)
            for absorbed in shards
            for survivor in shards
            if absorbed != survivor and places(shards[absorbed]) == places(shards[survivor]) and was_split(absorbed)
        ]

    def is_merged(self, node, merging, refused):
        """Asks for a merge, also again: one that cannot be begun is cancelled by the shard, and the balancer may move one of the two
        away before it is asked for. `merging`: the shards that were to be absorbed, and how many partitions each carried; `refused`: what
        was said to the others. Gives the one that is gone, or None."""
        shards = self.shards(node)
        gone = [absorbed for absorbed in merging if absorbed not in shards]
        if gone:
            return gone[0]
        pairs = self.side_by_side(node, shards)
        # The same one again as long as it can be: it may be under way.
        pairs = [pair for pair in pairs if pair[0] in merging] or pairs
        if not pairs:
            # The only pair there was is none any more: one of it was moved or merged away.
            child = self.asked(node)
            if child is not None:
                self.carried_out(node, child)
            return None
        absorbed, survivor = self.chance.choice(pairs)
        # When it has been taken over it is still listed for a moment, and carries nothing.
        merging[absorbed] = max(shards[absorbed]["partitions"], merging.get(absorbed, 0))
        try:
            self.command(node, "shard", "merge", str(absorbed), "--into", str(survivor))
        except AssertionError as error:
            # It is under way, or refused right after another fault.
            refused.append(str(error))
        return None

    def resize(self):
        node = self.any_node()
        before = self.own(node)
        by_load = self.chance.random() < 0.5 and len(before) <= RESIZED_SHARDS_MAX
        # Either more than there are or fewer, so that something has to be done.
        wanted = self.chance.choice([count for count in range(RESIZED_SHARDS_MAX + 1) if count != len(before)])
        yield f"topic {self.topic} has {len(before)} shards of its own, and asks for {'what its load needs' if by_load else wanted}"
        try:
            if by_load:
                self.configure(node, "--set", f"{SHARD_ROOM}={ON_DEMAND_ROOM_BYTES}", "--set", f"{SHARD_MODE}=on-demand")
                # Nothing is needed where no client writes.
                self.shows("the topic has more shards", lambda: len(self.own(node)) > len(before), RESIZE_SECONDS_MAX)
            else:
                self.configure(node, "--set", f"{SHARD_COUNT}={wanted}")
                until("the topic has the shards that it asks for", lambda: len(self.own(node)) == wanted, RESIZE_SECONDS_MAX)
            self.lasts(1, 3)
            self.measured(effects.resized(before, self.own(node)))
        finally:
            # Shards stay as they are from then on, for the other kinds.
            self.configure(node, "--delete", SHARD_MODE, "--delete", SHARD_COUNT, "--delete", SHARD_ROOM)

    def configure(self, node, *edits):
        """Settings of the topic, also again: right after another fault there may be no controller."""
        command = ["topic", "alter", self.topic, *edits, "-b", f"{self.network.addresses[node.number]}:{KAFKA_PORT}"]

        def is_done():
            try:
                self.command(node, *command)
            except AssertionError:
                return False
            return True

        until("the topic is altered", is_done, RESIZE_SECONDS_MAX)

    def own(self, node):
        """The topic's own shards, with the number of partitions of each."""
        pinned = [number for number, shard in self.shards(node).items() if shard["pinned"] and shard["partitions"]]
        pages = {number: json.loads(node.page(f"/v1/shards/{number}") or "{}") for number in pinned}
        carried = {number: [topic["name"] for topic in page.get("topics", [])] for number, page in pages.items()}
        return {number: pages[number]["partitions"] for number, names in carried.items() if names == [self.topic]}
