#!/usr/bin/env python3
"""Tests that the verdict on topics can fail: a sound journal has no complaint, and each way to falsify it is found. Also the questions to nodes.

Usage: tests/chaos/test_topics.py; needs neither root nor a build.
"""

import socket
import struct
import threading
import unittest

import history
import topics
import wire

ADMIN, OTHER, OBSERVER = 64, 128, 0
FIRST_ID, SECOND_ID, THIRD_ID = "aa", "bb", "cc"
NODES = (1, 2)


class Journal:
    """One administrator makes a topic, alters it, adds partitions, deletes it and makes it again; another makes one, of whose end nothing is known."""

    def __init__(self):
        self.t, self.lines = 1000, []

    def say(self, what, client, /, **more):
        self.t += 10
        self.lines.append({"do": what, "t": self.t, "client": client, **more})

    def change(self, topic, what, client=ADMIN, error=None, **more):
        self.say("change", client, topic=topic, what=what, **more)
        if error != "killed":
            self.say("changed", client, topic=topic, error=error)

    def described(self, *shown, node=1, **more):
        begun = self.t + 5
        self.say("described", OBSERVER, begun=begun, node=node, topics=[list(one) for one in shown], **more)


def sound():
    one = Journal()
    one.change("a", "create", partitions=2, value=10)
    one.described(["a", FIRST_ID, 2, 10])
    one.change("a", "alter", value=11)
    one.change("a", "grow", partitions=4)
    one.described(["a", FIRST_ID, 4, 11])
    one.change("a", "delete")
    # It is behind, as a node may be.
    one.described(["a", FIRST_ID, 4, 11], node=2)
    one.described(["a", None, None, None])
    one.change("a", "create", partitions=1, value=12)
    one.described(["a", SECOND_ID, 1, 12])
    one.change("b", "create", OTHER, partitions=3, value=10)
    one.change("b", "delete", OTHER, "killed")
    for node in NODES:
        one.described(["a", SECOND_ID, 1, 12], ["b", THIRD_ID, 3, 10], node=node, settled=True)
    return one.lines


class Verdict(unittest.TestCase):
    def setUp(self):
        self.journal = sound()

    def shown(self, number):
        """What the n-th description has of the first topic it names."""
        return [line for line in self.journal if line["do"] == "described"][number]["topics"][0]

    def found(self, *words):
        said = history.complaints(self.journal)
        self.assertTrue(any(all(word in sentence for word in words) for sentence in said), said)

    def test_a_sound_journal_has_no_complaint(self):
        self.assertEqual(history.complaints(self.journal), [])
        self.assertEqual(topics.counts(self.journal), (6, 1, 7))

    def test_the_change_of_a_client_that_was_killed_may_have_happened(self):
        for line in self.journal:
            if line.get("settled"):
                line["topics"][1] = ["b", None, None, None]
        self.assertEqual(history.complaints(self.journal), [])

    def test_a_change_that_was_refused_may_have_happened_or_not(self):
        changed = [line for line in self.journal if line["do"] == "changed"]
        changed[4]["error"] = "REQUEST_TIMED_OUT"
        self.assertEqual(history.complaints(self.journal), [])
        for line in self.journal:
            if line.get("settled"):
                line["topics"][0] = ["a", None, None, None]
        self.assertEqual(history.complaints(self.journal), [])

    def test_an_acknowledged_topic_that_a_node_does_not_show(self):
        self.shown(-1)[1:] = [None, None, None]
        self.found("node 2", "topic a", "shown is none")

    def test_an_acknowledged_deletion_that_was_forgotten(self):
        self.journal = [line for line in self.journal if line.get("topic") != "a" or line.get("value") != 12]
        del self.journal[self.journal.index(next(line for line in self.journal if line["do"] == "changed" and line["t"] > 1120 and line["topic"] == "a"))]
        self.found("topic a", "makes it none")

    def test_acknowledged_partitions_that_are_not_there(self):
        self.shown(-1)[2] = 3
        self.found("node 2", "topic a", "3 partitions")

    def test_an_acknowledged_setting_that_fell_back(self):
        self.shown(-1)[3] = 11
        self.found("node 2", "topic a", "the setting 11")

    def test_an_id_of_two_topics(self):
        self.journal[-1]["topics"][1][1] = SECOND_ID
        self.found("topics a and b", "same id")

    def test_an_id_that_is_used_again_after_a_deletion(self):
        for number in (4, 5, 6):
            self.shown(number)[1] = FIRST_ID
        self.found("topic a was deleted and made again", FIRST_ID)

    def test_a_topic_that_comes_back_on_a_node(self):
        self.shown(4)[1] = FIRST_ID
        self.found("node 1", "came back")

    def test_partitions_that_a_node_takes_back(self):
        self.shown(1)[2] = 1
        self.found("node 1", "1 partitions", "had 2")

    def test_a_setting_that_a_node_takes_back(self):
        self.shown(1)[3] = 9
        self.found("node 1", "the setting 9")

    def test_what_one_node_shows_says_nothing_of_another(self):
        self.shown(2)[2:] = [2, 10]
        self.assertEqual(history.complaints(self.journal), [])

    def test_how_long_a_node_was_behind(self):
        self.assertAlmostEqual(topics.longest_behind(self.journal) * 1e9, 5)
        self.shown(2)[1:] = [None, None, None]
        self.assertEqual(topics.longest_behind(self.journal), 0)


class Questions(unittest.TestCase):
    """A node that gives one answer."""

    def ask(self, answer, question):
        with socket.create_server(("127.0.0.1", 0)) as server:

            def serve():
                stream, _ = server.accept()
                with stream:
                    size = struct.unpack(">i", stream.recv(4))[0]
                    stream.recv(size)
                    stream.sendall(answer)

            threading.Thread(target=serve, daemon=True).start()
            return question(server.getsockname())

    def framed(self, body):
        return struct.pack(">ii", len(body) + 4, 5) + body

    def test_what_a_node_shows_of_the_cluster_and_of_topics(self):
        part = struct.pack(">hiii", 0, 0, 2, 7) + wire.array([struct.pack(">i", n) for n in (1, 2)]) + wire.array([struct.pack(">i", 2)]) + b"\1\0"
        topic = struct.pack(">h", 0) + wire.text("a") + bytes(range(16)) + b"\0" + wire.array([part]) + struct.pack(">i", 0) + b"\0"
        gone = struct.pack(">h", 3) + wire.text("b") + bytes(16) + b"\0" + wire.array([]) + struct.pack(">i", 0) + b"\0"
        node = struct.pack(">i", 2) + wire.text("host") + struct.pack(">i", 9092) + b"\0\0"
        body = b"\0" + struct.pack(">i", 0) + wire.array([node]) + wire.text("cluster") + struct.pack(">i", 2) + wire.array([topic, gone]) + b"\0"
        shown = self.ask(self.framed(body), lambda address: wire.metadata(address, ["a", "b"]))
        self.assertEqual(shown.nodes, {2: ("host", 9092)})
        self.assertEqual(shown.topics["b"].error, wire.UNKNOWN_TOPIC_OR_PARTITION)
        self.assertEqual((shown.topics["a"].id, shown.topics["a"].error), (bytes(range(16)).hex(), 0))
        self.assertEqual(shown.topics["a"].parts, {0: wire.Part(0, 2, [1, 2], [2])})

    def test_a_setting_of_a_topic(self):
        value = wire.text("retention.ms") + wire.text("7") + b"\0\1\0" + wire.array([wire.text("x") + wire.text("7") + b"\1\0"]) + b"\5\0\0"
        resource = struct.pack(">h", 0) + b"\0" + b"\2" + wire.text("a") + wire.array([value]) + b"\0"
        body = b"\0" + struct.pack(">i", 0) + wire.array([resource]) + b"\0"
        self.assertEqual(self.ask(self.framed(body), lambda address: wire.settings(address, ["a"], "retention.ms")), {"a": "7"})

    def test_who_takes_connections_and_says_nothing_does_not_answer(self):
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.assertFalse(wire.answers(server.getsockname(), 0.1))
        self.assertTrue(self.ask(self.framed(struct.pack(">hi", 0, 0)), wire.answers))

    def test_half_an_answer_is_none(self):
        with self.assertRaises(OSError):
            self.ask(struct.pack(">ii", 400, 5), lambda address: wire.metadata(address, []))


if __name__ == "__main__":
    unittest.main()
