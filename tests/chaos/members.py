"""Changes of members, for `Nemesis`: a further node joins while the workload runs, takes replicas, and is unregistered again.

`replace` in `nemesis.py` is the other change: an empty disk under the same node id. May not know: clients.
"""

import subprocess

import effects
from nodes import KAFKA_PORT, MOVE_SECONDS_MAX, Node, until

JOIN_SECONDS_MAX = 60
UNREGISTERED = "this node was unregistered"


class MemberFaults:
    MEMBER_KINDS = ("join",)

    def equip_members(self, directory, number, seeds):
        """A further node, which does not run yet."""
        self.spare = Node(self.newer, directory / f"node-{number}", self.network, number, seeds)

    def command(self, node, *words, seconds=MOVE_SECONDS_MAX):
        """A command of an operator's at a node; gives what it printed."""
        words = [*self.network.command(node.number), self.newer, *words]
        done = subprocess.run(words, capture_output=True, text=True, timeout=seconds)
        if done.returncode != 0:
            raise AssertionError(f"{' '.join(words[5:])}: {(done.stdout + done.stderr).strip()}")
        return done.stdout

    def join(self):
        node, drained, count = self.spare, self.any_node(), len(self.nodes)
        yield f"node {node.number} joins, takes what {self.title(drained)} has, and is unregistered"
        node.start()
        other = self.others(drained)[0]
        until(f"node {node.number} has joined", lambda: all(one.knows() == count + 1 for one in self.nodes), JOIN_SECONDS_MAX)
        most = other.knows()
        self.command(other, "node", "drain", str(drained.number), "--wait")
        until("its replicas vote", lambda: node.voters() is not None, MOVE_SECONDS_MAX)
        replicas = node.voters() or 0
        self.lasts(1, 3)
        self.command(other, "node", "undrain", str(drained.number))
        at = f"{self.network.addresses[other.number]}:{KAFKA_PORT}"
        self.command(other, "node", "remove", str(node.number), "-b", at)
        until(f"node {node.number} ends by itself", lambda: not node.is_alive(), MOVE_SECONDS_MAX)
        until(f"node {node.number} is forgotten", lambda: all(one.knows() == count for one in self.nodes), JOIN_SECONDS_MAX)
        until("every replica has caught up", lambda: all(one.voters() is not None for one in self.nodes), MOVE_SECONDS_MAX)
        was_told = UNREGISTERED in (node.directory / node.log_name).read_text(errors="replace")
        found = effects.joined(node.number, most, other.knows(), replicas, node.process.poll(), was_told)
        node.wipe()
        self.measured(found)
