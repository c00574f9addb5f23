#!/usr/bin/env python3
"""Applications of Kafka (Streams, Connect, Debezium, MirrorMaker, Flink, Spark, a registry, exporters) on nodes of Ottla that are killed meanwhile.

Usage: tests/ecosystem/run.py [NAME ...] [--nodes 1|3] [--broker PATH] [--quick] [--seed N] [--keep]
  NAME      an application, which is a folder beside this file, or one of its scenarios; none means all
  --nodes   each scenario has a cluster of its own of so many (default 3)
  --broker  the binary (default target/release/ottla)
  --quick   less data and fewer faults, for CI
  --seed    which nodes are killed and for how long, and the data, where a scenario takes chance; without it another one each time
  --keep    the directories with the logs of scenarios that passed, too
Prints a line a scenario: its name, passed or FAILED, seconds, and what was checked. Exit code 0 only if all passed. The jars come from
Maven into $TEST_CLIENTS_DIR/ecosystem (default target/clients/ecosystem); needs JDK 17, Maven and tests/setup.
"""

import argparse
import importlib.util
import os
import pathlib
import random
import shutil
import sys
import tempfile
import time
import traceback

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "clients")]
from table import PYTHON

try:
    import confluent_kafka  # noqa: F401 (what scenarios read with)
except ImportError:
    os.execv(PYTHON, [PYTHON, *sys.argv])

from harness import ROOT, Place


def scenarios(names):
    """Those of applications that the names may mean, or all: (application, name of the scenario, function)."""
    for file in sorted(HERE.glob("*/scenario.py")):
        application = file.parent.name
        # A scenario is called like its application, and more.
        if names and not any(name == application or name.startswith(f"{application}-") for name in names):
            continue
        # Each is a module of its own name; they are all called scenario.py.
        spec = importlib.util.spec_from_file_location(f"{application}_scenario", file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        for name, function in module.SCENARIOS.items():
            yield application, name, function


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--nodes", type=int, choices=(1, 3), default=3)
    parser.add_argument("--broker", default=str(target / "release" / "ottla"), metavar="PATH")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000), metavar="N")
    parser.add_argument("--keep", action="store_true")
    return parser.parse_args()


def run(given, name, function):
    """Whether it passed. A failure leaves its directory."""
    directory = tempfile.mkdtemp(prefix=f"ottla-{name}-")
    began, place, passed = time.monotonic(), None, False
    try:
        place = Place(str(pathlib.Path(given.broker).resolve()), directory, given.nodes, given.seed, given.quick)
        said = function(place.start()) or ""
        passed = True
    except Exception as failure:
        # A scenario that broke is one that failed; the others are run.
        if not isinstance(failure, AssertionError):
            traceback.print_exc()
        said = f"{failure}\nits logs are in {directory}\n{place.tails() if place else ''}"
    finally:
        if place:
            place.end()
    if passed and not given.keep:
        shutil.rmtree(directory)
    elif passed:
        said += f" ({directory})"
    print(f"{name} {'passed' if passed else 'FAILED'} ({time.monotonic() - began:.0f} s): {said}", flush=True)
    return passed


def main():
    given = arguments()
    known = list(scenarios(given.names))
    wanted = [(name, function) for application, name, function in known if not given.names or {application, name} & set(given.names)]
    unknown = set(given.names) - {word for application, name, _ in known for word in (application, name)}
    if unknown:
        there = ", ".join(name for _, name, _ in scenarios([]))
        sys.exit(f"no application or scenario is named so: {', '.join(sorted(unknown))}; there are {there}")
    print(f"seed {given.seed}, {given.nodes} nodes", flush=True)
    outcomes = [run(given, name, function) for name, function in wanted]
    print(f"{sum(outcomes)} passed, {len(outcomes) - sum(outcomes)} failed")
    sys.exit(not all(outcomes))


if __name__ == "__main__":
    main()
