"""What came of the suites, kept in results.json, from which tests/clients/report.py writes its part of docs/clients.md.

May not know: how a suite is run.
"""

import datetime
import json
import subprocess
import sys

from kinds import ROOT
from lists import LISTS

RESULTS = LISTS / "results.json"
COMMAND = "tests/suites/run.py"
NAMES_MAX = 4


def count(outcomes, verdict):
    return sum(outcome.verdict == verdict for outcome in outcomes)


def named(tests):
    """A few names, or the first ones and how many more."""
    shown = ", ".join(f"`{test}`" for test in tests[:NAMES_MAX])
    return shown if len(tests) <= NAMES_MAX else f"{shown} and {len(tests) - NAMES_MAX} more"


def by_reason(outcomes):
    reasons = {}
    for outcome in sorted(outcomes, key=lambda o: o.test):
        if outcome.verdict == "skipped":
            reasons.setdefault(outcome.detail, []).append(outcome.test)
    ordered = sorted(reasons.items(), key=lambda item: (-len(item[1]), item[0]))
    return [{"tests": named(tests), "count": len(tests), "why": why} for why, tests in ordered]


def record(suite, outcomes, seconds, broker):
    """A suite that was not run this time keeps what it had."""
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    suites = results.get("suites", {})
    suites[suite.name] = {
        "version": suite.registry,
        "broker": broker,
        "date": today,
        "seconds": round(seconds),
        "passed": count(outcomes, "passed"),
        "failed": sorted(outcome.test for outcome in outcomes if outcome.verdict == "failed"),
        "skipped": by_reason(outcomes),
        "ran": sorted(outcome.test for outcome in outcomes if outcome.verdict == "passed"),
    }
    kept = {"command": COMMAND, "suites": dict(sorted(suites.items()))}
    RESULTS.write_text(json.dumps(kept, indent=1) + "\n")
    subprocess.run([sys.executable, ROOT / "tests" / "clients" / "report.py"], check=True)
