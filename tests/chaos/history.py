"""Turns the clients' journals into a history for the checker (`tests/checker`: `event.rs` says what its lines mean), and has it judged.

A journal's lines, each with `t`, ns of the machine's monotonic clock, and `client`, a number that no other client has:

    send records [[partition, value]]         a producer's burst begins
    sent results [[offset or null, t]]        the outcome of each: acknowledged there and then, or unknown
    gave up why                               the producer can not go on
    subscribe group transactional             a member of a group; transactional: it reads transactions, and its offsets are part of others
    assign partitions                         a reader of its own, from the beginning
    poll begun records [[partition, offset, value]] rebalanced [partition] uncommitted       with it: the reader is at read_uncommitted
    fetched group begun offsets [[partition, offset or null]]    what the group had committed
    commit group offsets [[partition, offset]]                   begins
    committed partitions errors               those that were acknowledged; the others are unknown
    read begun records ends [[partition, offset]] uncommitted settled      everything, from the beginning; settled: when all is over. Of what was
                                              written since the ends were asked for, some may be among the records
    reached ends [[partition, offset]]        a reader of transactions was at these ends; one that transforms has processed what is below
    initialized name begun                    a producer with this transactional id; those before it are zombies
    not initialized name error                it begins again with another one
    begin name begun polled rebalanced        a transaction begins; of one that transforms what it has polled, the last three as in `poll`
    write records [[partition, value]] sources [[partition, offset]] or null     in the transaction; of what each is made
    offsets group offsets [[partition, offset]]                  in the transaction
    end commit                                its commit is asked for, or its abort
    done told results [[offset or null, t]] error    "committed", "aborted" or null: what was acknowledged
    error code why partition offset           a consumer got this error
    change topic what partitions value        create, alter, grow (more partitions) or delete a topic begins
    changed topic error                       without an error: it was acknowledged; else it is unknown
    described begun node settled topics [[name, id or null, partitions, value]]    what a node shows, or a client is told; settled: when all is over

A burst of which only a part was acknowledged becomes two operations: what is acknowledged has to be there, in its order; the rest may be.
A compacted partition is marked as one, and what is sent there has a key (`compacted.py`); a reading for which a tombstone may not have stayed is left out.
What is promised of topics is judged by `topics.py`, and what the checker cannot say of transactions by `transactions.py`.
May not know: faults, how clients are run.
"""

import array
import collections
import collections.abc
import functools
import json
import pathlib
import subprocess
import sys

import compacted
import topics
import transactions

ROOT = pathlib.Path(__file__).resolve().parents[2]
# A member gets this when another one joins or leaves, and starts again where the group has committed.
REBALANCES = {"REBALANCE_IN_PROGRESS", "ILLEGAL_GENERATION", "UNKNOWN_MEMBER_ID"}
# A client that waits longer for the answer to a commit may have sent it again, and what it sent first may arrive later than what it commits next.
REPEATED_NS = 2_500_000_000
# The producers whose message timeout outlasts a fault.
PATIENT = "patient"
# Errors that a consumer may get only if the log lost records, or the broker is wrong.
FALSE_ERRORS = {"_AUTO_OFFSET_RESET", "OFFSET_OUT_OF_RANGE", "_LOG_TRUNCATION", "_BAD_MSG", "_FATAL", "CORRUPT_MESSAGE"}


class Events:
    """Events of the checker, in the order of time; a client with several operations at a time is several processes.

    An action is a value, or makes one: what was read in an hour does not fit in memory as the checker's lines have it.
    """

    def __init__(self):
        self.events = []
        self.processes = {}

    def number(self, *who):
        return self.processes.setdefault(who, len(self.processes))

    def add(self, t, phase, client, role, action):
        self.events.append((t, len(self.events), self.number(client, role), client, phase, action))

    def pair(self, begun, ended, client, role, invoked, answered, phase="ok"):
        self.add(begun, "invoke", client, role, invoked)
        self.add(ended, phase, client, role, answered)

    def lines(self):
        for t, _, process, client, phase, action in sorted(self.events, key=lambda event: event[:2]):
            done = action() if callable(action) else action
            yield json.dumps({"time": t, "process": process, "client": client, "type": phase, "do": done})


class Records(collections.abc.Sequence):
    """(partition, offset, value) of records that a client was given: a tenth of what lists of them take."""

    def __init__(self, records):
        self.flat = array.array("q", (number for record in records for number in record))

    def __len__(self):
        return len(self.flat) // 3

    def __getitem__(self, at):
        if not 0 <= at < len(self):
            raise IndexError(at)
        return tuple(self.flat[3 * at : 3 * at + 3])

    def __iter__(self):
        numbers = iter(self.flat)
        return zip(numbers, numbers, numbers)


def compact(line):
    """A journal's line as it is kept."""
    for name in ("records", "polled"):
        if line["do"] in ("poll", "read", "begin") and name in line:
            line[name] = Records(line[name])
    return line


def record_of(partition, value):
    """A record that is sent, as the checker has it."""
    record = {"partition": partition, "value": value}
    if not compacted.is_compacted(partition):
        return record
    return {**record, "key": compacted.key_of(value), "tombstone": compacted.is_tombstone(value)}


def sent(events, begun, ended, client, records, results):
    """One burst. Without results all outcomes are unknown.

    When a record times out, librdkafka raises its producer's epoch and sends what is under way once more, in all partitions: what was written before
    its answer was lost then stands there twice (confluentinc/librdkafka#4953).
    """
    results = results or [(None, 0)] * len(records)
    told = [(record_of(p, v), offset) for (p, v), (offset, _) in zip(records, results)]
    known = [(one, offset) for one, offset in told if offset is not None]
    unknown = [one for one, offset in told if offset is None]
    if known:
        asked = {"send": [one for one, _ in known]}
        ok = {"send": [{**one, "offset": offset} for one, offset in known]}
        events.pair(begun, ended, client, "sends", asked, ok)
        if unknown:
            events.pair(begun, ended, client, "sends again", asked, asked, "info")
    if unknown:
        events.pair(begun, ended, client, "lost sight of", {"send": unknown}, {"send": unknown}, "info")


def group_of(line):
    return line.get("group", 0)


def committed(events, begun, ended, partitions):
    """`begun`: the line with which it begins; `partitions`: whose commit was acknowledged."""
    client = begun["client"]
    for partition, offset in begun["offsets"]:
        action = {"commit": {"group": group_of(begun), "partition": partition, "offset": offset}}
        phase = "ok" if partition in partitions else "info"
        events.pair(begun["t"], ended, client, f"commits {partition}", action, action, phase)
        if phase == "ok" and ended - begun["t"] >= REPEATED_NS:
            events.pair(begun["t"], ended, client, f"commits {partition} again", action, action, "info")


def given(line):
    """The records that a client was given, as the checker has them."""
    return [{"partition": p, "offset": o, "value": v} for p, o, v in line["records"]]


def level(line):
    return {"uncommitted": True} if line.get("uncommitted") else {}


def told_by_poll(line):
    return {"poll": {"records": given(line), "rebalanced": line["rebalanced"], **level(line)}}


def told_by_read(line):
    return {"read": {"records": given(line), "ends": line["ends"], **level(line)}}


def transacted(events, journal, last):
    """All transactions, and their producers, where the order of these is known. A client's are one process: it has one at a time."""
    producers = [one for own in transactions.instances(journal).values() for one in own]
    names = sorted({one.name for one in producers})
    for one in producers:
        if one.epoch is not None:
            action = {"init_producer": {"id": names.index(one.name), "epoch": one.epoch}}
            events.pair(one.begun, one.initialized, one.client, "initializes", action, action)
    sequences = collections.Counter()
    for one in transactions.of_journal(journal):
        instance, name, micro = one.instance, names.index(one.instance.name), []
        if one.polled:
            micro.append({"poll": given({"records": one.polled})})
        for write in one.writes:
            sent = record_of(write.partition, write.value)
            if instance.epoch is not None:
                sent["producer"] = {"id": name, "epoch": instance.epoch, "sequence": sequences[name]}
                sequences[name] += 1
            micro.append({"send": sent if write.offset is None else {**sent, "offset": write.offset}})
        micro += [{"commit": {"group": group, "partition": partition, "offset": offset}} for group, partition, offset in one.offsets]
        asked = [{"send": {key: of for key, of in step["send"].items() if key != "offset"}} if "send" in step else step for step in micro]
        fate = one.fate()
        phase = {transactions.FAILED: "fail", transactions.UNKNOWN: "info"}.get(fate, "ok")
        told = {"micro": micro, "rebalanced": one.rebalanced, "abort": fate == transactions.ABORTED}
        events.pair(one.begun, one.ended or last, one.client, "transacts", {"txn": {"micro": asked}}, {"txn": told}, phase)


def of_journal(journal):
    """The checker's lines, one after the other. `journal`: all clients' lines, each client's own in their order."""
    events, bursts, commits = Events(), {}, {}
    partitions = sorted({record[0] for line in journal for record in line.get("records", [])})
    last = max((line["t"] for line in journal), default=0)
    for partition in filter(compacted.is_compacted, partitions):
        events.add(0, "info", 0, "marks", {"compacted": {"partition": partition}})
    for line in journal:
        client, t = line.get("client", 0), line["t"]
        match line["do"]:
            case "send":
                bursts[client] = line
            case "sent":
                begun = bursts.pop(client)
                sent(events, begun["t"], t, client, begun["records"], line["results"])
            case "subscribe":
                action = {"subscribe": {"partitions": partitions}}
                events.pair(t, t, client, "reads", action, action)
            case "assign":
                action = {"assign": {"partitions": line["partitions"], "from_beginning": True}}
                events.pair(t, t, client, "reads", action, action)
            case "poll":
                events.pair(line["begun"], t, client, "reads", {"poll": {}}, functools.partial(told_by_poll, line))
            case "fetched":
                for partition, offset in line["offsets"]:
                    asked = {"group": group_of(line), "partition": partition, "offset": None}
                    told = {"fetch": {**asked, "offset": offset}}
                    events.pair(line["begun"], t, client, f"fetches {partition}", {"fetch": asked}, told)
            case "commit":
                commits[client] = line
            case "committed":
                committed(events, commits.pop(client), t, line["partitions"])
            case "read" if compacted.is_judged(line):
                asked = {"read": {"records": [], "ends": line["ends"], **level(line)}}
                events.pair(line["begun"], t, client, "reads all", asked, functools.partial(told_by_read, line))
    # Clients that were killed got no answer.
    for client, begun in bursts.items():
        sent(events, begun["t"], last, client, begun["records"], None)
    for begun in commits.values():
        committed(events, begun, last, [])
    transacted(events, journal, last)
    return events.lines()


def complaints(journal):
    """Errors that no client may ever get."""
    found = []
    for line in journal:
        if line["do"] == "gave up":
            found.append(f"an idempotent producer gave up: {line['why']}")
        elif line["do"] == "error" and line["code"] in FALSE_ERRORS and "refuted" not in line:
            who = f"a consumer of partition {line['partition']} (client {line.get('client', 0)}, t {line['t']})"
            found.append(f"{who} was told at offset {line['offset']}: {line['code']} {line['why']}")
    return found + left_out(journal) + topics.complaints(journal) + transactions.complaints(journal)


def counts(journal):
    """By name: records acknowledged and of unknown outcome, records that consumers were given one after the other, commits acknowledged, fetches."""
    results = [offset for line in journal if line["do"] == "sent" for offset, _ in line["results"]]
    sent = sum(len(line["records"]) for line in journal if line["do"] == "send")
    known = sum(offset is not None for offset in results)
    polled = sum(len(line["records"]) for line in journal if line["do"] == "poll")
    commits = sum(len(line["partitions"]) for line in journal if line["do"] == "committed")
    fetches = sum(line["do"] == "fetched" for line in journal)
    return {"acknowledged": known, "unknown": sent - known, "polled": polled, "commits": commits, "fetches": fetches}


def application_errors(journal, begun, ended):
    """Errors that an application got in this time although its client retries by itself. Producers with short timeouts are not meant."""
    found = []
    for line in journal:
        if not begun <= line["t"] <= ended:
            continue
        if line["do"] == "sent" and line.get("role") == PATIENT:
            if lost := sum(offset is None for offset, _ in line["results"]):
                found.append(f"{lost} records of client {line['client']} were not delivered")
        elif line["do"] == "error":
            found.append(f"a consumer of partition {line['partition']} was told: {line['code']} {line['why']}")
        elif line["do"] == "committed":
            found += [f"a commit of client {line['client']}: {code}" for code in line["errors"] if code not in REBALANCES]
    return found


def left_out(journal):
    """Offsets below what a group has committed that none of its members had been given: every member begins where another committed.
    Among transactions there are offsets that nobody is given."""
    groups = {line["client"]: group_of(line) for line in journal if line["do"] == "subscribe" and not line.get("transactional")}
    read, ends = {}, {}
    for line in journal:
        group = groups.get(line.get("client"))
        if group is None:
            continue
        if line["do"] == "poll":
            for partition, offset, _ in line["records"]:
                read.setdefault((group, partition), set()).add(offset)
        elif line["do"] == "commit":
            for partition, offset in line["offsets"]:
                ends[group, partition] = max(offset, ends.get((group, partition), 0))
    found = []
    for (group, partition), end in sorted(ends.items()):
        if missing := sorted(set(range(end)) - read.get((group, partition), set())):
            said = f"group {group} committed offset {end} of partition {partition}, but nobody in it read {len(missing)} below, from {missing[0]}"
            found.append(said)
    return found


def of_findings(judged):
    """The checker's findings as complaints."""
    return [f"{finding['law']}: {finding['sentence']}" for finding in judged["findings"]]


def longest_gap(acknowledged, begun, ended):
    """The longest time between two of these moments, where some of it lies between `begun` and `ended`. Who is silent still is so until `ended`."""
    moments = sorted(acknowledged) or [begun]
    if moments[-1] < ended:
        moments.append(ended)
    return max((b - a for a, b in zip(moments, moments[1:]) if b > begun and a < ended), default=0)


def judge(lines, path, judge_command=None):
    """The checker's report of a history, which is kept at `path`."""
    with open(path, "w") as out:
        out.writelines(f"{line}\n" for line in lines)
    command = judge_command or ["cargo", "run", "--quiet", "--release", "-p", "ottla-checker", "--example", "judge", "--"]
    done = subprocess.run([*command, str(path)], capture_output=True, text=True, cwd=ROOT)
    if done.returncode not in (0, 1, 2):
        sys.exit(f"the checker failed: {done.stderr}")
    return json.loads(done.stdout)
