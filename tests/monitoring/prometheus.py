"""A Prometheus of Debian's package as a process, with the configuration of deploy/prometheus, and what is asked of it.

May not know: which nodes there are, what the answers mean.
"""

import contextlib
import json
import re
import time
import urllib.error
import urllib.parse
import urllib.request

from broker import Process, free_ports
from table import ROOT

CONFIGURATION = ROOT / "deploy" / "prometheus"


class Prometheus(Process):
    """Scrapes `targets` in place of the nodes of compose.yaml, every second; an alert fires as soon as its expression says so."""

    good_exits = (0,)
    log_name = "prometheus.log"

    def __init__(self, directory, targets):
        super().__init__(directory)
        (port,) = free_ports(1)
        self.address = f"127.0.0.1:{port}"
        self.write("prometheus.yml", self.adapted((CONFIGURATION / "prometheus.yml").read_text(), targets))
        self.write("alerts.yml", re.sub(r"^( +for:) \w+$", r"\1 0s", (CONFIGURATION / "alerts.yml").read_text(), flags=re.M))
        self.command = ["prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=data", f"--web.listen-address={self.address}"]

    def write(self, name, text):
        (self.directory / name).write_text(text)

    @staticmethod
    def adapted(text, targets):
        text, scraped = re.subn(r"targets: \[\"ottla-1:9644\".*\]", f"targets: {json.dumps(targets)}", text)
        text, timed = re.subn(r"_interval: 15s", "_interval: 1s", text)
        assert (scraped, timed) == (1, 2), "prometheus.yml has changed its form: adapt this test to it"
        return text

    def get(self, path, **arguments):
        url = f"http://{self.address}{path}?{urllib.parse.urlencode(arguments)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as refused:
            raise AssertionError(f"{arguments}: {refused.read().decode(errors='replace')}") from None

    def is_ready(self):
        with contextlib.suppress(OSError):
            return urllib.request.urlopen(f"http://{self.address}/-/ready", timeout=5).status == 200
        return False

    def query(self, expression):
        """The samples that an expression has now: [(labels, value)]."""
        return [(one["metric"], float(one["value"][1])) for one in self.get("/api/v1/query", query=expression)["result"]]

    def value(self, expression):
        """The only sample's value; None where there is none."""
        found = self.query(expression)
        assert len(found) < 2, f"{expression}: {len(found)} samples"
        return found[0][1] if found else None

    def rules(self):
        return [rule for group in self.get("/api/v1/rules")["groups"] for rule in group["rules"]]

    def firing(self):
        """The labels of each alert that fires."""
        return [alert["labels"] for alert in self.get("/api/v1/alerts")["alerts"] if alert["state"] == "firing"]

    def firing_names(self):
        return {labels["alertname"] for labels in self.firing()}

    def wait_for(self, condition, seconds):
        """Asks again until `condition` holds; whether it did in time."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.25)
        return True
