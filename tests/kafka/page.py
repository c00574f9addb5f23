"""results.json, and docs/kafka-tests.md made from it and from reasons.toml.

A reason is a label, found by text: the first entry whose patterns fit the class, the test and what it said. `kind` says what the label
means: `needs` a capability that is not built, looks into a `broker` or is something else that no process answers, is by `design`,
or `deviates`, which is a fault of Ottla's.
"""

import collections
import fcntl
import json
import pathlib
import re
import tomllib

HERE = pathlib.Path(__file__).resolve().parent
RESULTS = HERE / "results.json"
PAGE = HERE.parents[1] / "docs" / "kafka-tests.md"
README = HERE.parents[1] / "README.md"
# Between these two lines of the README stands the score.
MARKS = ("<!-- score of tests/kafka -->", "<!-- end of the score -->")
KINDS = {
    "needs": "a capability that is not built",
    "broker": "asks what no process answers",
    "design": "by design",
    "harness": "does not run as published",
    "deviates": "**deviates**",
}


def load():
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {"classes": {}}


def record(name, suite, side, entry):
    """Puts what one side made of a class into results.json, which a run of the other side may be writing too."""
    with open(__file__) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        results = load()
        results["classes"].setdefault(name, {"suite": suite})[side] = entry
        results["classes"] = dict(sorted(results["classes"].items()))
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")


class Reasons:
    def __init__(self):
        entries = tomllib.loads((HERE / "reasons.toml").read_text())["reason"]
        self.entries = [(re.compile(entry.get("test", "")), re.compile(entry.get("said", "")), entry["kind"], entry["label"]) for entry in entries]
        assert all(kind in KINDS for _, _, kind, _ in self.entries), "a kind that nobody knows"

    def of(self, name, test, outcome, said):
        """Kind and label."""
        if outcome == "disabled":
            return "broker", "disabled by Kafka"
        for test_pattern, said_pattern, kind, label in self.entries:
            if test_pattern.search(f"{name}#{test}") and said_pattern.search(said):
                return kind, label
        return ("harness", "cut: the class took too long") if outcome == "cut" else ("deviates", "not looked at yet")


def with_tests_of_whole_classes(results):
    """A class that did not get through its setup has one outcome, which is that of each test that Kafka's side has of it."""
    for name, entry in results["classes"].items():
        own, theirs = (entry.get(side, {}).get("tests", {}) for side in ("ottla", "kafka"))
        whole = name.rpartition(".")[2]
        if list(own) == [whole] and theirs:
            entry["ottla"]["tests"] = {test: own[whole] for test in theirs}
    return results


def counted(tests):
    of = collections.Counter(outcome for outcome, _ in tests.values())
    return of["passed"], of["failed"] + of["cut"], of["skipped"] + of["disabled"]


def why(reasons, name, tests):
    found = collections.Counter()
    for test, (outcome, said) in tests.items():
        if outcome != "passed":
            kind, label = reasons.of(name, test, outcome, said)
            found[f"{'**deviates**: ' if kind == 'deviates' else ''}{label}"] += 1
    return "; ".join(f"{label} ({count})" for label, count in found.most_common())


def by_reason(reasons, results):
    """Rows of a table: what brings most tests first."""
    found = collections.Counter(
        reasons.of(name, test, outcome, said)
        for name, entry in results["classes"].items()
        for test, (outcome, said) in entry.get("ottla", {}).get("tests", {}).items()
        if outcome in ("failed", "cut")
    )
    return [f"| {label} | {KINDS[kind]} | {count} |" for (kind, label), count in found.most_common()]


def numbers(side, of):
    """Of the tests that Ottla was asked to pass: Kafka's harness runs most of them once more with controllers in the brokers' processes."""
    return " / ".join(map(str, counted({test: side["tests"][test] for test in of if test in side["tests"]}))) if side else "not run"


def score(results, suite=None):
    """Passed, failed and skipped by Ottla, of the classes that were run; and those that Kafka itself passed and Ottla did not."""
    total, missed = [0, 0, 0], 0
    for entry in results["classes"].values():
        if "ottla" not in entry or suite not in (None, entry["suite"]):
            continue
        total = [a + b for a, b in zip(total, counted(entry["ottla"]["tests"]), strict=True)]
        theirs = entry.get("kafka", {}).get("tests", {})
        missed += sum(outcome in ("failed", "cut") and theirs.get(test, [""])[0] == "passed" for test, (outcome, _) in entry["ottla"]["tests"].items())
    return total, missed


def write(results, version):
    reasons, results = Reasons(), with_tests_of_whole_classes(results)
    suites = list(dict.fromkeys(entry["suite"] for entry in results["classes"].values()))
    lines = [
        "# Apache Kafka's own tests",
        "",
        f"Made by `tests/kafka/run.py`; do not edit. The integration tests that Apache Kafka {version} publishes are run as they are, byte for byte; where",
        "they start brokers, two classes of ours start processes of Ottla (tests/kafka/src). Of each class the last run counts. Passed / failed / skipped;",
        "a test is skipped where it needs what a process cannot give (an object inside a broker, a KRaft controller, a plug-in of the JVM), or where Kafka has disabled it.",
        "Beside it what Kafka's own brokers, in the test's process, make of the same tests.",
        "",
        "| suite | classes | passed | failed | skipped | failed here, passed by Kafka itself |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for suite in [*suites, None]:
        (passed, failed, skipped), missed = score(results, suite)
        classes = sum("ottla" in entry and suite in (None, entry["suite"]) for entry in results["classes"].values())
        lines.append(f"| {suite or '**all**'} | {classes} | {passed} | {failed} | {skipped} | {missed} |")
    lines += ["", "| why tests fail | | tests |", "| --- | --- | ---: |", *by_reason(reasons, results)]
    for suite in suites:
        lines += ["", f"## {suite}", "", "| class | Ottla | Kafka | s | why |", "| --- | --- | --- | ---: | --- |"]
        for name, entry in results["classes"].items():
            if entry["suite"] == suite and "ottla" in entry and entry["ottla"]["tests"]:
                own = entry["ottla"]
                told = why(reasons, name, own["tests"])
                lines.append(f"| {name.rpartition('.')[2]} | {numbers(own, own['tests'])} | {numbers(entry.get('kafka'), own['tests'])} | {own['seconds']} | {told} |")
    brokers = sorted({f"{entry[side]['broker']} ({entry[side]['on']})" for entry in results["classes"].values() for side in ("ottla", "kafka") if side in entry})
    lines += ["", "Run against: " + "; ".join(brokers) + ".", ""]
    PAGE.write_text("\n".join(lines))
    write_score(results, version)


def write_score(results, version):
    """The score as one sentence, on the first page: of the tests whose own broker was run here too, Kafka's result beside it."""
    (passed, failed, skipped), _ = score(results)
    theirs = [entry for entry in results["classes"].values() if "ottla" in entry and "kafka" in entry]
    common = [(entry["ottla"]["tests"][test][0], entry["kafka"]["tests"][test][0]) for entry in theirs for test in entry["ottla"]["tests"] if test in entry["kafka"]["tests"]]
    both = [sum(side == "passed" for side in sides) for sides in zip(*common)] if common else [0, 0]
    sentence = (
        f"**Apache Kafka's own integration tests**, as Kafka {version} publishes them, unmodified: Ottla passes {passed} of {passed + failed}; {skipped} more\n"
        f"are skipped, since they look into a broker's objects, need security, or are disabled by Kafka. Of {len(common)} that were also run against Apache Kafka\n"
        f"itself on the same machine Ottla passes {both[0]} and Kafka {both[1]}. `tests/kafka/run.py` runs them, and [docs/kafka-tests.md](docs/kafka-tests.md) has each class and why a test is not passed."
    )
    before, _, rest = README.read_text().partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    assert after, "the README has no place for the score"
    README.write_text(f"{before}{MARKS[0]}\n{sentence}\n{MARKS[1]}{after}")

