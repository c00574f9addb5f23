"""What was found wrong, each with the operations around it: what was acknowledged at these offsets, what was read there, and by whom.

May not know: which laws there are.
"""

import dataclasses
import re

from page.markup import details, element, listing, paragraph, section, short, table, text

OFFSETS_AROUND = 3
OFFSETS_NAMED_MAX = 2
# Commits and fetches of the partition before and after, where a finding is on a committed offset.
REGISTER_AROUND = 4
# With their operations, of each law; of the others there is the sentence.
SHOWN_MAX = 4
ROWS_MAX = 40
NAMED_MAX = 6
VALUES_MAX = 8
SHIFT = 32


@dataclasses.dataclass
class Operation:
    """Two lines of the history; without the second no answer came."""

    number: int
    invoked: dict
    completed: dict | None = None

    @property
    def action(self):
        return next(iter(self.invoked["do"].items()))

    @property
    def kind(self):
        return self.action[0]

    @property
    def told(self):
        """What it was answered, else what it asked for."""
        return (self.completed or self.invoked)["do"][self.kind]

    @property
    def outcome(self):
        return self.completed["type"].replace("info", "unknown") if self.completed else "no answer"


def operations(events):
    """Each when it is completed, and at last those that never were. A process has one operation at a time."""
    open_ones, unanswered = {}, []
    for number, event in enumerate(events):
        if event["type"] == "invoke":
            unanswered += filter(None, [open_ones.get(event["process"])])
            open_ones[event["process"]] = Operation(number, event)
        elif event["process"] in open_ones:
            operation = open_ones.pop(event["process"])
            operation.completed = event
            yield operation
    yield from [*unanswered, *open_ones.values()]


def offsets_around(offsets):
    """The offsets that are shown for those which are named."""
    near = {offset + n for offset in offsets[:OFFSETS_NAMED_MAX] for n in range(-OFFSETS_AROUND, OFFSETS_AROUND + 1)}
    return sorted(offset for offset in near if offset >= 0)


def places_of(operation):
    """(partition, offset, value) of what it sent, read or committed; the offset is none where nobody knows it, the value where there is none."""
    told = operation.told
    if operation.kind in ("commit", "fetch"):
        return [(told["partition"], told["offset"], None)]
    if operation.kind == "txn":
        # What it has polled is in the polls of others, too.
        records = [step["send"] for step in told["micro"] if "send" in step]
    else:
        records = told if operation.kind == "send" else told.get("records", []) if operation.kind in ("poll", "read") else []
    return [(record["partition"], record.get("offset"), record["value"]) for record in records]


def in_full(operation):
    """What it is about, where no offset says what matters of it."""
    places = places_of(operation)
    named = []
    for partition, offset, value in places[:VALUES_MAX]:
        named.append(f"{partition}/{'?' if offset is None else offset}" + ("" if value is None else f": {value}"))
    return ", ".join(named) + (f" and {len(places) - VALUES_MAX} more" if len(places) > VALUES_MAX else "")


class Around:
    """The tables of findings. `wanted`: the places, as (partition, offset), that any of them shows; `named`: the numbers of the operations
    that any of them names."""

    def __init__(self, recorded, wanted, named):
        self.recorded = recorded
        # By the number of the line that begins it.
        self.operations = {}
        # In one pass, for a history is large, and no more of it is kept: what has to do with a place, in the order of time.
        self.there = {place: [] for place in wanted}
        # By group and partition: commits and fetches of its committed offset.
        self.registers = {}
        partitions = {partition for partition, _ in wanted}
        for operation in operations(recorded.events() if wanted or named else ()):
            key, is_shown = register_of(operation), operation.number in named
            if key and key[1] in partitions:
                self.registers.setdefault(key, []).append(operation)
                is_shown = True
            for partition, offset, value in places_of(operation):
                if (partition, offset) in self.there:
                    self.there[partition, offset].append((operation, value))
                    is_shown = True
            if is_shown:
                self.operations[operation.number] = operation
        for there in self.there.values():
            there.sort(key=lambda one: one[0].number)
        for register in self.registers.values():
            register.sort(key=lambda one: one.number)

    def who(self, event):
        return f"{event['client']} ({self.recorded.roles.get(event['client'], '?')})"

    def at(self, event):
        return f"{self.recorded.seconds(event['time']):.3f}" if event else "never"

    def offsets(self, partition, near, named):
        """What was acknowledged and what was read at each offset."""
        rows, marked = [], {number for number, offset in enumerate(near) if offset in named}
        for offset in near:
            sent, read = [], {}
            for operation, value in self.there[partition, offset]:
                if operation.kind in ("send", "txn"):
                    sent.append(f"{value} to client {self.who(operation.invoked)}, sent at {self.at(operation.invoked)} s")
                elif value is not None:
                    read.setdefault(value, []).append(operation)
            first = lambda by: f"first at {self.at(by[0].completed)} s by client {self.who(by[0].invoked)}"
            seen = [f"{value}: {times(len(by))}, {first(by)}" for value, by in read.items()]
            never = element("span", "never", class_="missing") if sent else "–"
            rows.append([str(offset), "<br>".join(map(text, sent)) or "–", "<br>".join(map(text, seen)) or never])
        return table(["offset", "acknowledged", "read"], rows, marked)

    def register_around(self, partition, named):
        """If the finding is on a committed offset: the commits and fetches before and after those that it names first."""
        found = []
        for key in dict.fromkeys(register_of(self.operations[number]) for number in named if number in self.operations):
            register = self.registers.get(key, []) if key and key[1] == partition else []
            places = [place for place, one in enumerate(register) if one.number in named[:OFFSETS_NAMED_MAX]]
            found += [one for place in places for one in register[max(place - REGISTER_AROUND, 0) : place + REGISTER_AROUND + 1]]
        return found

    def rows(self, partition, near, named):
        """(operation, what of it lies there, whether the finding names it), in the order of time; not too many, but all that are named."""
        about = {number: [] for number in named if number in self.operations}
        for operation in self.register_around(partition, named):
            if operation.told["offset"] not in near:
                about[operation.number] = [f"{operation.told['offset']}"]
        for offset in near:
            for operation, value in self.there[partition, offset]:
                about.setdefault(operation.number, []).append(f"{offset}" if value is None else f"{offset}: {value}")
        others = self.without_repeats([number for number in sorted(about) if number not in named], about)[:ROWS_MAX]
        chosen = sorted({*others, *[number for number in about if number in named][:ROWS_MAX]})
        return [(self.operations[number], ", ".join(about[number]) or in_full(self.operations[number]), number in named) for number in chosen]

    def without_repeats(self, numbers, about):
        """Without fetches that told a client the same as the one before: it waited for something else."""
        kept, before = [], None
        for number in numbers:
            one = self.operations[number]
            told = (one.kind, one.invoked["client"], about[number])
            if one.kind != "fetch" or told != before:
                kept.append(number)
            before = told
        return kept

    def table(self, partition, near, named):
        chosen = self.rows(partition, near, named)
        if not chosen:
            return ""
        rows = [
            [self.at(one.invoked), self.at(one.completed), short(self.who(one.invoked)), one.kind, short(one.outcome), element("code", text(about))]
            for one, about, _ in chosen
        ]
        marked = {number for number, one in enumerate(chosen) if one[2]}
        return table(["begun", "ended", "client", "kind", "outcome", "offset: value"], rows, marked)

    def when(self, named):
        """In which faults the named operations were, the offending first."""
        told = []
        for number in [number for number in named if number in self.operations][:NAMED_MAX]:
            one = self.operations[number]
            begun, ended = one.invoked["time"], (one.completed or one.invoked)["time"]
            during = [f"{n} ({fault['kind']})" for n, fault in enumerate(self.recorded.faults, 1) if fault["begun"] <= ended and begun <= fault["ended"]]
            told.append(f"{one.kind} at {self.at(one.invoked)} s, " + (f"in fault {', '.join(during)}" if during else "in no fault"))
        return told

    def show(self, partition, offsets, named):
        near = offsets_around(offsets) if partition is not None else []
        parts = [paragraph(f"It names: {'; '.join(told)}.")] if (told := self.when(named)) else []
        if near:
            parts += [element("h3", text(f"Offsets of partition {partition}")), self.offsets(partition, near, offsets)]
        if listed := self.table(partition, near, named):
            parts += [element("h3", "Operations there, in the order of time"), listed]
        return "".join(parts)


def register_of(operation):
    """The group and the partition of a committed offset; None of any other operation."""
    return (operation.told["group"], operation.told["partition"]) if operation.kind in ("commit", "fetch") else None


def times(count):
    return "once" if count == 1 else f"{count} times"


def place_in(sentence):
    """The partition and the offsets that a sentence names."""
    partition = re.search(r"\bpartition (\d+)", sentence)
    offsets = [int(number) for number in re.findall(r"\b(?:offset|from) (\d+)", sentence)]
    return (int(partition[1]), offsets) if partition and offsets else (None, [])


def findings(recorded):
    return recorded.facts["judged"]["findings"] if recorded.facts["judged"] else []


def of_the_run(recorded):
    """The complaints without the checker's findings, which are among them."""
    said = {f"{one['law']}: {one['sentence']}" for one in findings(recorded)}
    return [sentence for sentence in recorded.facts["complaints"] if sentence not in said]


def wrong(recorded):
    """All that makes the run not valid: (law or none, sentence, partition, offsets, named operations, the offending first)."""
    found = []
    for one in findings(recorded):
        named = [neighbour["invoked"] for neighbour in one["operations"]]
        found.append((one["law"], one["sentence"], one["partition"], one["offsets"], named))
    return found + [(None, sentence, *place_in(sentence), []) for sentence in of_the_run(recorded)]


def section_of(recorded):
    found = wrong(recorded)
    if not found:
        return section("Anomalies", paragraph("None."))
    wanted = {(partition, offset) for _, _, partition, offsets, _ in found if partition is not None for offset in offsets_around(offsets)}
    all_named = {number for _, _, _, _, named in found for number in named}
    around, shown, parts, further = Around(recorded, wanted, all_named), {}, [], []
    for law, sentence, partition, offsets, named in found:
        shown[law] = shown.get(law, 0) + 1
        title = (element("b", text(f"{law}: ")) if law else "") + text(sentence)
        if shown[law] > SHOWN_MAX:
            further.append(title)
        elif tables := around.show(partition, offsets, named):
            parts.append(details(title, tables, is_open=shown[law] == 1))
        else:
            parts.append(element("p", title))
    broken = (recorded.facts["judged"] or {}).get("broken", {})
    counted = ", ".join(f"{law} {count}" for law, count in broken.items())
    head = [paragraph(f"How often each law was broken: {counted}. The checker keeps the first 32 of each.")] if counted else []
    if further:
        parts.append(details(text(f"{len(further)} more"), listing(further)))
    legend = "Marked: what the finding names. Of fetches in a row with one answer the first is shown. A record's value is its client's number times 2^32, and its own number."
    return section("Anomalies", *head, paragraph(legend, "soft"), *parts)
