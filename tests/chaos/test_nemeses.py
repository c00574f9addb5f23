#!/usr/bin/env python3
"""Tests of what the nemeses decide, without a broker: what a proxy does to bytes, when a fault counts as one, where a bit may be turned,
and which ports brokers are given.

Usage: tests/chaos/test_nemeses.py; needs neither root nor a build.
"""

import asyncio
import os
import pathlib
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
import types
import unittest
from unittest import mock

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "clients"))

import broker
import client_links
import effects
import flips
import nemesis
import systems
from effects import MIB, NoEffect
from network import Here
from proxy import LOSSES_MAX, PACKET_BYTES, RETRANSMIT_MS, Conditions, Direction, Proxy
from remote_nodes import RemoteNode
from systems import CONTAINERS, FOREIGN, KAFKA, OTTLA, SYSTEMS


class Sequence:
    """A chance that gives these numbers, and the least of a range."""

    def __init__(self, *numbers):
        self.numbers = list(numbers)

    def random(self):
        return self.numbers.pop(0)

    def uniform(self, least, most):
        return least


class Delays(unittest.TestCase):
    def test_without_conditions_nothing_is_held_up(self):
        conditions = Conditions()
        self.assertEqual(conditions.losses(1 << 20, Sequence()), 0)
        self.assertEqual(conditions.held_ms(0, Sequence()), 0)

    def test_a_delay_lies_between_itself_and_its_jitter(self):
        conditions, chance = Conditions(delay_ms=50, jitter_ms=10), random.Random(1)
        held = [conditions.held_ms(0, chance) for _ in range(1000)]
        self.assertTrue(all(50 <= ms <= 60 for ms in held))
        self.assertGreater(max(held) - min(held), 9)

    def test_chunks_do_not_overtake_each_other(self):
        direction = Direction()
        self.assertEqual([direction.due_ms(0, 200), direction.due_ms(1, 50), direction.due_ms(300, 50)], [200, 200, 350])


class Losses(unittest.TestCase):
    def test_a_loss_costs_the_time_until_it_is_sent_again_and_then_twice_that(self):
        conditions = Conditions(loss=0.5)
        self.assertEqual([conditions.held_ms(n, Sequence()) for n in range(3)], [0, RETRANSMIT_MS, 3 * RETRANSMIT_MS])

    def test_too_many_losses_break_the_connection(self):
        conditions = Conditions(loss=0.5)
        self.assertEqual(conditions.losses(1, Sequence(0.1, 0.1, 0.1, 0.1)), LOSSES_MAX)
        self.assertIsNone(conditions.held_ms(LOSSES_MAX, Sequence()))

    def test_a_chunk_of_many_packets_is_hit_more_often(self):
        conditions, chance = Conditions(loss=0.01), random.Random(2)
        small = sum(conditions.losses(10, chance) > 0 for _ in range(10_000))
        large = sum(conditions.losses(20 * PACKET_BYTES, chance) > 0 for _ in range(10_000))
        self.assertTrue(50 < small < 150, small)
        self.assertTrue(1600 < large < 2050, large)


class ThroughTheProxy(unittest.TestCase):
    """Real connections of this machine's loopback."""

    def through(self, conditions, size=200_000):
        """What came back of an echo, in which time, and what was counted."""

        async def run():
            proxy = Proxy()
            proxy.conditions = conditions
            inner = await asyncio.start_server(proxy.echo, "127.0.0.1", 0)
            outer = await asyncio.start_server(proxy.serve(inner.sockets[0].getsockname(), True), "127.0.0.1", 0)
            reader, writer = await asyncio.open_connection(*outer.sockets[0].getsockname())
            sent, began = random.Random(3).randbytes(size), time.monotonic()
            writer.write(sent)
            writer.write_eof()
            try:
                back = await asyncio.wait_for(reader.read(-1), 20)
            except (ConnectionError, asyncio.TimeoutError):
                back = b""
            for one in (writer, inner, outer):
                one.close()
            return back == sent, time.monotonic() - began, proxy.take_counts()

        return asyncio.run(run())

    def test_bytes_pass_unchanged(self):
        same, _, counts = self.through(Conditions())
        self.assertTrue(same)
        self.assertGreater(counts["chunks"], 0)
        self.assertEqual((counts["held"], counts["lost"], counts["broken"]), (0, 0, 0))

    def test_delayed_bytes_pass_unchanged_and_late(self):
        same, seconds, counts = self.through(Conditions(delay_ms=50, jitter_ms=20))
        self.assertTrue(same)
        self.assertGreaterEqual(seconds, 0.1)
        self.assertEqual(counts["held"], counts["chunks"])

    def test_what_is_always_lost_breaks_the_connection(self):
        same, _, counts = self.through(Conditions(loss=1))
        self.assertFalse(same)
        self.assertEqual(counts["broken"], 1)


class Effects(unittest.TestCase):
    """Each judgement: measured, and each way in which a fault had no effect."""

    def judged(self, judge, sound, *bad):
        self.assertIsInstance(judge(*sound), str)
        for values in bad:
            with self.assertRaises(NoEffect, msg=str(values)):
                judge(*values)

    def test_delayed(self):
        self.judged(effects.delayed, (100, 1, 202, 50, 110), (100, 1, 90, 50, 110), (100, 1, 202, 0, 0))

    def test_lossy(self):
        self.judged(effects.lossy, (0.1, 100, 5, 0), (0.1, 100, 0, 0), (0.1, 0, 0, 0))

    def test_full(self):
        self.judged(effects.full, (MIB, 64 * MIB, 0), (80 * MIB, 64 * MIB, 0), (MIB, 64 * MIB, 1), (MIB, 64 * MIB, None))

    def test_hung(self):
        self.judged(effects.hung, (5, 5.1, 0), (5, 0.1, 0), (5, 5.1, 300))

    def test_failed(self):
        self.judged(effects.failed, ("EIO", None, 1), (None, None, 1), ("EIO", None, 0), ("EIO", 1, None), ("ENOSPC", 0, None))
        self.assertIsInstance(effects.failed("EIO", 0, None), str)

    def test_powerless(self):
        self.judged(effects.powerless, (1, True, True, 2), (1, True, False, 2), (1, False, True, 2))

    def test_flipped(self):
        met = ["log says 'damaged' 1x"]
        self.judged(effects.flipped, ("x", 0x41, 0x40, met), ("x", 0x41, 0x41, met), ("x", 0x41, 0x42, met), ("x", 0x41, 0x40, []))

    def test_jumped(self):
        self.judged(effects.jumped, (3600, 3600.4, 2, 0), (3600, 0.3, 2, 0), (3600, 3600.4, 0, 0))
        self.assertIsInstance(effects.jumped(-3600, -3599.6, 0, 3601), str)

    def test_stalled(self):
        self.judged(effects.stalled, ("hasty", 8, 8.1, 0), ("hasty", 8, 3.0, 0), ("hasty", 8, 8.1, 2))

    def test_joined(self):
        sound = (4, 4, 3, 5, 0, True)
        self.judged(effects.joined, sound, (4, 3, 3, 5, 0, True), (4, 4, 3, 0, 0, True), (4, 4, 3, 5, None, True), (4, 4, 3, 5, 0, False))

    def test_split(self):
        before, after = {3: {"partitions": 4}}, {3: {"partitions": 3}, 9: {"partitions": 1}}
        self.judged(effects.split, (before, after, [9]), (before, after, []), (before, before, [9]), (before, {**after, 9: {"partitions": 0}}, [9]))

    def test_resized(self):
        self.judged(effects.resized, ({3: 4}, {3: 2, 9: 2}), ({3: 4}, {3: 4}))

    def test_moved_within(self):
        before, after = {3: "a", 4: "b"}, {3: "b", 4: "b"}
        self.judged(effects.moved_within, (before, after, "b"), (before, before, "b"), (after, after, "b"), ({3: "a"}, {4: "b"}, "b"))

    def test_merged(self):
        after = {3: {"partitions": 4}}
        self.judged(effects.merged, (after, {9: 1}), (after, {}), ({**after, 9: {"partitions": 1}}, {9: 1}), (after, {9: 0}))


def commit(body):
    """A commit with a header of 72 bytes and a frame."""
    head = flips.COMMIT + bytes(4) + (72).to_bytes(4, "little")
    return head.ljust(72, b"\0") + body


class Verdicts(unittest.TestCase):
    def test_each_kind_needs_one_fault_with_an_effect(self):
        without = ["bitflip: never met", "delay+kill: no byte was held up", "no consumer read a record"]
        self.assertEqual(effects.unproved(without, {"bitflip", "kill"}), without[1:])
        self.assertEqual(effects.unproved(without[:2], {"bitflip", "delay+kill"}), [])


class Flips(unittest.TestCase):
    RECORD = b"\x10274877906944:abc".ljust(64, b"\0")

    def test_nothing_of_the_last_commit_is_damaged(self):
        log = bytes(100) + commit(self.RECORD) + commit(self.RECORD) + commit(self.RECORD)
        last = log.rindex(flips.COMMIT)
        found = flips.places(log)
        self.assertEqual(set(found), {"record", "head of a frame"})
        self.assertEqual([log[at : at + 3] for at in found["record"]], [b"274"] * 2)
        self.assertTrue(all(at < last for places in found.values() for at in places))

    def test_heads_are_damaged_only_where_a_start_reads_them(self):
        log = b"".join(commit(self.RECORD) for _ in range(100))
        commits = flips.commits(log)
        self.assertTrue(min(flips.places(log)[flips.HEAD]) > commits[-2 - flips.RECENT_COMMITS])

    def test_a_log_of_one_commit_or_none_is_left_alone(self):
        self.assertEqual(flips.places(commit(self.RECORD)), {})
        self.assertEqual(flips.places(bytes(4096)), {})

    def test_one_bit_is_turned_and_read_back(self):
        with tempfile.TemporaryDirectory() as directory:
            path = pathlib.Path(directory) / "log"
            path.write_bytes(b"abc")
            self.assertEqual(flips.flip_bit(path, 1, 0), (ord("b"), ord("c")))
            self.assertEqual(path.read_bytes(), b"acc")

    def test_a_flip_counts_only_if_its_own_batch_was_met_or_its_byte_is_corrected(self):
        lines = ["x ERROR damaged batch error=its checksum does not hold segment=2 byte=1000", "all is well"]
        self.assertEqual(flips.noticed(2, 1100, 1, 3, lines), ["the node met its damaged batch 1x"])
        self.assertEqual(flips.noticed(2, 1100, 1, 1, []), ["the node corrected the byte on the disk"])
        for segment, at in ((1, 1100), (2, 900), (2, 1000 + flips.BATCH_BYTES_MAX)):
            self.assertEqual(flips.noticed(segment, at, 1, 3, lines), [])
        self.assertEqual(flips.noticed(2, 1100, 1, None, []), [])
        start = ["x ERROR damage in the log, before what was durable path=/data/log/0000000000000002.log from=1000 to=1200 commits=1"]
        self.assertEqual(flips.noticed(2, 1100, 1, 3, start), ["the node found its commit damaged when it started"])
        for segment, at in ((1, 1100), (2, 900), (2, 1200)):
            self.assertEqual(flips.noticed(segment, at, 1, 3, start), [])


class Kinds(unittest.TestCase):
    def test_kinds_by_name_and_all(self):
        self.assertEqual(nemesis.chosen("kill,delay+cut"), ["kill", "delay+cut"])
        self.assertTrue({"kill", "delay", "bitflip", "join"} <= set(nemesis.chosen("all")))
        self.assertNotIn("sabotage", nemesis.chosen("all"))

    def test_what_can_not_be_at_once_is_refused(self):
        for words in ("kill+pause", "delay+loss", "delay+delay", "delay+upgrade", "delay+kill+pause", "nonsense", "delay+nonsense"):
            with self.assertRaises(ValueError, msg=words):
                nemesis.chosen(words)


class Systems(unittest.TestCase):
    """Which kinds can be where: others make a run unknown, with a reason, and `all` leaves them out."""

    def test_only_clients_of_a_foreign_cluster_are_disturbed(self):
        foreign = SYSTEMS[FOREIGN]
        self.assertEqual(nemesis.unable("kill", foreign), foreign.why_not)
        self.assertIsNone(nemesis.unable("stall", foreign))
        self.assertEqual(set(nemesis.chosen("all", foreign)) - {"delay", "loss"}, {"stall"})
        self.assertEqual(nemesis.chosen("kill", foreign), ["kill"])

    def test_containers_are_killed_and_not_cut_off(self):
        self.assertIsNone(nemesis.unable("kill", SYSTEMS[CONTAINERS]))
        self.assertTrue(nemesis.unable("cut", SYSTEMS[CONTAINERS]))

    def test_a_node_of_kafka_keeps_its_disk(self):
        self.assertIsNone(nemesis.unable("leader", SYSTEMS[KAFKA]))
        for kind in ("power", "replace", "bitflip"):
            self.assertTrue(nemesis.unable(kind, SYSTEMS[KAFKA]), kind)
        self.assertFalse({"power", "replace", "join", "split", "merge", "resize", "directory"} & set(nemesis.chosen("all", SYSTEMS[KAFKA])))

    def test_what_is_tested_without_a_word_is_ottla(self):
        self.assertTrue(set(nemesis.KINDS) <= set(SYSTEMS[OTTLA].kinds))
        given = lambda **more: types.SimpleNamespace(**{"system": OTTLA, "bootstrap": None, "containers": None, **more})
        names = [systems.name_of(given(**more)) for more in ({}, {"bootstrap": "a:1"}, {"bootstrap": "a:1", "containers": "x"})]
        self.assertEqual(names, [OTTLA, FOREIGN, CONTAINERS])


@unittest.skipIf(client_links.missing(), "there is no C compiler")
class Redirections(unittest.TestCase):
    """A process that connects to a node is led to the proxy in front of it."""

    PROGRAM = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 5) as stream:
    stream.sendall(b"x" * 1000)
    print(len(stream.recv(16)))
"""

    def test_clients_go_through_the_proxy_and_nobody_else_does(self):
        network = Here()
        with tempfile.TemporaryDirectory() as directory, socket.create_server(("127.0.0.1", 0)) as server:
            threading.Thread(target=self.serve, args=(server,), daemon=True).start()
            place = server.getsockname()
            node = RemoteNode(1, ("localhost", place[1]), None, "chaos")
            (proxy,) = client_links.begin([node], network, pathlib.Path(directory)).values()
            try:
                for environment, chunks in ((network.environment, 2), ({}, 0)):
                    words = [sys.executable, "-c", self.PROGRAM, "127.0.0.1", str(place[1])]
                    done = subprocess.run(words, env={**os.environ, **environment}, capture_output=True, text=True)
                    self.assertEqual((done.stdout.strip(), done.stderr), ("2", ""))
                    self.assertEqual(proxy.set()["chunks"], chunks)
                self.assertGreater(proxy.round_trip_ms(1), 0)
            finally:
                proxy.remove()

    def serve(self, server):
        while True:
            stream, _ = server.accept()
            with stream:
                stream.recv(2000)
                stream.sendall(b"ok")


class Ports(unittest.TestCase):
    def test_no_port_is_given_twice_before_its_broker_listens(self):
        with mock.patch.object(broker, "PORTS", range(20_000, 20_012)), mock.patch.object(broker, "is_free", lambda port: True):
            given = [port for _ in range(3) for port in broker.free_ports(4)]
        self.assertEqual(sorted(given), list(range(20_000, 20_012)))


if __name__ == "__main__":
    unittest.main()
