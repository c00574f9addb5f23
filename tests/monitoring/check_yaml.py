"""Reads the YAML of deploy/ and says what is wrong with it: one line each, and exit code 1.

Usage: check_yaml.py ROOT, with the Python of tests/clients/python/requirements.txt.
"""

import pathlib
import re
import sys

import yaml

SEVERITIES = ("critical", "warning", "info")


def anchors(page):
    """The anchors of a page's headings, as its readers make them."""
    headings = re.findall(r"^#+ (.+)$", page, flags=re.M)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def alerts(deploy, docs):
    rules = [rule for group in yaml.safe_load((deploy / "alerts.yml").read_text())["groups"] for rule in group["rules"]]
    cases = [case for test in yaml.safe_load((deploy / "alerts_test.yml").read_text())["tests"] for case in test.get("alert_rule_test", [])]
    sections = anchors((docs / "alerts.md").read_text())
    names = [rule["alert"] for rule in rules if "alert" in rule]
    for rule in (rule for rule in rules if "alert" in rule):
        name, annotations = rule["alert"], rule["annotations"]
        if rule["labels"].get("severity") not in SEVERITIES:
            yield f"{name} has no severity of {SEVERITIES}"
        if not annotations.get("summary"):
            yield f"{name} has no summary"
        page, _, anchor = annotations.get("runbook", "").partition("#")
        if page != "docs/alerts.md" or anchor not in sections:
            yield f"{name}: its runbook {annotations.get('runbook')!r} is no section of docs/alerts.md"
        for kind in (True, False):
            if not any(case["alertname"] == name and bool(case.get("exp_alerts")) == kind for case in cases):
                yield f"alerts_test.yml has no case in which {name} {'fires' if kind else 'does not fire'}"
    for section in sections:
        if section.startswith("ottla") and section not in {name.lower() for name in names}:
            yield f"docs/alerts.md tells of {section}, which is no alert"


def compose(root):
    services = yaml.safe_load((root / "deploy" / "compose.monitoring.yaml").read_text())["services"]
    for name, service in services.items():
        for mount in service["volumes"]:
            source = mount.split(":")[0]
            if source.startswith(".") and not (root / source).exists():
                yield f"compose.monitoring.yaml: {name} mounts {source}, which does not exist"
    nodes = set(yaml.safe_load((root / "compose.yaml").read_text())["services"])
    jobs = yaml.safe_load((root / "deploy" / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    scraped = {target.split(":")[0] for job in jobs for one in job["static_configs"] for target in one["targets"]}
    if scraped != nodes:
        yield f"prometheus.yml scrapes {sorted(scraped)}, compose.yaml has {sorted(nodes)}"


def grafana(root):
    provisioning = root / "deploy" / "grafana" / "provisioning"
    sources = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text())["datasources"]
    providers = yaml.safe_load((provisioning / "dashboards" / "ottla.yaml").read_text())["providers"]
    mounts = yaml.safe_load((root / "deploy" / "compose.monitoring.yaml").read_text())["services"]["grafana"]["volumes"]
    if not any(f":{provider['options']['path']}/" in mount for provider in providers for mount in mounts):
        yield "Grafana is told of a directory of dashboards that the compose file does not fill"
    if [source["type"] for source in sources] != ["prometheus"]:
        yield "Grafana is given another data source than Prometheus"


def main():
    root = pathlib.Path(sys.argv[1])
    wrong = [*alerts(root / "deploy" / "prometheus", root / "docs"), *compose(root), *grafana(root)]
    print("\n".join(wrong))
    sys.exit(1 if wrong else 0)


main()
