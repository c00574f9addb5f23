"""The promises about topics, on a journal's lines `change`, `changed`, `described` (`history.py`); they are no laws of the checker.

- What was acknowledged is there in the end, at every node: `described ... settled` is what a node showed when all was over.
- An id belongs to one topic, and a topic that was made again has a new one.
- No node takes back what it has shown: a topic that was gone does not come back under its id, partitions do not become fewer, and a setting does not go
  back to a value from before.
A change without an acknowledgement may happen at any time after it began, or never. A node may be behind for a while, as Kafka's may.
May not know: faults, how clients are run.
"""

import dataclasses

CREATE, ALTER, GROW, DELETE = "create", "alter", "grow", "delete"
GONE = (False, None, None)


@dataclasses.dataclass
class Change:
    what: str
    partitions: int | None
    value: int | None
    begun: int
    # None: not acknowledged.
    ended: int | None = None


def changes(journal):
    """By topic: what was done with it, in order; one client did all of it."""
    found, open_changes = {}, {}
    for line in journal:
        if line["do"] == "change":
            one = Change(line["what"], line.get("partitions"), line.get("value"), line["t"])
            found.setdefault(line["topic"], []).append(one)
            open_changes[line["client"]] = one
        elif line["do"] == "changed":
            one = open_changes.pop(line["client"])
            one.ended = line["t"] if line["error"] is None else None
    return found


def after(state, change):
    """(is it there, partitions, value) when a change has happened. One that does not fit changes nothing, as the broker refuses it."""
    is_there, partitions, value = state
    match change.what:
        case "create" if not is_there:
            return True, change.partitions, change.value
        case "alter" if is_there:
            return True, partitions, change.value
        case "grow" if is_there:
            return True, max(partitions, change.partitions), value
        case "delete":
            return GONE
    return state


def possible(done):
    """What may be there in the end. Only the last change of a topic can be one of unknown outcome: its client leaves it then."""
    states = {GONE}
    for change in done:
        happened = {after(state, change) for state in states}
        states = happened if change.ended is not None else states | happened
    return states


def said(state):
    is_there, partitions, value = state
    return f"{partitions} partitions and the setting {value}" if is_there else "none"


def fits(states, identity, partitions, value):
    """Whether what was shown is one of these states. Who was not told the setting does not know it."""
    if not identity:
        return GONE in states
    return any(is_there and there == partitions and value in (None, known) for is_there, there, known in states)


def wrong_in(done, topics):
    """Sentences on what a node shows that can not be."""
    found = []
    for name, *shown in topics:
        states = possible(done.get(name, []))
        if not fits(states, *shown):
            was = " or ".join(sorted(map(said, states)))
            found.append(f"topic {name}: shown is {said((bool(shown[0]), *shown[1:]))}, what was acknowledged makes it {was}")
    return found


def of_the_end(journal):
    done = changes(journal)
    lines = [line for line in journal if line["do"] == "described" and line.get("settled")]
    return [f"node {line['node']}: {sentence}" for line in lines for sentence in wrong_in(done, line["topics"])]


def of_ids(journal):
    """Ids that two topics have, or one topic in two lives."""
    done, owners, lives, found = changes(journal), {}, {}, []
    for line in journal:
        if line["do"] != "described":
            continue
        for name, identity, _, _ in line["topics"]:
            if not identity:
                continue
            if owners.setdefault(identity, name) != name:
                found.append(f"topics {owners[identity]} and {name} have the same id {identity}")
            # In its n-th life for sure: nothing that ends it had begun when it was shown, and what was shown may be older, not newer.
            deletions = [one for one in done.get(name, []) if one.what == DELETE]
            begun = sum(one.begun < line["t"] for one in deletions)
            lives.setdefault((name, identity), []).append((begun, line))
            settled = line.get("settled") and all(one.ended for one in deletions)
            first = min(life for life, _ in lives[name, identity])
            if settled and first < len(deletions):
                found.append(f"topic {name} was deleted and made again, and has the id {identity} that it had before")
    return list(dict.fromkeys(found))


def of_nodes(journal):
    """What a node has taken back."""
    seen, found = {}, []
    for line in journal:
        if line["do"] != "described" or line["node"] is None:
            continue
        for name, identity, partitions, value in line["topics"]:
            at = f"node {line['node']}: topic {name}"
            before = seen.setdefault((line["node"], name), {"ids": [], "partitions": 0, "value": 0, "ended": 0})
            # Two questions at a time may be answered in either order.
            if line["begun"] < before["ended"]:
                continue
            before["ended"] = line["t"]
            if before["ids"][-1:] != [identity]:
                if identity and identity in before["ids"]:
                    found.append(f"{at} came back with the id {identity} that was gone")
                before["ids"].append(identity)
                before["partitions"] = 0
            if identity and partitions < before["partitions"]:
                found.append(f"{at} has {partitions} partitions, and had {before['partitions']} before")
            if value is not None and value < before["value"]:
                found.append(f"{at} has the setting {value}, and had {before['value']} before")
            before["partitions"] = partitions or 0
            before["value"] = value or before["value"]
    return found


def complaints(journal):
    return of_the_end(journal) + of_ids(journal) + of_nodes(journal)


def counts(journal):
    """Changes that were acknowledged, changes of unknown outcome, and how often a node's topics were looked at."""
    every = [change for done in changes(journal).values() for change in done]
    known = sum(change.ended is not None for change in every)
    return known, len(every) - known, sum(line["do"] == "described" for line in journal)


def longest_behind(journal):
    """Seconds after an acknowledgement at which a node still showed a topic as it was before, at most. What it shows in the end is wrong or right."""
    done, longest = changes(journal), 0
    for line in journal:
        if line["do"] != "described" or line["node"] is None or line.get("settled"):
            continue
        for name, *shown in line["topics"]:
            before = [one for one in done.get(name, []) if one.ended and one.ended < line["begun"]]
            if not before or len(before) != len(done[name]) and done[name][len(before)].begun < line["t"]:
                continue
            if not fits(possible(before), *shown):
                longest = max(longest, line["begun"] - before[-1].ended)
    return longest / 1e9
