"""Faults of disks, for `Nemesis`: full, hung, failing, without power. Each node's data lies on a small disk of its own (`disks.py`).

May not know: clients.
"""

import time

import disks
import effects
from nodes import until

MIB = effects.MIB
RESERVE_BYTES = 64 * MIB
# A full disk is noticed when the segments that were prepared before are full, too: with small ones soon.
SETTINGS = {"OTTLA_LOG_SEGMENT_BYTES": str(2 * MIB), "OTTLA_DISK_RESERVE_BYTES": str(RESERVE_BYTES)}
NOTICE_SECONDS_MAX = 60
REBUILD_SECONDS_MAX = 120
SYNCS = "ottla_log_sync_seconds_count"
ACCEPTS = "ottla_disk_accepts_writes"


class DiskFaults:
    DISK_KINDS = ("full", "hang", "eio", "power")

    def equip_disks(self, directory, kinds):
        """Before any node starts."""
        self.base = disks.Base(directory / "disks")
        self.disks = {}
        for node in self.all_nodes():
            disk = disks.Disk(self.base, f"node-{node.number}", "eio" in kinds)
            self.disks[node] = disk
            node.data = disk.directory / "data"
            node.environment |= {**SETTINGS, "KAFKA_LOG_DIRS": str(node.data)}

    def remove_disks(self):
        for disk in self.disks.values():
            disk.remove()
        self.base.remove()

    def full(self):
        """Below the reserve, or to the last byte."""
        node, left = self.any_node(), self.chance.choice([RESERVE_BYTES // 2, 0])
        yield f"the disk of {self.title(node)} is full but for {left // MIB} MiB"
        disk = self.disks[node]
        try:
            disk.fill(left)
            began = time.monotonic()
            self.shows(f"node {node.number} takes no more writes", lambda: node.metric(ACCEPTS) == 0, NOTICE_SECONDS_MAX)
            noticed = time.monotonic() - began
            self.lasts(5, 12)
            found = effects.full(disk.free_bytes(), RESERVE_BYTES, node.metric(ACCEPTS))
        finally:
            disk.empty()
            began = time.monotonic()
        until(f"node {node.number} takes writes again", lambda: node.metric(ACCEPTS) == len(node.directories), NOTICE_SECONDS_MAX)
        self.measured(f"{found}; noticed after {noticed:.1f} s, gone after {time.monotonic() - began:.1f} s")

    def hang(self):
        node, seconds = self.any_node(), self.chance.uniform(3, 8)
        yield f"the disk of {self.title(node)} hangs for {seconds:.1f} s"
        with self.disks[node].hanging() as write_seconds:
            before = node.metric(SYNCS)
            self.lasts(seconds, seconds)
            after, still = node.metric(SYNCS), write_seconds() is None
        effects.check(still, "a write returned while the disk was frozen")
        effects.check(None not in (before, after), f"node {node.number} gives no metrics while its disk hangs")
        self.measured(effects.hung(seconds, write_seconds() or 0, after - before))

    def eio(self):
        node = self.any_node()
        yield f"every access to the disk of {self.title(node)} is an EIO"
        disk = self.disks[node]
        disk.fail()
        error = disk.error()
        try:
            # The last directory ends the process; without anything to write it may take a while to notice.
            self.shows(f"node {node.number} notices", lambda: not node.is_alive() or node.metric(ACCEPTS) == 0, NOTICE_SECONDS_MAX)
            accepts = node.metric(ACCEPTS)
            self.lasts()
            code = node.process.poll()
        finally:
            node.kill()
            disk.exchange_controller()
            self.back([node])
        until(f"the replicas of node {node.number} have caught up", lambda: node.voters() is not None, REBUILD_SECONDS_MAX)
        self.measured(effects.failed(error, accepts, code))

    def power(self):
        """Of one zone, or everywhere at the same moment."""
        lost = list(self.nodes)
        if self.chance.random() < 0.5:
            zone = self.any_node().zone
            lost = [node for node in self.nodes if node.zone == zone]
        yield "loss of power: " + ", ".join(self.title(node) for node in lost)
        self.killed(lost)
        found = [self.without_power(node) for node in lost]
        self.lasts(1, 3)
        self.back(lost)
        for node, what in zip(lost, found):
            self.measured(effects.powerless(node.number, *what))

    def without_power(self, node):
        """Whether the probes are as they have to be, and how many of the node's files fell back."""
        disk = self.disks[node]
        before = disk.contents(node.data)
        disk.prepare_probes()
        disk.cut_power()
        after = disk.contents(node.data)
        return *disk.probes(), sum(after.get(path) != content for path, content in before.items())
