"""The sections of the page but for the anomalies: the verdict, the faults, three charts, the operations, the logs.

May not know: how a run is made.
"""

import datetime
import math
import re

import compacted
import history
import topics
import transactions
import workloads
from page import anomalies, series
from page.chart import Chart, charts, duration_text
from page.markup import details, element, facts, listing, paragraph, section, short, table, text
from places import PLAIN

LINE_CHARACTERS_MAX = 600
BAR_PIXELS = 140
SENTENCE_CHARACTERS_MAX = 400
STAMP = re.compile(r"^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+)Z ")


def why(recorded):
    """One sentence on the verdict."""
    facts_of, judged = recorded.facts, recorded.facts["judged"] or {}
    if facts_of["complaints"]:
        broken = ", ".join(f"{law} ({count})" for law, count in judged.get("broken", {}).items())
        others = anomalies.of_the_run(recorded)
        first = f"complaints of the run: {len(others)}, the first: {others[0][:SENTENCE_CHARACTERS_MAX]}" if others else ""
        return "; ".join(filter(None, (broken and f"Laws that were broken: {broken}", first)))
    if facts_of["outcome"] == "unknown" and facts_of["without_effect"]:
        return f"Nothing was found wrong, but a fault had no effect: {'; '.join(facts_of['without_effect'])}"
    if judged.get("verdict") != "valid":
        return "Nothing was found wrong, but nothing was read back either, so nothing was proved."
    plan = workloads.PLANS[facts_of.get("workload", workloads.GROUP)]
    # Not where the cluster began with an older build.
    has_transactions = any(line["do"] == "begin" for line in recorded.journal)
    proved = {
        "every acknowledged record was read at its offset, none twice and none out of order": PLAIN in plan.producers,
        "no committed offset was forgotten": plan.strategies or plan.keepers,
        "every node shows what was acknowledged of topics": plan.admins,
        "every transaction is there as a whole or not at all, and each record of the input was processed once": has_transactions and plan.transforms,
        "whoever read the whole compacted topic found the latest record of each key": plan.rereaders,
        "after each fault everything made progress again": True,
    }
    sentence = "; ".join(what for what, is_so in proved.items() if is_so)
    return f"{sentence[0].upper()}{sentence[1:]}."


def counts(recorded):
    found, (changes, unknown, looks) = history.counts(recorded.journal), topics.counts(recorded.journal)
    named = {
        "records acknowledged": found["acknowledged"],
        "records of unknown outcome": found["unknown"],
        "records read by consumers": found["polled"],
        "commits acknowledged": found["commits"],
        "records read and checked in all": (recorded.facts["judged"] or {}).get("records_read", 0),
        "faults": sum(fault["gap"] is not None for fault in recorded.faults),
    }
    if looks:
        named |= {"changes of topics acknowledged": changes, "changes of unknown outcome": unknown, "answers on topics": looks}
    done = transactions.counts(recorded.journal)
    if done["committed"]:
        outcomes = {"committed": done["committed"], "aborted": done["aborted"], "of unknown outcome": done["unknown"]}
        named |= {f"transactions {outcome}": number for outcome, number in outcomes.items()}
    if (swept := compacted.counts(recorded.journal))["reads"]:
        named |= {"readings of the whole compacted topic": swept["reads"] + swept["observed"], "of its records gone in the end": swept["gone"]}
    cells = [element("li", element("b", f"{number:,}") + text(name)) for name, number in named.items()]
    return element("ul", "".join(cells), class_="counts")


def verdict(recorded):
    given = recorded.facts
    outcome = given["outcome"].lower()
    shown = "not valid" if outcome == "invalid" else outcome
    head = element("h1", text("Chaos run: ") + element("b", text(shown))) + paragraph(why(recorded))
    zones = ", ".join(f"{node} in zone {zone}" for node, zone in given["zones"].items())
    began = datetime.datetime.fromtimestamp(given["unix"], datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    name = given.get("workload", workloads.GROUP)
    rows = {
        "seed": given["seed"],
        "nodes": f"{given['nodes']}: {zones}",
        "workload": f"{name}: {workloads.MEANINGS[name]}",
        "faults asked for": ", ".join(given["kinds"]),
        "start": began,
        "duration": f"{recorded.seconds(given['ended']):.1f} s",
        **given["about"],
    }
    note = paragraph(given["note"], "note") if given.get("note") else ""
    seed = "The seed decides the faults and their order, not how threads and packets run. All times here are seconds since the clients' start."
    parts = [note, element("div", head, class_=f"verdict {outcome}"), counts(recorded), paragraph("The command that repeats the run:")]
    return "".join([*parts, element("pre", text(given["command"]), class_="wrap"), paragraph(seed, "soft"), facts(rows.items())])


def bands(recorded):
    """The faults as a chart has them. One that never was over lasts to the end."""
    found = []
    for number, fault in enumerate(recorded.faults, 1):
        begun, ended = recorded.seconds(fault["begun"]), recorded.seconds(fault["ended"])
        over = ended if fault["over"] is None else recorded.seconds(fault["over"])
        found.append((number, fault["kind"], fault["title"], begun, over, ended))
    return found


def unavailability(recorded):
    """A row for each fault, with the longest time in which a partition acknowledged nothing."""
    greatest = max((fault["gap"] or 0 for fault in recorded.faults), default=0) or 1
    rows = []
    for (number, kind, title, begun, over, ended), fault in zip(bands(recorded), recorded.faults):
        gap = fault["gap"]
        bar = element("span", "", class_="bar", style=f"width:{(gap or 0) / greatest * BAR_PIXELS:.0f}px")
        failed = element("span", text(f"; {fault['failure']}"), class_="missing") if fault["failure"] else ""
        crashed = text(f"; client {fault['crashed']} was killed meanwhile") if fault["crashed"] else ""
        over_after = "–" if fault["over"] is None else f"{over - begun:.1f} s"
        cells = [short(f"{number} {kind}"), text(title) + crashed + failed, *map(short, (f"{begun:.1f} s", over_after, f"{ended - begun:.1f} s"))]
        rows.append([*cells, "–" if gap is None else element("span", f"{gap:.2f} s{bar}", class_="short")])
    said = (
        "Longest gap: the longest time between two acknowledgements of one partition, in the fault and until every partition took records again; of "
        "the producers that wait for a minute. Ready: every node was ready again. Recovered: every partition had taken records again."
    )
    head = ["fault", "what was done", "at", "ready after", "recovered after", "longest gap"]
    return section("Unavailability by fault", paragraph(said, "soft"), table(head, rows) if rows else paragraph("There was no fault."))


def legend(names, *more):
    """`names`: class of a colour, and what it stands for."""
    keys = [element("li", element("span", "", class_=f"key {name}") + text(words)) for name, words in names.items()]
    return element("ul", "".join(keys + [element("li", text(words)) for words in more]), class_="legend")


BANDS = {"fault": "a fault", "after": "until every partition took records again"}


def latency(recorded):
    found = series.points(recorded.journal)
    ended = [(point.ended - point.begun) / 1e9 for point in found if point.ended is not None]
    if not ended:
        return section("Latency", paragraph("No operation ended."))
    least = 10.0 ** math.floor(math.log10(max(min(ended), 1e-5)))
    greatest = max(10.0 ** math.ceil(math.log10(max(*ended, least))), least * 10)
    left_out = []

    def draw(size):
        chart = Chart(size, recorded.duration, greatest, least)
        chart.bands(bands(recorded))
        chart.logarithmic("log scale")
        took = lambda one: None if one.ended is None else (one.ended - one.begun) / 1e9
        places = lambda kind, done: [(recorded.seconds(one.begun), took(one)) for one in found if one.kind == kind and one.done == done]
        left_out.append(sum(chart.dots(places(kind, True), kind) for kind in series.KINDS))
        for kind in series.KINDS:
            chart.crosses(places(kind, False), kind)
        return chart

    drawn = charts(draw, "Latency of each operation over time")
    cross = "× the outcome is unknown, or it failed; at the upper edge: the client was killed before an answer came"
    keys = legend({**series.KINDS, **BANDS}, cross)
    said = f"A dot for each operation, at the time when it began. {len(found):,} operations; those that would lie on each other are one dot"
    said += f"; {left_out[0]:,} more are left out between the others." if left_out[0] else "."
    return section("Latency", paragraph(said, "soft"), keys, drawn)


def over_time(recorded, steps, label, unit, name):
    greatest = max((value for _, value in steps), default=0) or 1

    def draw(size):
        chart = Chart(size, recorded.duration, greatest * 1.05)
        chart.bands(bands(recorded))
        chart.linear(unit)
        chart.steps(steps, name)
        return chart

    return charts(draw, label)


def throughput(recorded):
    moments = [recorded.seconds(t) for t, _ in series.acknowledged(recorded.journal)]
    steps = list(enumerate(series.per_second(moments, recorded.duration)))
    said = f"Records acknowledged in each second; {len(moments):,} in all. Producers pause between bursts: no measure of what a cluster can do."
    return section("Throughput", paragraph(said, "soft"), over_time(recorded, steps, "Acknowledged records by second", "records/s", "send"))


def unseen(recorded):
    changes, never = series.unseen(recorded.journal)
    steps = [(recorded.seconds(t), value) for t, value in changes]
    shown = series.thinned(steps, recorded.duration, 600)
    peak = max((value for _, value in steps), default=0)
    said = f"Acknowledged records that no consumer has read yet: at most {peak:,} at a time; "
    end = element("span", text(f"{never:,} were never read."), class_="missing") if never else text("in the end none.")
    head = element("p", text(said) + end, class_="soft")
    return section("Unseen records", head, over_time(recorded, shown, "Acknowledged records that nobody has read", "records", "commit"))


def operations(recorded):
    rows = []
    for kind, (count, unknown, silent, *took) in series.summary(series.points(recorded.journal)).items():
        numbers = ["–" if one is None else duration_text(one / 1e9) for one in took]
        rows.append([text(kind), f"{count:,}", f"{unknown:,}", f"{silent:,}", *numbers])
    head = ["operation", "how many", "failed or unknown", "client killed", "median", "99 %", "longest"]
    errors = {}
    for line in recorded.journal:
        codes = [line["code"]] if line["do"] == "error" else line.get("errors", []) if line["do"] == "committed" else []
        for code in codes:
            errors[code, line["do"]] = errors.get((code, line["do"]), 0) + 1
    said = [text(f"{code} to {'a consumer' if what == 'error' else 'a commit'}: {count} times") for (code, what), count in sorted(errors.items())]
    told = element("h3", "Errors that clients got") + listing(said) if said else ""
    return section("Operations", table(head, rows) if rows else paragraph("None."), told)


def since_start(line, unix):
    """A line of a node's log with its time as everything here has it."""
    stamp = STAMP.match(line)
    if stamp is None:
        return line
    moment = datetime.datetime.fromisoformat(stamp[1][:26] + "+00:00").timestamp() - unix
    return f"{moment:8.3f} {line[stamp.end():].lstrip()}"


def logs(recorded):
    parts = []
    for name, lines in recorded.logs().items():
        shown = "\n".join(since_start(line, recorded.facts["unix"])[:LINE_CHARACTERS_MAX] for line in lines)
        parts.append(details(text(f"{name}: last {len(lines)} lines"), element("pre", text(shown) or "(empty)")))
    return section("Logs", *parts)
