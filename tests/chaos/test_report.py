#!/usr/bin/env python3
"""Tests of the page of a chaos run: it says what it has to, runs and loads nothing, and stays small.

Usage: tests/chaos/test_report.py. Made-up runs; needs no broker, no judge and no client.
"""

import html.parser
import itertools
import json
import pathlib
import re
import tempfile
import types
import unittest

import history
import page
from falsify import lost, without
from page import anomalies, recorded, series, surroundings
from page.chart import DOTS_MAX, SIZES, Chart, nice_step

SECOND = 1_000_000_000
BEGAN = 5_000 * SECOND
PRODUCER, HASTY, MEMBER, OBSERVER = 64, 128, 192, 0
NASTY = "<script>alert('x')</script> & \x1b[31mred\x1b[0m \x00"
LOST = (PRODUCER << 32) + 6
VOID = {"meta", "br"}


def value(number, client=PRODUCER):
    return (client << 32) + number


def journal_of(bursts=5, size=4):
    """A producer's bursts to two partitions, a second apart; a member reads and commits each; one burst of another producer gets no answer."""
    lines, logs = [], [[], []]

    def say(at, what, client, role=None, **more):
        lines.append({"do": what, "t": BEGAN + int(at * SECOND), "client": client, **({"role": role} if role else {}), **more})

    def moment(at):
        return BEGAN + int(at * SECOND)

    say(0, "subscribe", MEMBER, "member-0")
    for burst in range(bursts):
        records = [[n % 2, value(burst * size + n)] for n in range(size)]
        say(burst + 0.1, "send", PRODUCER, "patient", records=records)
        results, before = [], [len(log) for log in logs]
        for number, (partition, sent) in enumerate(records):
            results.append([len(logs[partition]), moment(burst + 0.11 + number / 1000)])
            logs[partition].append(sent)
        say(burst + 0.12, "sent", PRODUCER, "patient", results=results)
        read = [[p, offset, logs[p][offset]] for p in range(2) for offset in range(before[p], len(logs[p]))]
        say(burst + 0.5, "poll", MEMBER, "member-0", begun=moment(burst + 0.3), records=read, rebalanced=[0, 1] if burst == 0 else [])
        say(burst + 0.6, "commit", MEMBER, "member-0", offsets=[[p, len(logs[p])] for p in range(2)])
        say(burst + 0.61, "committed", MEMBER, "member-0", partitions=[0, 1], errors=[])
    say(bursts - 0.3, "send", HASTY, "hasty", records=[[0, value(1, HASTY)]])
    everything = [[p, offset, one] for p, log in enumerate(logs) for offset, one in enumerate(log)]
    say(bursts, "read", OBSERVER, begun=moment(bursts - 0.2), records=everything, ends=[[0, len(logs[0])], [1, len(logs[1])]])
    return sorted(lines, key=lambda line: line["t"])


def fault(kind, begun, over, ended, **more):
    t = lambda at: None if at is None else BEGAN + int(at * SECOND)
    times = {"begun": t(begun), "over": t(over), "ended": t(ended)}
    return {"kind": kind, "title": f"{kind} node 1", **times, "gap": 0.75, "crashed": None, "failure": None, **more}


def finding_of(journal):
    """What the checker says of the lost record, with the lines that its history has."""
    events = [json.loads(line) for line in history.of_journal(journal)]
    sends = lambda event: event["do"].get("send", [])
    number = next(n for n, event in enumerate(events) if event["type"] == "invoke" and any(one["value"] == LOST for one in sends(event)))
    offset = next(one["offset"] for event in events if event["type"] == "ok" for one in sends(event) if one["value"] == LOST)
    return {
        "law": "lost-write",
        "partition": 0,
        "offsets": [offset],
        "operations": [{"operation": number, "invoked": number, "completed": number + 1}],
        "sentence": f"value {LOST} was written at offset {offset} of partition 0 and never read",
    }


class Tags(html.parser.HTMLParser):
    """Every element is closed, in order; what would load or run something is kept."""

    def __init__(self):
        super().__init__()
        self.open, self.seen, self.loads, self.words = [], set(), [], []

    def handle_starttag(self, tag, attrs):
        self.seen.add(tag)
        self.loads += [one for one in attrs if one[0] in ("src", "href", "action") or one[0].startswith("on")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def shown(self):
        return re.sub(r"\s+", " ", " ".join(self.words))


class Report(unittest.TestCase):
    def setUp(self):
        place = tempfile.TemporaryDirectory()
        self.addCleanup(place.cleanup)
        self.directory = pathlib.Path(place.name)
        for node in (1, 2):
            (self.directory / f"node-{node}").mkdir()
            log = f"2026-11-24T20:00:03.250000Z  WARN node {node}: {NASTY}\nno time here\n"
            (self.directory / f"node-{node}" / "broker.log").write_text(log)

    def run_of(self, journal, outcome="valid", **more):
        """A run that was kept, and is read again."""
        (self.directory / "history.jsonl").write_text("".join(f"{line}\n" for line in history.of_journal(journal)))
        facts = {
            "outcome": outcome,
            "command": "sudo tests/chaos/run.py --nodes 2 --seed 42",
            "seed": 42,
            "nodes": 2,
            "kinds": ["kill", "cut"],
            "time_limit": 0.0,
            "zones": {1: "a", 2: "b"},
            "about": {"broker": f"ottla 9.9.9 {NASTY}", "machine": "2 cores"},
            "began": BEGAN,
            "ended": BEGAN + 6 * SECOND,
            # 2026-11-24 20:00:00
            "unix": 1795550400.0,
            "faults": [fault("kill", 1, 2, 2.5, crashed="hasty"), fault("cut", 3, 4, 4)],
            "complaints": [],
            "without_effect": [],
            "judged": {"verdict": "valid", "broken": {}, "findings": [], "records_read": 20},
            **more,
        }
        recorded.keep(recorded.Recorded(self.directory, facts, journal))
        return recorded.load(self.directory)

    def invalid(self):
        journal = without(journal_of(), LOST)
        for at in (SECOND, 2 * SECOND):
            at += BEGAN + 5 * SECOND
            journal.append({"do": "fetched", "t": at, "client": OBSERVER, "begun": at - 1000, "offsets": [[0, 3]]})
        finding = finding_of(journal)
        judged = {"verdict": "invalid", "broken": {"lost-write": 1}, "findings": [finding], "records_read": 18}
        others = [f"node 2: panicked at {NASTY}", "the group committed offset 10 of partition 0, but nobody in it read 1 below, from 3"]
        complaints = [*others, f"lost-write: {finding['sentence']}"]
        return self.run_of(journal, "INVALID", judged=judged, complaints=complaints)

    def page_of(self, run):
        """The page, and what a reader sees of it; whatever is in it, it is sound."""
        written = page.write(run, self.directory / page.NAME)
        text = written.read_text(encoding="utf-8")
        tags = Tags()
        tags.feed(text)
        tags.close()
        self.assertEqual(tags.open, [])
        self.assertEqual(tags.loads, [])
        self.assertFalse(tags.seen & {"script", "link", "img", "iframe", "object", "embed", "base", "form"})
        self.assertNotIn("url(", text)
        self.assertNotIn("\x00", text)
        self.assertNotIn("\x1b", text)
        return text, tags.shown

    def test_a_valid_run(self):
        text, shown = self.page_of(self.run_of(journal_of()))
        self.assertIn("<title>Chaos run, seed 42: valid</title>", text)
        for words in (
            "Chaos run: valid",
            "sudo tests/chaos/run.py --nodes 2 --seed 42",
            "ottla 9.9.9",
            "2 cores",
            "1 in zone a, 2 in zone b",
            "2026-11-24 20:00:00 UTC",
            "20 records acknowledged",
            "1 records of unknown outcome",
            "Anomalies None.",
            "kill node 1; client hasty was killed meanwhile",
            "0.75 s",
            "in the end none.",
        ):
            self.assertIn(words, shown)
        self.assertLess(len(text), 60_000)

    def test_what_others_wrote_is_escaped(self):
        text, shown = self.page_of(self.invalid())
        self.assertNotIn("<script", text)
        self.assertGreaterEqual(text.count("&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt; &amp; red \\x00"), 4)
        self.assertIn("panicked at <script>", shown)

    def test_times_of_logs_are_seconds_since_the_start(self):
        _, shown = self.page_of(self.run_of(journal_of()))
        self.assertIn("3.250 WARN node 1", shown)
        self.assertIn("no time here", shown)

    def test_a_run_that_is_not_valid_shows_the_operations_around(self):
        text, shown = self.page_of(self.invalid())
        self.assertIn("Chaos run: not valid", shown)
        self.assertIn("Laws that were broken: lost-write (1); complaints of the run: 2, the first: node 2: panicked", shown)
        self.assertIn("lost-write 1", shown)
        # The finding stands once, though it is a complaint, too.
        self.assertEqual(shown.count(f"value {LOST} was written"), 1)
        # Its burst was sent when the first fault had begun.
        self.assertIn("It names: send at 1.100 s, in fault 1 (kill).", shown)
        # At the place itself: acknowledged, never read; beside it both.
        self.assertIn(f"3 {LOST} to client {PRODUCER} (patient), sent at 1.100 s never", shown)
        read = f"{value(8)}: 2 times, first at 2.500 s by client {MEMBER} (member-0)"
        self.assertIn(f"4 {value(8)} to client {PRODUCER} (patient), sent at 2.100 s {read}", shown)
        self.assertIn(f"1.100 1.120 {PRODUCER} (patient) send ok 2: {value(4)}, 3: {LOST}", shown)
        self.assertIn("(observer) read ok", shown)
        # The observer asked twice what the group has committed, and was told the same: one row in each of the two tables.
        self.assertEqual(shown.count("(observer) fetch ok 3"), 2)
        self.assertIn("1 were never read.", shown)
        self.assertIn('class="marked"', text)

    def test_a_sentence_that_names_a_place_has_its_operations(self):
        self.assertEqual(anomalies.place_in("the group committed offset 10 of partition 1, but nobody read 1 below, from 3"), (1, [10, 3]))
        self.assertEqual(anomalies.place_in("a consumer of partition 2 was told at offset 7: X"), (2, [7]))
        self.assertEqual(anomalies.place_in("partitions [1, 2] took no record for 30 s after the fault"), (None, []))
        run = self.run_of(journal_of(), "INVALID", complaints=["a consumer of partition 1 was told at offset 2: _BAD_MSG"])
        _, shown = self.page_of(run)
        self.assertIn("Offsets of partition 1", shown)

    def test_a_committed_offset_that_fell_back_shows_what_was_committed_around(self):
        journal = journal_of()
        at = BEGAN + 5 * SECOND
        journal.append({"do": "fetched", "t": at + 1000, "client": OBSERVER, "begun": at, "offsets": [[0, 4]]})
        journal.append({"do": "fetched", "t": at + 1000, "client": OBSERVER, "group": 9, "begun": at, "offsets": [[0, 77]]})
        events = [json.loads(line) for line in history.of_journal(journal)]
        invoked = lambda kind, offset: max(
            n for n, event in enumerate(events) if event["do"].get(kind, {}).get("offset", -1) == offset and event["do"][kind]["partition"] == 0
        )
        # Of a fetch only the answer names an offset; the commit has two lines.
        named = [invoked("fetch", 4) - 1, invoked("commit", 10) - 1]
        operations = [{"operation": n, "invoked": n, "completed": n + 1} for n in named]
        finding = {"law": "committed-offset-forgotten", "partition": 0, "offsets": [4, 10], "operations": operations, "sentence": "fetched 4"}
        judged = {"verdict": "invalid", "broken": {"committed-offset-forgotten": 1}, "findings": [finding], "records_read": 20}
        _, shown = self.page_of(self.run_of(journal, "INVALID", judged=judged, complaints=["committed-offset-forgotten: fetched 4"]))
        # The offending one first, though it is the later one.
        self.assertIn("It names: fetch at 5.000 s, in no fault; commit at 4.600 s, in no fault.", shown)
        for number, offset in enumerate((2, 4, 6, 8, 10)):
            self.assertIn(f"{number}.600 {number}.610 {MEMBER} (member-0) commit ok {offset}", shown)
        self.assertIn("5.000 5.000 0 (observer) fetch ok 4", shown)
        self.assertNotIn("fetch ok 77", shown)

    def test_many_findings_stay_few_tables(self):
        run = self.invalid()
        run.facts["judged"]["findings"] *= 32
        text, shown = self.page_of(run)
        self.assertEqual(shown.count("Offsets of partition 0"), anomalies.SHOWN_MAX + 1)
        self.assertIn("28 more", shown)
        self.assertLess(len(text), 150_000)

    def test_a_run_with_topics_says_what_was_done_with_them(self):
        change = {"do": "change", "t": BEGAN + SECOND, "client": 64, "topic": "a", "what": "create", "partitions": 1, "value": 7}
        journal = [change, {"do": "changed", "t": BEGAN + 2 * SECOND, "client": 64, "topic": "a", "error": None}]
        journal.append({"do": "described", "t": BEGAN + 3 * SECOND, "client": 0, "begun": BEGAN, "node": 1, "topics": []})
        text, shown = self.page_of(self.run_of(journal, workload="metadata"))
        self.assertIn("Every node shows what was acknowledged of topics; after each fault everything made progress again.", shown)
        self.assertIn("1 changes of topics acknowledged", shown)
        self.assertIn('class="dots change"', text)

    def test_a_fault_without_effect_and_one_that_never_ended(self):
        faults = [
            fault("pause", 1, None, 2, failure=f"without effect: {NASTY}"),
            fault("kill", 3, None, 6, failure="kill: waited 60 s until every node serves"),
        ]
        run = self.run_of(journal_of(), "unknown", faults=faults, without_effect=["pause: node 1 answers while it is stopped"])
        _, shown = self.page_of(run)
        self.assertIn("Chaos run: unknown", shown)
        self.assertIn("a fault had no effect: pause: node 1 answers", shown)
        self.assertIn("waited 60 s until every node serves", shown)

    def test_a_run_in_which_nothing_happened(self):
        run = self.run_of([], "unknown", faults=[], judged={"verdict": "unknown", "broken": {}, "findings": []})
        _, shown = self.page_of(run)
        self.assertIn("nothing was read back", shown)
        self.assertIn("There was no fault.", shown)

    def test_a_note_stands_above_all(self):
        text, _ = self.page_of(self.run_of(journal_of(), note="This history was falsified."))
        self.assertLess(text.index("This history was falsified."), text.index("Chaos run: <b>"))

    def test_a_large_run_is_a_small_page(self):
        lines, t = [], BEGAN
        for burst in range(4_000):
            records = [[n % 6, value(burst * 25 + n)] for n in range(25)]
            lines.append({"do": "send", "t": t, "client": PRODUCER, "records": records})
            results = [[None if burst % 50 == 0 else burst * 25 + n, t + (burst * 7919 % 9973 + 1) * 100_000 + n * 90_001] for n in range(25)]
            lines.append({"do": "sent", "t": max(one[1] for one in results) + 1, "client": PRODUCER, "results": results})
            t += SECOND // 30
        run = self.run_of(lines, ended=t)
        text, shown = self.page_of(run)
        self.assertIn("100,000 operations", shown)
        self.assertLess(len(text), 1_000_000)


class Numbers(unittest.TestCase):
    def test_latencies_are_those_of_records(self):
        found = series.points(journal_of(bursts=1))
        took = [(point.kind, (point.ended - point.begun) // 1_000_000) for point in found if point.done]
        self.assertEqual(took, [("send", 10), ("send", 11), ("send", 12), ("send", 13), ("poll", 200), ("commit", 10), ("read", 200)])
        self.assertEqual([(point.kind, point.ended) for point in found if not point.done], [("send", None)])
        rows = series.summary(found)
        self.assertEqual(rows["send"], (5, 0, 1, 12_000_000, 13_000_000, 13_000_000))

    def test_an_unknown_outcome_has_the_time_at_which_the_client_gave_up(self):
        journal = [
            {"do": "send", "t": 100, "client": 1, "records": [[0, 1], [0, 2]]},
            {"do": "sent", "t": 900, "client": 1, "results": [[0, 300], [None, 0]]},
            {"do": "commit", "t": 1000, "client": 2, "offsets": [[0, 1], [1, 1]]},
            {"do": "committed", "t": 1200, "client": 2, "partitions": [0], "errors": ["NOT_COORDINATOR"]},
        ]
        found = [(point.kind, point.ended - point.begun, point.done) for point in series.points(journal)]
        self.assertEqual(found, [("send", 200, True), ("send", 800, False), ("commit", 200, False)])

    def test_unseen_counts_what_was_acknowledged_and_not_read(self):
        journal = journal_of(bursts=2)
        changes, never = series.unseen(journal)
        self.assertEqual([count for _, count in changes], [1, 2, 3, 4, 3, 2, 1, 0] * 2)
        self.assertEqual(never, 0)
        changes, never = series.unseen(without(journal, LOST))
        self.assertEqual((changes[-1][1], never), (1, 1))

    def test_a_record_read_before_its_acknowledgement_was_never_unseen(self):
        journal = journal_of(bursts=1)
        next(line for line in journal if line["do"] == "poll")["t"] = BEGAN
        self.assertEqual(series.unseen(journal), ([], 0))

    def test_seconds_are_counted_to_the_end(self):
        self.assertEqual(series.per_second([-0.1, 0.2, 0.9, 2.5, 9], 3.2), [3, 0, 1, 1])

    def test_no_peak_is_lost_by_thinning_and_it_does_not_last(self):
        steps = [(n / 100, 50 if n == 500 else n % 2) for n in range(1000)] + [(9.995, 0)]
        shown = series.thinned(steps, 20, 40)
        self.assertLessEqual(len(shown), 41)
        self.assertEqual(max(value for _, value in shown), 50)
        self.assertEqual(shown[-1], (10.0, 0))


class Drawing(unittest.TestCase):
    def test_steps_of_axes(self):
        self.assertEqual([nice_step(span, 10) for span in (75, 300, 8, 0.4)], [10, 50, 1, 0.05])

    def test_dots_lie_on_each_other_or_are_thinned_but_for_the_extremes(self):
        chart = Chart(SIZES[0], 100, 10.0, 0.001)
        self.assertEqual(chart.dots([(50, 1)] * 1000, "send"), 0)
        self.assertEqual(chart.parts[-1].count("h0"), 1)
        places = list(itertools.product((n / 10 for n in range(1000)), (10 ** (n / 100) for n in range(-300, 100))))
        left_out = chart.dots(places, "send")
        drawn = chart.parts[-1].count("h0")
        self.assertGreater(left_out, 0)
        self.assertLessEqual(drawn, DOTS_MAX + 1)
        top = round(chart.y(max(one for _, one in places)))
        self.assertIn(f"M{round(chart.x(99.9))} {top}h0", chart.parts[-1])

    def test_labels_of_bands_do_not_lie_on_each_other(self):
        chart = Chart(SIZES[1], 100, 10.0)
        chart.bands([(n, "kill", "x", n, n + 0.5, n + 0.9) for n in range(1, 60)])
        rows = {}
        for x, y in re.findall(r'<text x="(\d+)" y="(\d+)"', "".join(chart.parts)):
            rows.setdefault(y, []).append(int(x))
        for places in rows.values():
            self.assertTrue(all(b - a >= 2 * SIZES[1].letter for a, b in zip(places, places[1:])), places)
        self.assertEqual("".join(chart.parts).count('class="fault"'), 59)


class Falsified(unittest.TestCase):
    def test_what_is_taken_out_was_acknowledged_and_is_not_the_last_of_its_partition(self):
        for bursts in (1, 2, 5):
            journal = journal_of(bursts)
            partition, offset, taken = lost(journal)
            records = lambda: next(line for line in journal if line["do"] == "read")["records"]
            self.assertIn([partition, offset, taken], records())
            self.assertIn([partition, offset + 1], [record[:2] for record in records()])
            self.assertEqual(len(records()) - 1, len(next(line for line in without(journal, taken) if line["do"] == "read")["records"]))
            self.assertEqual(series.unseen(journal)[1], 1)


class Command(unittest.TestCase):
    def test_it_has_every_option_as_it_was_in_the_end(self):
        given = types.SimpleNamespace(
            nodes=3, nemesis="kill,cut", time_limit=0.0, seed=7, broker="/a b/ottla", old_broker=None, keep=True, report=None, kinds=["kill"],
            loud=True,
        )
        said = surroundings.command(given)
        self.assertTrue(said.endswith("tests/chaos/run.py --nodes 3 --nemesis kill,cut --time-limit 0 --seed 7 --broker '/a b/ottla' --loud"), said)


if __name__ == "__main__":
    unittest.main()
