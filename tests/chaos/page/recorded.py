"""What a run keeps in its directory, from which its page is made; as a value that the other files here read.

    run.json       facts of the run, below
    journal.jsonl  what clients did and were told, in the order of time; `history.py` says what its lines mean
    history.jsonl  the same in the checker's words; the findings name its lines, from 0
    node-N/broker.log, clients.log

run.json, with times in ns of the machine's monotonic clock:

    outcome         valid, INVALID or unknown
    command         what repeats the run
    seed nodes workload kinds time_limit zones {node: zone} about {name: text}
    began ended     the start of the clients, and when the last of them had ended; unix: the wall clock at `began`, in seconds
    faults          [{kind, title, begun, over, ended, gap, crashed, failure}]: `over` when the fault was over and every node served, `ended`
                    when every partition had taken records again, `gap` in seconds, `crashed` the client that was killed meanwhile
    complaints without_effect    sentences
    judged          the checker's report
    note            a sentence that stands above the page: that this is no run as it was, if it is none

May not know: how any of it is shown.
"""

import dataclasses
import functools
import json
import pathlib

import history

LOG_LINES = 200
LOG_BYTES_MAX = 1 << 20
OBSERVER = "observer"


@dataclasses.dataclass
class Recorded:
    directory: pathlib.Path
    facts: dict
    journal: list

    def seconds(self, t):
        """A time of the journal as seconds since the start."""
        return (t - self.facts["began"]) / 1e9

    @property
    def duration(self):
        last = max((line["t"] for line in self.journal), default=0)
        return max(self.seconds(max(last, self.facts["ended"])), 1.0)

    @property
    def faults(self):
        return self.facts["faults"]

    @functools.cached_property
    def roles(self):
        """By the number of a client: what it does."""
        return {line["client"]: line.get("role", OBSERVER) for line in self.journal if "client" in line}

    def events(self):
        """The lines of the history, one after the other: that of an hour is too large to be held."""
        path = self.directory / "history.jsonl"
        if path.exists():
            with open(path) as lines:
                yield from (json.loads(line) for line in lines if line.strip())

    def logs(self):
        """The last lines of each node's log and of the clients', by name."""
        found = {f"node {node} (zone {zone})": self.directory / f"node-{node}" / "broker.log" for node, zone in self.facts["zones"].items()}
        found["clients"] = self.directory / "clients.log"
        return {name: last_lines(path) for name, path in found.items() if path.exists()}


def last_lines(path):
    with open(path, "rb") as log:
        size = log.seek(0, 2)
        log.seek(max(0, size - LOG_BYTES_MAX))
        return log.read().decode(errors="replace").splitlines()[-LOG_LINES:]


def keep(recorded):
    """So that the page can be made again."""
    (recorded.directory / "run.json").write_text(json.dumps(recorded.facts, indent=1) + "\n")
    with open(recorded.directory / "journal.jsonl", "w") as kept:
        kept.writelines(json.dumps(line, default=list) + "\n" for line in recorded.journal)


def load(directory):
    directory = pathlib.Path(directory)
    with open(directory / "journal.jsonl") as kept:
        journal = [history.compact(json.loads(line)) for line in kept]
    return Recorded(directory, json.loads((directory / "run.json").read_text()), journal)
