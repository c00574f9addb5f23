"""The nemesis: faults. Each returns a line on what it did, and proves that it took effect: a fault without an effect proves nothing.

A fault ends with every node back; the runner checks that the cluster then serves. Faults follow each other, so that never more
than a minority of the replicas of a shard is away: one node, or one zone. Two at once (`delay+kill`): the first is one that takes no node away.
What needs more than processes and the network is beside this: `links.py`, `disk_faults.py`, `directory_faults.py`, `flips.py`, `clocks.py`, `members.py`,
`splits.py`, `client_faults.py`.
May not know: clients.
"""

import concurrent.futures
import random
import shutil
import signal
import time

import client_links
import clocks
import disks
from client_faults import ClientFaults
from clocks import ClockFaults
from directory_faults import DirectoryFaults
from disk_faults import DiskFaults
from effects import NoEffect, check
from flips import BitFlips
from links import LinkFaults
from members import MemberFaults
from network import CLIENTS
from nodes import until
from splits import SplitFaults

TAKE_OVER_SECONDS_MAX = 30
REBUILD_SECONDS_MAX = 120
# Of a shard, as a rule: the replicas of one that is being moved are one more.
REPLICAS = 3
BESIDE_SECONDS = 2



class Nemesis(LinkFaults, DiskFaults, BitFlips, ClockFaults, MemberFaults, SplitFaults, DirectoryFaults, ClientFaults):
    def __init__(self, nodes, network, topic, chance, newer=None, system=None):
        """`newer`: the build that nodes are upgraded to. `system`: whose nodes they are; without one all kinds can be."""
        self.system = system
        self.nodes, self.network, self.topic, self.chance, self.newer = nodes, network, topic, chance, newer
        self.proxies, self.disks, self.clocks, self.spare = {}, {}, {}, None
        self.base, self.flips = None, []
        # Has somebody read everything through the replicas of a zone.
        self.read_all = lambda zone: None
        # Makes a client stand still.
        self.stop_client = None
        # What was measured of the fault that runs.
        self.effects = []

    # What faults need

    def equip(self, kinds, directory):
        """Before any node starts: what these kinds need. Returns why some of them can not be here."""
        every = {one for kind in kinds for one in kind.split("+")}
        absent = {kind: why for kind in every if (why := unable(kind, self.system))}
        if every & set(self.MEMBER_KINDS) - set(absent):
            self.equip_members(directory, self.network.spares[0], self.nodes[0].environment["OTTLA_CLUSTER_SEEDS"])
        if every & set(self.LINK_KINDS) - set(absent):
            self.equip_links(directory)
        if (every & set(self.DISK_KINDS)) - set(absent):
            self.equip_disks(directory, every)
        if every & set(self.DIRECTORY_KINDS) - set(absent):
            self.equip_directories()
        if (every & set(self.CLOCK_KINDS)) - set(absent):
            self.equip_clocks()
        return [f"{kind}: {why}" for kind, why in absent.items()]

    def is_able(self, kind):
        return not any(unable(one, self.system) for one in kind.split("+"))

    def remove(self):
        """Nothing that a fault needed is left on the machine. Nodes do not run any more."""
        if self.spare:
            self.spare.kill()
        for proxy in self.proxies.values():
            proxy.remove()
        if self.base:
            self.remove_disks()

    def all_nodes(self):
        """With the further one, if there is one."""
        return [*self.nodes, *([self.spare] if self.spare else [])]

    # Of any fault

    def begin(self, kind):
        """A fault, or two at once: its first word is what it does, at its end it is over."""
        self.effects = []
        *beside, fault = [getattr(self, one)() for one in kind.split("+")]
        yield "; at the same time ".join(next(one) for one in (*beside, fault))
        # A process dies with the thread that began it, so what starts nodes runs in this one.
        with concurrent.futures.ThreadPoolExecutor() as threads:
            others = [threads.submit(list, one) for one in beside]
            # The first one is measured before the other takes its node away.
            time.sleep(BESIDE_SECONDS if beside else 0)
            list(fault)
        for one in others:
            one.result()

    def measured(self, sentence):
        self.effects.append(sentence)

    def shows(self, what, condition, seconds):
        """Waits until an effect is seen; that it never is proves nothing of the broker."""
        try:
            return until(what, condition, seconds)
        except AssertionError as late:
            raise NoEffect(late) from None

    def afterwards(self):
        """What can be judged only when everything was read: sentences on effects, and reasons why there was none."""
        found, without = [], []
        for flip in self.flips:
            try:
                found.append(self.judge_flip(flip))
            except NoEffect as reason:
                without.append(f"bitflip: {reason}")
        return found, without

    def any_node(self):
        """Mostly the node that leads most partitions."""
        if self.chance.random() < 0.7:
            return max(self.nodes, key=lambda node: self.nodes.led(self.topic, node))
        return self.chance.choice(self.nodes)

    def others(self, node):
        return [other for other in self.nodes if other is not node]

    def lasts(self, least=2.0, most=6.0):
        time.sleep(self.chance.uniform(least, most))

    def title(self, node):
        return f"node {node.number} (zone {node.zone}, leads {self.nodes.led(self.topic, node)} partitions)"

    # kill -9

    def killed(self, nodes):
        """Kills processes at the same time, and proves it."""
        for node in nodes:
            node.process.send_signal(signal.SIGKILL)
        for node in nodes:
            check(node.process.wait(10) == -signal.SIGKILL, f"node {node.number} was not killed")
            check(not node.answers(), f"node {node.number} answers after kill -9")

    def back(self, nodes):
        for node in nodes:
            node.spawn()
        for node in nodes:
            node.wait_until_ready()

    def kill(self):
        node = self.any_node()
        yield f"kill -9 {self.title(node)}"
        self.killed([node])
        self.lasts()
        self.back([node])

    def zone(self):
        zone = self.chance.choice(sorted({node.zone for node in self.nodes}))
        lost = [node for node in self.nodes if node.zone == zone]
        yield f"kill -9 zone {zone}: " + ", ".join(self.title(node) for node in lost)
        self.killed(lost)
        self.lasts()
        self.back(lost)

    def replace(self):
        """The machine is lost with its disk; another one takes its node id."""
        node = self.any_node()
        yield f"replace {self.title(node)}"
        before = node.identity()
        until("every replica has caught up", node.voters)
        placements = until("a node tells of all shards", self.others(node)[0].placements)
        self.killed([node])
        node.wipe()
        check(not any(one.exists() for one in node.directories), f"the disk of node {node.number} is still there")
        self.lasts()
        self.back([node])
        check(node.identity() != before, f"node {node.number} has the directory id of the lost disk")
        # Until its replicas are rebuilt the loss of another node could be the loss of a majority.
        until(f"every shard has its replicas again, those on node {node.number} too", lambda: self.is_rebuilt(node, placements), REBUILD_SECONDS_MAX)

    def is_rebuilt(self, node, placements_before):
        """Every replica that the cluster has there votes, and no shard has fewer than before. There may be more of them on the node, or
        fewer: shards are made when the first group comes, and moved by the balancer. One that was being moved had one more."""
        voters, placements = node.voters(), self.others(node)[0].placements()
        if voters is None or placements is None or voters != sum(node.number in nodes for nodes in placements.values()):
            return False
        whole = all(len(placements.get(shard, nodes)) >= min(len(nodes), REPLICAS) for shard, nodes in placements_before.items())
        return whole and all(one.voters() is not None for one in self.others(node))

    # Pauses

    def pause(self):
        node = self.any_node()
        yield f"SIGSTOP {self.title(node)}"
        node.process.send_signal(signal.SIGSTOP)
        until("the process stands still", lambda: node.state() == "T", 5)
        check(not node.answers(), f"node {node.number} answers while it is stopped")
        self.lasts()
        check(node.state() == "T", f"node {node.number} went on by itself")
        node.process.send_signal(signal.SIGCONT)
        until("the process goes on", lambda: node.state() != "T", 5)

    # Partitions of the network

    def parted(self, node, inward=True, outward=True, clients=True, meanwhile=lambda: None):
        """Cuts a node off, proves by datagrams that exactly this is cut, and that real packets were swallowed."""
        peers = [other.number for other in self.others(node)]
        far = [*peers, CLIENTS] if clients else peers
        self.network.cut(node.number, far, inward, outward)
        for other in [*peers, CLIENTS]:
            is_far = other in far
            into, out = self.network.reaches(other, node.number), self.network.reaches(node.number, other)
            check(into != (inward and is_far), f"{other} -> {node.number}: arrives {into}")
            check(out != (outward and is_far), f"{node.number} -> {other}: arrives {out}")
        try:
            meanwhile()
            self.lasts(3, 7)
        finally:
            swallowed = self.network.heal(node.number)
        # The probes themselves are one a direction and neighbour.
        check(swallowed > 2 * len(far), f"the cut of node {node.number} swallowed {swallowed} packets only")
        check(self.network.reaches(peers[0], node.number), f"node {node.number} is still cut off")

    def cut(self):
        node, clients = self.any_node(), self.chance.random() < 0.5
        yield f"cut off {self.title(node)} from other nodes" + (" and clients" if clients else "")
        self.parted(node, clients=clients)

    def oneway(self):
        node, clients, inward = self.any_node(), self.chance.random() < 0.5, self.chance.random() < 0.5
        what = "nothing comes in to" if inward else "nothing goes out of"
        yield f"{what} {self.title(node)}, other nodes" + (" and clients" if clients else "")
        self.parted(node, inward=inward, outward=not inward, clients=clients)

    def leader(self):
        partition, clients = self.chance.choice(sorted(self.nodes[0].leaders(self.topic))), self.chance.random() < 0.5
        node = until("the partition has a leader", lambda: self.nodes.leader(self.topic, partition))
        yield f"cut off {self.title(node)}, leader of partition {partition}, from other nodes" + (" and clients" if clients else "")

        def taken_over():
            now = self.nodes.leader(self.topic, partition, self.others(node))
            return now is not None and now is not node

        what = f"another node leads partition {partition}"
        self.parted(node, clients=clients, meanwhile=lambda: until(what, taken_over, TAKE_OVER_SECONDS_MAX))

    # Operators

    def roll(self):
        yield "restart every node by SIGTERM, one after the other"
        for node in self.nodes:
            was = node.process.pid
            node.stop()
            node.start()
            check(node.process.pid != was, f"node {node.number} was not restarted")

    def upgrade(self):
        """As an operator does it: each on its own directory, the next one when it is ready."""
        yield "every node gets the newer build, one after the other"
        older = {node.build() for node in self.nodes}
        for node in self.nodes:
            node.stop()
            node.take(self.newer)
            node.start()
            check(node.build() not in older, f"node {node.number} is of the older build still")
            # The cluster runs on both builds for a while.
            self.lasts(1, 3)

    # Sabotage: no fault that the cluster has to survive

    def sabotage(self):
        """All disks at once lose what was written to them for some seconds, as if nothing had been synced."""
        yield "every disk falls back by some seconds"
        self.killed(self.nodes)
        kept = {place: node.directory / f"older-{place.name}" for node in self.nodes for place in node.directories}
        for place, older in kept.items():
            shutil.copytree(place, older)
        self.back(self.nodes)
        self.lasts()
        self.killed(self.nodes)
        for node in self.nodes:
            node.wipe()
        for place, older in kept.items():
            shutil.move(older, place)
        self.back(self.nodes)


KINDS = ("kill", "pause", "cut", "oneway", "leader", "zone", "replace", "roll")
# Those that need more than namespaces: only if they are asked for, by name or as `all`.
FURTHER = (*Nemesis.LINK_KINDS, *Nemesis.DISK_KINDS, *Nemesis.FLIP_KINDS, *Nemesis.CLOCK_KINDS, *Nemesis.MEMBER_KINDS, *Nemesis.SPLIT_KINDS)
FURTHER += (*Nemesis.DIRECTORY_KINDS, *Nemesis.CLIENT_KINDS)
# They take no node away, so another fault may come at the same time.
COMBINE = (*Nemesis.LINK_KINDS, *Nemesis.CLOCK_KINDS)
# Where there is an older build to begin with; once, since nothing goes back.
UPGRADE = "upgrade"
# Not meant unless it is asked for: a run with it has to be found invalid.
SABOTAGE = "sabotage"
ALL = "all"


def unable(kind, system=None):
    """Why a kind can not be here; None if it can."""
    if system and kind not in system.kinds:
        return system.why_not
    if kind in Nemesis.LINK_KINDS and system and system.links and (lacking := client_links.missing()):
        return f"needs {', '.join(lacking)}"
    if kind in Nemesis.DISK_KINDS and (lacking := disks.missing()):
        return f"needs {', '.join(lacking)}"
    if kind in Nemesis.CLOCK_KINDS and not clocks.library():
        return "needs libfaketime (tests/setup)"
    return None


def chosen(words, system=None):
    """The kinds that were asked for: names and pairs by comma, `all` for every one that can be here. Raises ValueError."""
    kinds, single = [], (*KINDS, *FURTHER)
    for word in words.split(","):
        kinds += [kind for kind in single if not unable(kind, system)] if word == ALL else [word]
    for kind in kinds:
        first, *second = kind.split("+")
        if first not in (*single, UPGRADE, SABOTAGE):
            raise ValueError(f"unknown: {first}; there are {', '.join(single)}, {UPGRADE}, and {ALL}")
        if second and not fits(first, *second):
            raise ValueError(f"{kind}: two at once are one of {', '.join(COMBINE)}, and another one; not both of links")
    return kinds


def fits(first, second, *more):
    """Whether two faults may come at the same time."""
    both_of_links = {first, second} <= set(Nemesis.LINK_KINDS)
    return first in COMBINE and second in (*KINDS, *FURTHER) and second != first and not both_of_links and not more


def deck(kinds, seed):
    """Kinds without end, if there are any that may come again: each once before any does."""
    chance = random.Random(seed)
    while kinds:
        yield from chance.sample(kinds, len(kinds))
        kinds = [kind for kind in kinds if kind != UPGRADE]
