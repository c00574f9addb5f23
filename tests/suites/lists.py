"""What a test of a suite came to, and the lists of tests that are not run.

A skip list has a line `TEST | REASON` for each test; a trailing `*` stands for any end of the name. A list of local
tests has names only: tests of the client alone, which pass without a broker and say nothing about it.
"""

import dataclasses
import pathlib

LISTS = pathlib.Path(__file__).resolve().parent


@dataclasses.dataclass
class Outcome:
    test: str
    verdict: str  # passed, failed, skipped
    seconds: float = 0.0
    detail: str = ""  # the reason of a skip, the last lines of a failure


def lines(path):
    if not path.exists():
        return []
    found = (line.strip() for line in path.read_text().splitlines())
    return [line for line in found if line and not line.startswith("#")]


class SkipList:
    def __init__(self, suite):
        self.entries = {}
        for line in lines(LISTS / "skip" / f"{suite}.txt"):
            test, bar, reason = (part.strip() for part in line.partition("|"))
            if not bar or not reason:
                raise SystemExit(f"skip/{suite}.txt: a line without a reason: {line}")
            self.entries[test] = reason

    def reason(self, test):
        if test in self.entries:
            return self.entries[test]
        patterns = (e for e in self.entries if e.endswith("*") and test.startswith(e[:-1]))
        return next((self.entries[p] for p in patterns), None)

    def without_a_test(self, tests):
        """Entries that no test has: the suite is newer than the list. A part, `Test/part`, shows only as it runs."""

        def has_test(entry):
            if entry.endswith("*"):
                return any(test.startswith(entry[:-1]) for test in tests)
            return entry in tests or entry.partition("/")[0] in tests

        return [entry for entry in self.entries if not has_test(entry)]

    def parts(self, tests):
        """(part, reason) of those entries that leave out a part of one of these tests."""
        return [(e, reason) for e, reason in self.entries.items() if "/" in e and e.partition("/")[0] in tests]


def local_tests(suite):
    return set(lines(LISTS / "local" / f"{suite}.txt"))
