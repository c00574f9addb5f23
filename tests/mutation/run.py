#!/usr/bin/env python3
"""Changes the production code by one operator or one function's body at a time (cargo-mutants), and sees which tests notice.

Usage: tests/mutation/run.py [--for MINUTES] [--most N] [--seed N] [--area NAME]
       tests/mutation/run.py --list | --summary
  --for      no mutant is begun later than that
  --list     how many mutants each area has, and how many of them were judged
  --summary  what was caught and what survived, as docs/guarantees.md has it
A sample: the seed gives all mutants an order, and a run goes on with the first one that outcomes.tsv does not have yet. A mutant is
known by its file, function and change, not by its line. What survives is to get a test, or a reason in the last column.
The tests are those of the crates, those in tests/ of storage among them; what only the simulation or real processes would notice
survives here. Works in a copy
of the last commit, target/mutation/tree, with a target directory of its own.
"""

import argparse
import collections
import csv
import datetime
import functools
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "soak"))
import ledger

OUTCOMES = pathlib.Path(__file__).parent / "outcomes.tsv"
COLUMNS = ["date", "commit", "area", "outcome", "mutant", "why"]
WORK = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "mutation"
TREE, OUTPUT = WORK / "tree", WORK / "output"
VERSION = "26.2.0"
# Neither is production code: samples for tests, fuzz targets, the simulated world.
EXCLUDED = ["**/tests/**", "**/tests.rs", "**/fuzzing.rs", "**/fuzzing/**", "**/samples/**", "**/fake.rs", "**/mutants.rs"]

# Area: package, its files, and the packages whose tests are to notice.
AREAS = {
    "protocol": ("ottla-protocol", ["protocol/src/**"], ("ottla-protocol",)),
    "real disk": ("ottla-env", ["storage/env/src/real/**", "storage/env/src/watch/**"], ("ottla-env", "ottla-storage")),
    "storage": ("ottla-storage", ["storage/src/**"], ("ottla-storage",)),
    "raft": ("ottla-raft", ["raft/src/**"], ("ottla-raft",)),
    "metadata": ("ottla-broker", ["broker/src/metadata/**", "broker/src/levels.rs"], ("ottla-broker",)),
    "partitions": ("ottla-broker", ["broker/src/partition/**", "broker/src/replicated/**", "broker/src/shard/**"], ("ottla-broker",)),
    "coordinators": ("ottla-broker", ["broker/src/coordinator/**"], ("ottla-broker",)),
    "handlers": ("ottla-broker", ["broker/src/handlers/**"], ("ottla-broker",)),
}
# Besides the tests in src/.
TARGETS = {"real disk": ["--lib", "--test", "*"], "storage": ["--lib", "--test", "*"]}
# A mutant that never ends is caught: so many times what the tests take without it, and some more for a busy machine.
TIMEOUT_FACTOR, TIMEOUT_SECONDS_MIN = 5, 120
BUILD_TIMEOUT_SECONDS = 1200
BATCH = 24
OUTCOME_NAMES = {"CaughtMutant": "caught", "MissedMutant": "survived", "Timeout": "timeout", "Unviable": "unviable"}


def run(command, **options):
    environment = {**os.environ, "CARGO_TARGET_DIR": str(WORK / "target"), "CARGO_TERM_COLOR": "never"}
    return subprocess.run(command, cwd=TREE, env=environment, check=False, text=True, **options)


def install():
    said = subprocess.run(["cargo", "mutants", "--version"], capture_output=True, text=True, check=False)
    if said.stdout.strip() != f"cargo-mutants {VERSION}":
        subprocess.run(["cargo", "install", "--quiet", "--locked", "--force", f"cargo-mutants@{VERSION}"], check=True)


def check_out():
    """Makes the tree the last commit, which is returned: only files that differ are written, so that nothing else is built again."""
    if not TREE.exists():
        subprocess.run(["git", "clone", "--quiet", "--no-checkout", str(ROOT), str(TREE)], check=True)
    for words in (["fetch", "--quiet", str(ROOT), "HEAD"], ["reset", "--quiet", "--hard", "FETCH_HEAD"], ["clean", "--quiet", "-fd"]):
        subprocess.run(["git", "-C", str(TREE), *words], check=True)
    return ledger.git("rev-parse", "--short=10", "HEAD")


def mutants_of(area):
    """The mutants of an area: their names as cargo-mutants has them, by the names that outcomes.tsv has."""
    package, files, _ = AREAS[area]
    choice = [word for file in files for word in ("--file", file)] + [word for file in EXCLUDED for word in ("--exclude", file)]
    listed = run(["cargo", "mutants", "--list", "--json", "--package", package, *choice], capture_output=True)
    if listed.returncode != 0:
        sys.exit(listed.stderr)
    found, times = {}, collections.Counter()
    for mutant in json.loads(listed.stdout):
        # Without line and column; the same change may be made in several places of a function.
        name = re.sub(r":\d+:\d+: ", ": ", mutant["name"])
        times[name] += 1
        found[name if times[name] == 1 else f"{name} ({times[name]})"] = mutant["name"]
    return found


def outcomes():
    with OUTCOMES.open(newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def append(row):
    with OUTCOMES.open("a", newline="") as file:
        csv.DictWriter(file, COLUMNS, delimiter="\t", lineterminator="\n").writerow(row)


@functools.cache
def baseline(area):
    """The seconds that the tests of an area take without a mutant; they have to pass."""
    _, _, packages = AREAS[area]
    chosen = TARGETS.get(area, ["--lib"]) + [word for package in packages for word in ("--package", package)]
    if run(["cargo", "test", "--quiet", "--no-run", *chosen]).returncode != 0:
        sys.exit(f"{area}: the tests do not build")
    began = time.monotonic()
    if run(["cargo", "test", "--quiet", *chosen], stdout=subprocess.DEVNULL).returncode != 0:
        sys.exit(f"{area}: the tests fail without any mutant")
    return time.monotonic() - began


def judge(area, full_name):
    """The outcome of one mutant, in the tree itself: what does not depend on it is not built again."""
    package, _, tests = AREAS[area]
    timeout = max(TIMEOUT_SECONDS_MIN, int(baseline(area) * TIMEOUT_FACTOR))
    shutil.rmtree(OUTPUT, ignore_errors=True)
    command = ["cargo", "mutants", "--in-place", "--baseline", "skip", "--package", package, "--examine-re", f"^{re.escape(full_name)}$"]
    command += ["--timeout", str(timeout), "--build-timeout", str(BUILD_TIMEOUT_SECONDS), "--output", str(OUTPUT)]
    command += [word for test in tests for word in ("--test-package", test)]
    command += [f"--cargo-test-arg={word}" for word in TARGETS.get(area, ["--lib"])]
    said = run(command, capture_output=True)
    try:
        results = json.loads((OUTPUT / "mutants.out" / "outcomes.json").read_text())["outcomes"]
    except (OSError, ValueError, KeyError):
        sys.exit(f"cargo-mutants says nothing of {full_name}:\n{said.stdout}\n{said.stderr}")
    summaries = [result["summary"] for result in results if result["scenario"] != "Baseline"]
    if len(summaries) != 1 or summaries[0] not in OUTCOME_NAMES:
        sys.exit(f"{full_name}: one outcome was expected, and there are {summaries}\n{said.stdout}\n{said.stderr}")
    return OUTCOME_NAMES[summaries[0]]


def summary():
    """Markdown: the numbers of each area, and what survived without a test by now."""
    rows = outcomes()
    print("| area | judged | caught | never ended | survived | not compiled |\n| --- | --- | --- | --- | --- | --- |")
    for area in [*AREAS, "all"]:
        counts = collections.Counter(row["outcome"] for row in rows if area in (row["area"], "all"))
        numbers = [sum(counts.values()), *(counts[name] for name in ("caught", "timeout", "survived", "unviable"))]
        print(f"| {area} | {' | '.join(map(str, numbers))} |")
    print("\n| survived | why |\n| --- | --- |")
    for row in rows:
        if row["outcome"] == "survived":
            print(f"| `{row['mutant'].replace('|', chr(92) + '|')}` | {row['why'] or 'open'} |")


def progress(areas):
    """Prints how many mutants each area has, and how many of them were judged."""
    known = {row["mutant"] for row in outcomes()}
    for area in areas:
        found = mutants_of(area)
        print(f"{area:<14} {len(found):>6} mutants, {len(known & set(found))} judged")


def sample(areas, seed, most):
    """The mutants that are not judged yet, in the order of the seed, nearly."""
    known = {row["mutant"] for row in outcomes()}
    left = [(area, name, full) for area in areas for name, full in mutants_of(area).items() if name not in known]
    chosen = sorted(left, key=lambda one: hashlib.sha256(f"{seed} {one[1]}".encode()).digest())[:most]
    # A few at a time by area: whatever depends on the crate of the last mutant is built anew for the next area.
    for first in range(0, len(chosen), BATCH):
        yield from sorted(chosen[first : first + BATCH], key=lambda one: areas.index(one[0]))


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--for", dest="minutes", type=float, default=60)
    arguments.add_argument("--most", type=int, default=300)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--area", choices=AREAS)
    arguments.add_argument("--list", action="store_true")
    arguments.add_argument("--summary", action="store_true")
    given = arguments.parse_args()
    if given.summary:
        return summary()
    began = time.monotonic()
    install()
    commit = check_out()
    areas = [area for area in AREAS if given.area in (None, area)]
    if given.list:
        return progress(areas)
    counts = collections.Counter()
    for area, name, full_name in sample(areas, given.seed, given.most):
        if time.monotonic() - began > given.minutes * 60:
            break
        outcome = judge(area, full_name)
        counts[outcome] += 1
        today = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
        append({"date": today, "commit": commit, "area": area, "outcome": outcome, "mutant": name, "why": ""})
        print(f"{outcome:<9} {name}", flush=True)
    print(", ".join(f"{number} {outcome}" for outcome, number in sorted(counts.items())) or "none judged")


if __name__ == "__main__":
    main()
