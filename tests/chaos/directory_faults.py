"""Moves between data directories, for `Nemesis`: each node has two, and all that it has in one of them moves to the other while the workload runs.

May not know: clients.
"""

import json

import effects
import wire
from network import CLIENTS
from nodes import KAFKA_PORT, MOVE_SECONDS_MAX, until


class DirectoryFaults:
    DIRECTORY_KINDS = ("directory",)

    def equip_directories(self):
        """Before any node starts, and when each has the disk that it is to have."""
        for node in self.all_nodes():
            node.take_second_directory()

    def directory(self):
        node = self.any_node()
        # The identity of each, to its path.
        paths = {json.loads((path / "node.json").read_text())["directory_id"]: path for path in node.directories}
        before = self.held(node)
        target = min(paths, key=list(before.values()).count)
        yield f"what {self.title(node)} has is moved to its directory {paths[target].name}"
        until("all is in that directory, and nowhere else", lambda: self.is_moved(node, target, paths[target]), MOVE_SECONDS_MAX)
        self.lasts(1, 3)
        self.measured(effects.moved_within(before, self.held(node), target))

    def held(self, node):
        """The shards with partitions that the node has a replica of, and the directory; None where it has two replicas of one."""
        held = {}
        for number, shard in self.shards(node).items():
            here = [replica["directory"] for replica in shard["replicas"] if replica["node"] == node.number]
            if here and shard["partitions"]:
                held[number] = here[0] if len(here) == 1 else None
        return held

    def is_moved(self, node, target, path):
        """Asks for the move, also again: right after another fault it may be refused, and shards are split or moved meanwhile."""
        if all(place == target for place in self.held(node).values()):
            return True
        address = (self.network.addresses[node.number], KAFKA_PORT)
        try:
            with self.network.inside(CLIENTS):
                shown = wire.metadata(address)
                here = {
                    name: [index for index, part in topic.parts.items() if node.number in part.replicas]
                    for name, topic in shown.topics.items()
                }
                wire.move_to_directory(address, str(path), {name: parts for name, parts in here.items() if parts}, MOVE_SECONDS_MAX)
        except OSError:
            pass
        return False
