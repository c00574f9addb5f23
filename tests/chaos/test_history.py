#!/usr/bin/env python3
"""Tests that the verdict can fail: a sound journal passes, and each way to falsify it is found and named.

Usage: tests/chaos/test_history.py [JUDGE]; without the checker's example `judge` cargo builds it.
"""

import copy
import pathlib
import sys
import tempfile
import unittest

import history
import truncations

JUDGE = [sys.argv.pop(1)] if len(sys.argv) > 1 else None
PARTITIONS, BURSTS, SIZE = 2, 6, 4
PRODUCER, FIRST, SECOND, THIRD, OBSERVER = 64, 128, 192, 256, 0
KEPT = 100


class Clock:
    def __init__(self):
        self.t = 1000

    def __call__(self):
        self.t += 10
        return self.t


def sound():
    """A producer's bursts to two partitions; a member reads and commits, is killed, another goes on; everything is read at the end."""
    clock, journal, logs = Clock(), [], [[] for _ in range(PARTITIONS)]

    def say(what, client, **more):
        journal.append({"do": what, "t": clock(), "client": client, **more})

    def read(client, partition, start, rebalanced):
        begun = clock()
        records = [[partition, offset, logs[partition][offset]] for offset in range(start, len(logs[partition]))]
        say("poll", client, begun=begun, records=records, rebalanced=rebalanced)

    def commit(client, partition):
        say("commit", client, offsets=[[partition, len(logs[partition])]])
        say("committed", client, partitions=[partition])

    say("subscribe", FIRST)
    for burst in range(BURSTS):
        records = [[n % PARTITIONS, burst * SIZE + n] for n in range(SIZE)]
        say("send", PRODUCER, records=records)
        results, before = [], [len(log) for log in logs]
        for partition, value in records:
            results.append([len(logs[partition]), clock()])
            logs[partition].append(value)
        say("sent", PRODUCER, results=results)
        member = FIRST if burst < BURSTS // 2 else SECOND
        if burst == BURSTS // 2:
            say("subscribe", SECOND)
            say("fetched", SECOND, begun=clock(), offsets=[[p, before[p]] for p in range(PARTITIONS)])
        for partition in range(PARTITIONS):
            read(member, partition, before[partition], [partition] if burst in (0, BURSTS // 2) else [])
            commit(member, partition)
    say("fetched", OBSERVER, begun=clock(), offsets=[[p, len(logs[p])] for p in range(PARTITIONS)])
    records = [[p, offset, value] for p, log in enumerate(logs) for offset, value in enumerate(log)]
    say("read", OBSERVER, begun=clock(), records=records, ends=[[p, len(log)] for p, log in enumerate(logs)])
    return journal


def lines_of(journal, what):
    return [line for line in journal if line["do"] == what]


def final_read(journal):
    return lines_of(journal, "read")[0]


def without_value(journal, value):
    """As if it had never been there: nobody reads it, and what follows it moves up."""
    (partition, offset) = next((p, o) for p, o, v in final_read(journal)["records"] if v == value)
    for line in lines_of(journal, "read") + lines_of(journal, "poll"):
        line["records"] = [r for r in line["records"] if r[2] != value]


class Verdict(unittest.TestCase):
    def laws(self, journal):
        with tempfile.TemporaryDirectory() as directory:
            report = history.judge(history.of_journal(journal), pathlib.Path(directory) / "history.jsonl", JUDGE)
        self.assertEqual(report["verdict"] == "invalid", bool(report["broken"]))
        return set(report["broken"])

    def setUp(self):
        self.journal = sound()

    def test_a_sound_journal_is_valid(self):
        self.assertEqual(self.laws(self.journal), set())
        self.assertEqual(history.complaints(self.journal), [])

    def test_a_compact_journal_says_the_same(self):
        lines = list(history.of_journal(self.journal))
        compact = [history.compact(dict(line)) for line in copy.deepcopy(self.journal)]
        self.assertTrue(any(isinstance(line.get("records"), history.Records) for line in compact))
        self.assertEqual(list(history.of_journal(compact)), lines)
        self.assertEqual(history.counts(compact), history.counts(self.journal))
        self.assertEqual(history.left_out(compact), history.left_out(self.journal))

    def test_nothing_read_is_not_valid(self):
        journal = [line for line in self.journal if line["do"] in ("send", "sent", "commit", "committed")]
        with tempfile.TemporaryDirectory() as directory:
            report = history.judge(history.of_journal(journal), pathlib.Path(directory) / "history.jsonl", JUDGE)
        self.assertNotEqual(report["verdict"], "valid")

    def test_an_acknowledged_record_that_is_lost(self):
        without_value(self.journal, 5)
        self.assertIn("lost-write", self.laws(self.journal))

    def test_an_acknowledged_record_that_is_lost_at_the_end(self):
        last = BURSTS * SIZE - 1
        without_value(self.journal, last)
        final_read(self.journal)["ends"][1][1] -= 1
        self.assertIn("unseen", self.laws(self.journal))

    def test_a_record_whose_outcome_is_unknown_may_be_lost(self):
        self.journal.append({"do": "send", "t": 5, "client": 65, "records": [[0, 7777]]})
        self.journal.append({"do": "sent", "t": 6, "client": 65, "results": [[None, 0]]})
        self.assertEqual(self.laws(self.journal), set())

    def test_a_burst_of_a_client_that_was_killed_may_be_lost(self):
        self.journal.append({"do": "send", "t": 5, "client": 65, "records": [[0, 7777], [1, 7778]]})
        self.assertEqual(self.laws(self.journal), set())

    def test_the_acknowledged_part_of_a_burst_may_not_be_lost(self):
        lines_of(self.journal, "sent")[1]["results"][0][0] = None
        self.assertEqual(self.laws(self.journal), set())
        without_value(self.journal, SIZE + 1)
        self.assertIn("lost-write", self.laws(self.journal))

    def twice(self, value):
        """One of partition 0 stands at its end, too."""
        read = final_read(self.journal)
        end = read["ends"][0]
        read["records"].append([0, end[1], value])
        end[1] += 1

    def test_a_record_that_is_there_twice(self):
        self.twice(0)
        self.assertIn("duplicate", self.laws(self.journal))

    def test_a_burst_of_which_a_record_timed_out_may_be_there_twice(self):
        lines_of(self.journal, "sent")[0]["results"][3][0] = None
        self.twice(0)
        self.assertEqual(self.laws(self.journal), set())
        self.twice(SIZE)
        self.assertEqual(self.laws(self.journal), {"duplicate"})

    def test_records_in_another_order_than_they_were_sent(self):
        # Everybody agrees on the places: those of two bursts of one producer are exchanged.
        sent = lines_of(self.journal, "sent")
        sent[1]["results"], sent[2]["results"] = sent[2]["results"], sent[1]["results"]
        places = {}
        for asked, told in zip(lines_of(self.journal, "send"), sent):
            for (partition, value), (offset, _) in zip(asked["records"], told["results"]):
                places[partition, offset] = value
        for line in lines_of(self.journal, "read") + lines_of(self.journal, "poll"):
            line["records"] = [[p, o, places[p, o]] for p, o, _ in line["records"]]
        self.assertIn("nonmonotonic-send", self.laws(self.journal))

    def test_records_of_one_burst_in_another_order(self):
        results = lines_of(self.journal, "sent")[1]["results"]
        results[0], results[2] = results[2], results[0]
        self.assertIn("int-nonmonotonic-send", self.laws(self.journal))

    def test_a_record_at_another_offset_than_was_acknowledged(self):
        # All later ones, too: the log has shifted by one.
        read = final_read(self.journal)
        for record in read["records"]:
            record[1] += record[0] == 0 and record[1] >= 3
        read["ends"][0][1] += 1
        self.assertIn("inconsistent-offsets", self.laws(self.journal))

    def test_a_hole_in_the_offsets(self):
        for line in lines_of(self.journal, "sent"):
            for result in line["results"]:
                result[0] += result[0] >= 5
        for line in lines_of(self.journal, "read") + lines_of(self.journal, "poll"):
            line["records"] = [[p, o + (o >= 5), v] for p, o, v in line["records"]]
        final_read(self.journal)["ends"] = [[p, end + 1] for p, end in final_read(self.journal)["ends"]]
        self.assertIn("dense-offsets", self.laws(self.journal))

    def test_a_record_that_nobody_sent(self):
        final_read(self.journal)["records"][3][2] = 424242
        self.assertIn("phantom-read", self.laws(self.journal))

    def test_a_consumer_that_skips_records_of_its_assignment(self):
        polls = lines_of(self.journal, "poll")
        polls[PARTITIONS]["records"] = []
        self.assertIn("poll-skip", self.laws(self.journal))
        self.assertTrue(history.complaints(self.journal))

    def test_a_consumer_that_is_given_records_again(self):
        polls = lines_of(self.journal, "poll")
        polls[PARTITIONS]["records"] = copy.deepcopy(polls[0]["records"])
        self.assertIn("nonmonotonic-poll", self.laws(self.journal))

    def test_a_committed_offset_that_falls_back(self):
        fetched = lines_of(self.journal, "fetched")[-1]
        fetched["offsets"][0][1] = lines_of(self.journal, "commit")[0]["offsets"][0][1]
        self.assertIn("committed-offset-forgotten", self.laws(self.journal))

    def test_a_committed_offset_that_is_gone(self):
        lines_of(self.journal, "fetched")[-1]["offsets"][0][1] = None
        self.assertIn("committed-offset-forgotten", self.laws(self.journal))

    def test_a_committed_offset_that_nobody_committed(self):
        lines_of(self.journal, "fetched")[-1]["offsets"][0][1] = 424242
        self.assertIn("committed-offset-invented", self.laws(self.journal))

    def test_a_group_that_leaves_records_out_at_a_rebalance(self):
        # To the checker a skip across a rebalance is legal; a member that begins where nobody has committed is not.
        polls = lines_of(self.journal, "poll")
        taken = next(line for line in polls if line["client"] == SECOND)
        taken["records"] = taken["records"][1:]
        self.assertTrue(any("nobody in it read 1 below" in text for text in history.complaints(self.journal)))

    def test_each_group_has_to_read_everything(self):
        # The second group's only member begins at an offset that nobody has committed.
        self.journal.append({"do": "subscribe", "t": 3000, "client": THIRD, "group": 1})
        records = [[0, offset, value] for p, offset, value in final_read(self.journal)["records"] if p == 0]
        poll = {"do": "poll", "t": 3010, "client": THIRD, "begun": 3005, "records": records, "rebalanced": [0]}
        commit = {"do": "commit", "t": 3020, "client": THIRD, "group": 1, "offsets": [[0, len(records)]]}
        self.journal += [poll, commit, {**commit, "do": "committed", "t": 3030, "partitions": [0]}]
        self.assertEqual((self.laws(self.journal), history.complaints(self.journal)), (set(), []))
        del poll["records"][:2]
        self.assertTrue(any("group 1 committed" in text and "read 2 below, from 0" in text for text in history.complaints(self.journal)))

    def reader(self):
        """A consumer without a group; returns its polls."""
        self.journal.append({"do": "assign", "t": 3000, "client": THIRD, "partitions": [0, 1]})
        records = final_read(self.journal)["records"]
        polls = [
            {"do": "poll", "t": 3010 + at * 10, "client": THIRD, "begun": 3005 + at * 10, "records": records[at * SIZE : (at + 1) * SIZE], "rebalanced": []}
            for at in range(len(records) // SIZE)
        ]
        self.journal += polls
        return polls

    def test_a_reader_of_its_own_that_reads_everything(self):
        self.reader()
        self.assertEqual((self.laws(self.journal), history.complaints(self.journal)), (set(), []))

    def test_a_reader_that_is_not_given_the_first_record(self):
        polls = self.reader()
        polls[0]["records"] = polls[0]["records"][1:]
        self.assertIn("poll-skip", self.laws(self.journal))

    def test_a_reader_that_skips_records(self):
        self.reader()[1]["records"] = []
        self.assertIn("poll-skip", self.laws(self.journal))

    def test_a_reader_that_is_given_records_again(self):
        polls = self.reader()
        polls[1]["records"] = copy.deepcopy(polls[0]["records"])
        self.assertIn("nonmonotonic-poll", self.laws(self.journal))

    def kept(self, fetched, took=10):
        """In a group without members 100 and then 200 are committed, and this is fetched. `took`: ns until the first answer."""
        at = {"client": THIRD, "group": KEPT}
        for begun, ended, offset in ((3000, 3000 + took, 100), (3020 + took, 3030 + took, 200)):
            self.journal.append({"do": "commit", "t": begun, "offsets": [[0, offset]], **at})
            self.journal.append({"do": "committed", "t": ended, "partitions": [0], **at})
        self.journal.append({"do": "fetched", "t": 3050 + took, "begun": 3040 + took, "offsets": [[0, fetched]], **at})
        self.assertEqual(history.complaints(self.journal), [])
        return self.laws(self.journal)

    def test_offsets_of_a_group_without_members(self):
        self.assertEqual(self.kept(200), set())

    def test_an_offset_of_a_group_without_members_that_is_forgotten(self):
        self.assertEqual(self.kept(None), {"committed-offset-forgotten"})

    def test_an_offset_of_a_group_without_members_that_goes_back(self):
        self.assertEqual(self.kept(100), {"committed-offset-forgotten"})

    def test_an_offset_of_another_group_is_invented(self):
        self.assertEqual(self.kept(3), {"committed-offset-invented"})

    def test_a_commit_that_may_have_been_sent_twice_may_arrive_late(self):
        self.assertEqual(self.kept(100, history.REPEATED_NS), set())

    def test_a_producer_that_gives_up_and_a_false_end(self):
        self.journal.append({"do": "gave up", "t": 7, "client": 64, "why": "fatal"})
        error = {"do": "error", "t": 8, "client": FIRST, "code": "OFFSET_OUT_OF_RANGE", "why": "x", "partition": 0, "offset": 3}
        self.journal.append(error)
        self.assertEqual(len(history.complaints(self.journal)), 2)

    def test_a_truncation_that_was_none(self):
        why = 'KafkaError{str="Partition log truncation detected at offset 136 (leader epoch 2): broker end offset is 124 (offset leader epoch 0)."}'
        told = {"do": "error", "t": 8, "client": FIRST, "code": "_AUTO_OFFSET_RESET", "why": why, "partition": 0, "offset": None}
        self.assertEqual(truncations.claim(told), (2, 136))
        ends = {(2, 136): True, (2, 385): True, (2, 135): False, (0, 124): False, (-1, -1): False}
        self.assertEqual({end: truncations.is_refuted((2, 136), end) for end in ends}, ends)
        self.assertEqual(len(history.complaints([told])), 1)
        self.assertEqual(history.complaints([{**told, "refuted": (2, 385)}]), [])

    def test_an_application_that_is_told_of_an_upgrade(self):
        for line in self.journal:
            if line["do"] == "sent":
                line["role"] = history.PATIENT
            if line["do"] == "committed":
                line["errors"] = []
        whole = lambda: history.application_errors(self.journal, 0, 1 << 62)
        self.assertEqual(whole(), [])
        commits = lines_of(self.journal, "committed")
        commits[0]["errors"] = ["REBALANCE_IN_PROGRESS"]
        self.assertEqual(whole(), [])
        commits[0]["errors"] = ["NOT_COORDINATOR"]
        lines_of(self.journal, "sent")[1]["results"][0] = [None, 0]
        error = {"do": "error", "t": 8, "client": FIRST, "code": "_TRANSPORT", "why": "x", "partition": 0, "offset": 3}
        self.journal.append(error)
        self.assertEqual(len(whole()), 3)
        self.assertEqual(history.application_errors(self.journal, 7, 9), [whole()[-1]])
        # Who gives up early is not meant.
        lines_of(self.journal, "sent")[1]["role"] = "hasty"
        self.assertEqual(len(whole()), 2)


class Gaps(unittest.TestCase):
    def test_a_gap_that_only_reaches_into_the_time_counts_whole(self):
        self.assertEqual(history.longest_gap([10, 50, 60, 90], 40, 65), 40)
        self.assertEqual(history.longest_gap([90, 10, 60, 50], 55, 65), 30)

    def test_a_gap_outside_the_time_does_not_count(self):
        self.assertEqual(history.longest_gap([10, 50, 60, 61, 62, 90], 60, 62), 1)

    def test_a_partition_that_is_silent_in_the_end_has_a_gap_until_then(self):
        self.assertEqual(history.longest_gap([10, 20], 20, 100), 80)
        self.assertEqual(history.longest_gap([], 20, 100), 80)


if __name__ == "__main__":
    unittest.main()
