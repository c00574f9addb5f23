"""A limit on the processor time of some processes together, by a control group of Linux, version 1 or 2.

librdkafka polls without a pause while a record cannot be sent yet: a partition has no leader, five batches are under way, it waits before it tries again. In
a run, where one of these is always true, its producers took 1.4 of two cores. Without root, or without control groups, there is no limit. May
not know: what the processes do.
"""

import contextlib
import os
import pathlib

from nodes import until

ROOT = pathlib.Path("/sys/fs/cgroup")
PERIOD_MICROS = 100_000
REMOVED_SECONDS_MAX = 5


class ProcessorShare:
    def __init__(self, cores):
        """`cores`: of all processes in it together."""
        self.directory = None
        name, quota = f"ottla-chaos-{os.getpid()}", int(cores * PERIOD_MICROS)
        with contextlib.suppress(OSError):
            if (ROOT / "cpu").is_dir():
                self.make(ROOT / "cpu" / name, {"cpu.cfs_period_us": PERIOD_MICROS, "cpu.cfs_quota_us": quota})
            else:
                (ROOT / "cgroup.subtree_control").write_text("+cpu")
                self.make(ROOT / name, {"cpu.max": f"{quota} {PERIOD_MICROS}"})

    def make(self, directory, settings):
        directory.mkdir()
        try:
            for name, value in settings.items():
                (directory / name).write_text(str(value))
        except OSError:
            directory.rmdir()
            raise
        self.directory = directory

    def enter(self):
        """Takes the calling process in."""
        if self.directory:
            (self.directory / "cgroup.procs").write_text(str(os.getpid()))

    def remove(self):
        """All of its processes have been ended; the kernel may need a moment to notice."""
        with contextlib.suppress(AssertionError):
            until("the control group has no processes", self.is_removed, REMOVED_SECONDS_MAX)

    def is_removed(self):
        """Removes the group, if it can be."""
        with contextlib.suppress(OSError):
            if self.directory:
                self.directory.rmdir()
                self.directory = None
        return self.directory is None
