"""What deploy/ holds, without a cluster: each file is whole, each alert has its cases and its section of the runbook.

Files of YAML are read by check_yaml.py, in the Python that has a library for it. May not know: nodes.
"""

import json
import subprocess
import sys

from table import HERE as CLIENTS
from table import PYTHON, ROOT

DEPLOY = ROOT / "deploy"
HERE = CLIENTS.parent / "monitoring"
COLUMNS = 24


def tool(*command, cwd=DEPLOY / "prometheus"):
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout}{done.stderr}"


def configuration():
    """promtool check config, and check rules: prometheus.yml and alerts.yml."""
    tool("promtool", "check", "config", "prometheus.yml")
    tool("promtool", "check", "rules", "alerts.yml")


def alert_cases():
    """promtool test rules: each alert fires when it should, and does not when it should not."""
    tool("promtool", "test", "rules", "alerts_test.yml")


def yaml_files():
    """Each alert has a case of both kinds, labels, and a section of docs/alerts.md; what the compose file mounts exists."""
    tool(PYTHON, str(HERE / "check_yaml.py"), str(ROOT), cwd=ROOT)


def generated():
    """ottla.json is what dashboard.py writes."""
    tool(sys.executable, str(DEPLOY / "grafana" / "dashboard.py"), "--check")


def panels():
    """Every panel has a title, a description, a unit and a place of its own; every target an expression and a letter."""
    taken = {}
    found = json.loads((DEPLOY / "grafana" / "ottla.json").read_text())["panels"]
    assert len({panel["id"] for panel in found}) == len(found), "two panels have the same id"
    for panel in found:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= COLUMNS, f"{panel['title']} is wider than the page"
        for cell in ((x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])):
            assert cell not in taken, f"{panel['title']} lies on {taken[cell]}"
            taken[cell] = panel["title"]
        if panel["type"] != "row":
            letters = [target["refId"] for target in panel["targets"] if target["expr"]]
            assert panel["description"] and panel["fieldConfig"]["defaults"]["unit"], panel["title"]
            assert len(set(letters)) == len(panel["targets"]), f"letters of {panel['title']}: {letters}"


FILES = [configuration, alert_cases, yaml_files, generated, panels]
