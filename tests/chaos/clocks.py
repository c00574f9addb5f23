"""Jumps of a node's wall clock, for `Nemesis`: libfaketime is loaded into every node, and reads how far the clock is off from a file.

It sees what goes through the C library: the wall clock of Rust's standard library does, as this node's metrics prove each time. What is
called directly (rustix) it does not see, nor does the monotonic clock jump, as on a real machine. May not know: clients.
"""

import pathlib
import subprocess
import time

import effects

HOUR, DAY = 3600, 86_400
LIBRARY = "/usr/lib/{}-linux-gnu/faketime/libfaketimeMT.so.1"
NOTICE_SECONDS_MAX = 20
PAUSED, AHEAD = "ottla_shard_expiry_paused", "ottla_shard_clock_ahead_seconds"


def library():
    """Where libfaketime is; None if it is not here."""
    paths = (pathlib.Path(LIBRARY.format(machine)) for machine in ("x86_64", "aarch64"))
    return next((path for path in paths if path.exists()), None)


class Clock:
    """The clock of one node."""

    def __init__(self, node):
        self.file = node.directory / "clock"
        self.set(0)
        self.environment = {
            "LD_PRELOAD": str(library()),
            "FAKETIME_TIMESTAMP_FILE": str(self.file),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }
        # A clock that is believed wrongly would cost records, and soon.
        node.environment |= {**self.environment, "KAFKA_LOG_RETENTION_CHECK_INTERVAL_MS": "200"}

    def set(self, seconds):
        # The library never sees half a number.
        other = self.file.with_suffix(".new")
        other.write_text(f"{seconds:+d}\n")
        other.rename(self.file)

    def seen_seconds(self):
        """How far the clock of a new process is off."""
        said = subprocess.run(["date", "+%s"], env={"PATH": "/usr/bin:/bin", **self.environment}, capture_output=True, text=True, check=True)
        return int(said.stdout) - time.time()


class ClockFaults:
    CLOCK_KINDS = ("clock",)

    def equip_clocks(self):
        self.clocks = {node: Clock(node) for node in self.all_nodes()}

    def clock(self):
        """More than the ten minutes that a clock may be off."""
        node = max(self.nodes, key=lambda node: self.nodes.led(self.topic, node))
        seconds = self.chance.choice([-1, 1]) * self.chance.choice([HOUR, DAY, 30 * DAY])
        yield f"the wall clock of {self.title(node)} jumps by {seconds / HOUR:+.0f} h, and back"
        clock = self.clocks[node]
        clock.set(seconds)
        try:
            seen, shown = clock.seen_seconds(), lambda: (node.metric(PAUSED) or 0, node.metric(AHEAD) or 0)
            paused, ahead = self.shows("its metrics show it", lambda: any(found := shown()) and found, NOTICE_SECONDS_MAX)
            self.lasts()
        finally:
            clock.set(0)
        self.measured(effects.jumped(seconds, seen, paused, ahead))
