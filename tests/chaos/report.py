#!/usr/bin/env python3
"""Makes the page of a chaos run again, from what the run has kept (`run.py --keep`, or a run that was not valid).

Usage: tests/chaos/report.py DIRECTORY [FILE]; without FILE the page goes to DIRECTORY/report.html. `run.py` makes the page of each run by
itself; this is for a page that has changed since.
"""

import pathlib
import sys

import page
from page import recorded


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    directory = pathlib.Path(sys.argv[1])
    path = pathlib.Path(sys.argv[2]) if len(sys.argv) == 3 else directory / page.NAME
    print(page.write(recorded.load(directory), path))


if __name__ == "__main__":
    main()
