"""The load of workload.py as a process, and what lag it makes: for the tests of metrics and of tools.

May not know: the broker, Prometheus.
"""

import pathlib
import subprocess

from broker import die_with_parent
from table import PYTHON

WORKLOAD = pathlib.Path(__file__).resolve().parent / "workload.py"
STOP_SECONDS_MAX = 120
# As workload.py makes them: groups without members, each so far behind in each partition of one topic.
STILL, PARTITIONS, LAG = "still", 12, 900
IDLE_GROUPS = [f"idle-{number:02}" for number in range(12)]
LIVE_GROUP = "steady"


class Workload:
    """Producers and groups in a process of their own."""

    def __init__(self, bootstrap):
        self.bootstrap = bootstrap
        self.process = None

    def start(self):
        """Begins, and waits until all records and groups are there."""
        pipe, command = subprocess.PIPE, [PYTHON, str(WORKLOAD), self.bootstrap]
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, preexec_fn=die_with_parent)
        said = self.process.stdout.readline().strip()
        assert said == "ready", f"the load says {said!r}: {self.process.stderr.read() if not said else ''}"

    def stop(self):
        _, errors = self.process.communicate(timeout=STOP_SECONDS_MAX)
        assert self.process.returncode == 0, f"the load failed: {errors[-2000:]}"

    def kill(self):
        if self.process:
            self.process.kill()
            self.process.wait()
