#!/usr/bin/env python3
"""Writes docs/clients.md from the results of the clients and of the external suites.

Usage: tests/clients/report.py [--check]. With --check it writes nothing and fails if the page is not what it would write.
Inputs, each kept by its own runner (which calls this): tests/clients/results.json and tests/suites/results.json:

    {"clients": {NAME: {"broker": "...", "date": "...", and see Outcome.as_record}}}
    {"command": "...", "suites": {NAME: {"version": "...", "broker": "...", "date": "...", "passed": N, "failed": ["..."],
                                        "skipped": [{"tests": "...", "count": N, "why": "..."}]}}}
"""

import datetime
import json
import sys

from table import CLIENTS, HERE, ROOT, STEPS

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
PAGE = ROOT / "docs" / "clients.md"
RESULTS = HERE / "results.json"
SUITES = ROOT / "tests" / "suites" / "results.json"

HEAD = """# Clients

Every client below was run against Ottla. The page is written by `tests/clients/report.py` from what the runs recorded; nothing here is
set by hand.

    tests/setup                            # installs every client, pinned
    tests/clients/all                      # runs every client, the slow ones too, and rewrites this page
    tests/clients/run.py sarama            # one client
    tests/clients/run.py --nodes 3 sarama  # the same scenario against a cluster, its topics on three nodes
    tests/clients/run.py --kafka sarama    # the same scenario against Apache Kafka {kafka}
"""


TOOLS_SEE = """
## What tools see

- **`__consumer_offsets`** holds Kafka's records in the versions that Kafka 4.4 writes: keys 1 and 2, committed offsets in value version 4
  with the topic's id, memberships in value version 3. While a generation waits for its leader's assignment, members stand in its record
  with an empty one (Kafka writes no record then); a cluster below feature level 2 writes that record in version 4. The topic is compacted and
  can be read from its beginning; in a cluster that comes from a release before feature level 8 a group is found there from its next commit
  on. Tools that do not know value version 4 (kommitted 0.3.1, prometheus-kafka-consumer-group-exporter 0.5.5) see, on Kafka 4 as here,
  only commits of clients that give a retention time (OffsetCommit 2 to 4), which are stored in version 1.
- **ACLs**: DescribeAcls, CreateAcls and DeleteAcls are answered SECURITY_DISABLED, as by Kafka without an authorizer. MirrorMaker 2 then
  leaves ACLs alone.
- **SASL**: a client that is set up for SASL is told ILLEGAL_SASL_STATE, as by Kafka on a PLAINTEXT listener.
- **The version of Kafka that a tool guesses** from the APIs that are served (franz-go's `VersionGuess`, which kminion logs and exports) is
  that of the first release of which an API is missing. Of Kafka 4.1's APIs for clients there are missing SaslAuthenticate,
  delegation tokens, quotas, SCRAM credentials, and the groups of KIP-848, KIP-932 and KIP-1071. An API is not advertised before it does its job.
- **Share and streams groups**: ListGroups finds none of these types, without an error, as Kafka does where the feature is off; to describe
  one ends with UnsupportedVersionException. FindCoordinator answers INVALID_REQUEST for a share partition.
"""


def read(path):
    return json.loads(path.read_text()) if path.exists() else {}


def table(header, rows):
    lines = ["| " + " | ".join(header) + " |", "| " + " | ".join("---" for _ in header) + " |"]
    return "\n".join(lines + ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]) + "\n"


def met(entries):
    """Which broker they met and when; with names only if not all met the same one on the same day."""
    runs = {}
    for name, seen in entries.items():
        runs.setdefault(f"{seen['broker']} on {seen['date']}", []).append(name)
    parts = [run if len(runs) == 1 else f"{run} ({', '.join(names)})" for run, names in sorted(runs.items())]
    return "; ".join(parts)


def verdict(seen):
    return "failed" if seen["failure"] else "passed"


def counted(seen):
    """The client's own counters, by name: all of them are zero in a healthy run."""
    return ", ".join(f"{name} {n}" for name, n in seen["counts"].items()) or "-"


def overview(clients):
    rows = []
    for name, client in CLIENTS.items():
        if client.steps and name in clients:
            seen = clients[name]
            steps = f"{len(seen['passed'])} / {len(client.steps)}"
            rows.append([name, client.language, seen["version"], verdict(seen), steps, len(seen["skipped"]), counted(seen)])
    return table(["client", "language", "version", "run", "steps passed", "skipped", "counted by the client"], rows)


def matrix(clients):
    """Which client did which step; a number points at what has to be said about it."""
    reasons = []
    names = [name for name, client in CLIENTS.items() if client.steps and name in clients]

    def cell(seen, step):
        said = seen["passed"].get(step, seen["skipped"].get(step))
        word = "yes" if step in seen["passed"] else "**no**" if said is None else "-"
        # Which codecs it is built with is only worth a word if one is missing.
        if not said or all(codec in said for codec in CODECS):
            return word
        if said not in reasons:
            reasons.append(said)
        return f"{word} ({reasons.index(said) + 1})"

    rows = [[name, *(cell(clients[name], step) for step in STEPS)] for name in names]
    meaning = "\n".join(f"- **{step}**: {what}" for step, what in STEPS.items())
    why = "\n".join(f"{number + 1}. {reason}" for number, reason in enumerate(reasons))
    return f"{meaning}\n\n{table(['client', *STEPS], rows)}\nWhere only a part is done, or nothing:\n\n{why}\n"


def tools(clients):
    parts = []
    for name, client in CLIENTS.items():
        if not client.steps and name in clients:
            seen = clients[name]
            rows = [[f"`{tool}`", what, "passed"] for tool, what in seen["passed"].items()]
            rows += [[f"`{tool}`", why, "-"] for tool, why in seen["skipped"].items()]
            if seen["failure"]:
                rows.append(["", seen["failure"], "**failed**"])
            parts.append(f"Version {seen['version']}.\n\n" + table(["tool", "what it does here", "result"], rows))
    return "\n".join(parts)


def dialogue(clients):
    from outcome import DIALOGUE

    asked = {}
    for seen in clients.values():
        for answer, n in seen["answers"].items():
            asked[answer] = asked.get(answer, 0) + n
    rows = []
    for answer, n in sorted(asked.items()):
        api, error = answer.split()
        rows.append([api, error, n, DIALOGUE.get((api, error), "**not expected**")])
    return table(["API", "error", "answers", "what for"], rows)


def suites(results):
    if not results:
        return ""
    text = f"\n## External test suites\n\nRun with `{results['command']}` against {met(results['suites'])}.\n\n"
    rows, failed, skipped = [], [], []
    for name, suite in results["suites"].items():
        rows.append([name, suite["version"], suite["passed"], len(suite["failed"]), sum(s["count"] for s in suite["skipped"])])
        failed += [[name, f"`{test}`"] for test in suite["failed"]]
        skipped += [[name, s["tests"], s["count"], s["why"]] for s in suite["skipped"]]
    text += table(["suite", "version", "passed", "failed", "skipped"], rows)
    if failed:
        text += "\nFailed:\n\n" + table(["suite", "test"], failed)
    return text + "\nSkipped, and why:\n\n" + table(["suite", "tests", "count", "why"], skipped)


def page():
    results = read(RESULTS)
    clients = results.get("clients", {})
    kafka = clients.get("kafka-tools", {}).get("version", "4")
    return (
        HEAD.format(kafka=kafka)
        + f"\n## Client libraries\n\nLast run: against {met(clients)}; one node, a new broker per client.\n\n"
        + overview(clients)
        + "\nWhat a client counts of its own errors and retries, and what the broker answers as an error, has to be zero but for the\n"
        + "dialogue below; otherwise its run fails. What no client can do here yet: the consumer group protocol of\n"
        + "KIP-848 (`group.protocol=consumer`); the broker does not advertise it, and clients stay with the classic protocol.\n\n"
        + "## What each does\n\n"
        + matrix(clients)
        + "\n## Apache Kafka's own tools\n\n"
        + tools(clients)
        + "\n## Error answers that belong to the dialogue\n\n"
        + dialogue(clients)
        + TOOLS_SEE
        + suites(read(SUITES))
    )


def summary(seen):
    """A line a client, for the terminal."""
    lines = []
    for name, one in seen.items():
        done = f"{len(one['passed'])} passed, {len(one['skipped'])} skipped"
        lines.append(f"{name:18} {one['version']:24} {verdict(one):7} {done:25} {counted(one)}")
    return "\n".join(lines)


def record(broker, seen):
    """Keeps what was seen; clients that were not run this time keep what they had."""
    results = read(RESULTS)
    date = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    met_now = {name: {"broker": broker, "date": date, **one} for name, one in seen.items()}
    clients = {**results.get("clients", {}), **met_now}
    ordered = {name: clients[name] for name in CLIENTS if name in clients}
    RESULTS.write_text(json.dumps({"clients": ordered}, indent=1) + "\n")
    PAGE.write_text(page())


def main():
    if sys.argv[1:] == ["--check"]:
        if not PAGE.exists() or PAGE.read_text() != page():
            sys.exit("docs/clients.md is not what tests/clients/report.py writes from the recorded results")
    else:
        PAGE.write_text(page())


if __name__ == "__main__":
    main()
