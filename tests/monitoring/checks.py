"""Runs checks one after the other, says of each whether it passed, and goes on after one that failed."""

import subprocess
import time


def run(checks, *given):
    """How many of the checks failed. A check fails by an assertion; what it gives back is said beside its name."""
    failed = 0
    for check in checks:
        started = time.monotonic()
        try:
            detail = check(*given) or ""
            print(f"PASS {check.__name__} ({time.monotonic() - started:.1f} s) {detail}".rstrip(), flush=True)
        except (AssertionError, subprocess.SubprocessError, OSError) as failure:
            failed += 1
            print(f"FAIL {check.__name__} ({time.monotonic() - started:.1f} s): {failure}", flush=True)
    return failed
