"""docs/ledger.md: what long runs were made, of which commit, and how they ended. Appended to by the commands themselves, never by hand."""

import datetime
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
LEDGER = ROOT / "docs" / "ledger.md"
# What long runs write into: it changes nothing of what is run.
RECORDS = ("docs/ledger.md", "tests/mutation/outcomes.tsv")
HEAD = """# Ledger of long runs

Runs that are too long for CI. Each command appends its own line; `dirty` behind a commit means that the work tree had changes.

| date (UTC) | commit | command | seed | duration | verdict | figures |
| --- | --- | --- | --- | --- | --- | --- |
"""


def git(*words):
    return subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True).stdout.strip()


def commit():
    """The commit of the work tree, and whether it has changes beyond what long runs record."""
    changed = [line for line in git("status", "--porcelain").splitlines() if not line.endswith(RECORDS)]
    return git("rev-parse", "--short=10", "HEAD") + (" dirty" if changed else "")


def append(built_from, command, seed, seconds, verdict, figures):
    if not LEDGER.exists():
        LEDGER.write_text(HEAD)
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M")
    duration = f"{seconds / 60:.0f} min"
    with LEDGER.open("a") as ledger:
        ledger.write(f"| {now} | {built_from} | `{command}` | {seed} | {duration} | {verdict} | {figures} |\n")
