#!/usr/bin/env python3
"""What operators watch a cluster with, against three real nodes: deploy/ under a real Prometheus, one node killed meanwhile.

Usage: tests/monitoring/run.py [--broker PATH] [--files] [--draw FILE]
Needs tests/setup (Debian's package prometheus). Checks first what deploy/ holds: `promtool check config|rules`, a case of
`promtool test rules` and a section of docs/alerts.md for each alert, the dashboard as its generator writes it. Then starts three
nodes, load, and a Prometheus with that configuration: every expression of the dashboard, and of dashboards that people have for
kafka_exporter, returns data; every family that an alert looks at is there; each page passes `promtool check metrics`; lag is exact;
the alerts fire when a node is killed, lag stays known, and they end when it is back. Goes on after a check that fails; last line:
`N passed, N failed`.
  --files  only what needs no cluster
  --draw   write a picture of the dashboard of that cluster by deploy/grafana/draw.py, with the Python that PYTHON_WITH_MATPLOTLIB
           names, or else this one
"""

import argparse
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "clients"))

import dashboards
from broker import Cluster
from checks import run
from files import FILES
from load import IDLE_GROUPS, LAG, PARTITIONS, Workload
from prometheus import Prometheus
from table import ROOT

NODES = 3
# A series that a rate is taken of needs two samples; some counters come with the first thing that they count.
DATA_SECONDS_MAX = 40
# Kafka fences a node after broker.session.timeout.ms, 9 s.
FENCED_SECONDS_MAX = 45
BACK_SECONDS_MAX = 90
# Families that have no series before the first thing that they count.
BEGIN_WITH_AN_EVENT = {"ottla_connections_refused_total"}


class World:
    """Three nodes, their load, and a Prometheus that watches them."""

    def __init__(self, binary, directory):
        own = pathlib.Path(directory)
        (own / "prometheus").mkdir()
        self.cluster = Cluster(binary, own, NODES)
        self.prometheus = Prometheus(own / "prometheus", [broker.admin for broker in self.cluster.brokers])
        self.load = Workload(self.cluster.bootstrap)
        self.started = time.time()

    def start(self):
        self.cluster.start()
        self.load.start()
        self.prometheus.start()

    def kill(self):
        self.load.kill()
        self.prometheus.kill()
        self.cluster.kill()

    def wrong_lag(self):
        """Where the lag of the idle groups is not as the load has made it: no partition missing, no record too few."""
        wanted = {group: float(PARTITIONS * LAG) for group in IDLE_GROUPS}
        idle = '{consumergroup=~"idle-.*"}'
        wrong = {}
        for expression in (f"sum by (consumergroup) (kafka_consumergroup_lag_sum{idle})", f"sum by (consumergroup) (kafka_consumergroup_lag{idle})"):
            seen = {labels["consumergroup"]: value for labels, value in self.prometheus.query(expression)}
            if seen != wanted:
                wrong[expression] = {name: seen.get(name) for name in wanted}
        return wrong


def names_and_types(world):
    """promtool check metrics has nothing to say of any node's page."""
    complaints = set()
    for broker in world.cluster.brokers:
        page = broker.get("/metrics").read()
        done = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True)
        complaints.update(done.stderr.decode().splitlines() if done.returncode else [])
    assert not complaints, "promtool check metrics:\n" + "\n".join(sorted(complaints))


def all_return_data(world, wanted):
    """`wanted`: {name: [expressions, any of which is enough]}."""
    left = dict(wanted)

    def answered():
        for name in list(left):
            if any(world.prometheus.query(expression) for expression in left[name]):
                del left[name]
        return set(left) <= set(dashboards.EMPTY_WHEN_HEALTHY)

    world.prometheus.wait_for(answered, DATA_SECONDS_MAX)
    may_be_empty = set(left) & set(dashboards.EMPTY_WHEN_HEALTHY)
    missing = [f"{name}: {left[name][0]}" for name in left if name not in may_be_empty]
    assert not missing, f"{len(missing)} of {len(wanted)} expressions return nothing:\n" + "\n".join(missing)
    return f"{len(wanted)} expressions, {len(may_be_empty)} rightly empty"


def own_dashboard(world):
    """Every expression of deploy/grafana/ottla.json returns data."""
    return all_return_data(world, {name: [dashboards.filled(one)] for name, one in dashboards.ours().items()})


def exporter_dashboards(world):
    """Every expression of dashboards for kafka_exporter returns data."""
    instances = [broker.admin for broker in world.cluster.brokers]
    wanted = {}
    for of in dashboards.EXPORTER.values():
        wanted.update({one: [dashboards.filled(one, **{"$instance": instance}) for instance in instances] for one in of})
    return all_return_data(world, wanted)


def alerts_have_series(world):
    """Every family that an alert looks at is there: one that is misspelt, or has gone, never fires."""
    queries = " ".join(rule["query"] for rule in world.prometheus.rules())
    names = set(re.findall(r"(?<![\w:])(?:kafka|ottla)_\w+(?![\w:])", queries)) - BEGIN_WITH_AN_EVENT
    missing = list(names)

    def all_there():
        missing[:] = sorted(names - set(world.prometheus.get("/api/v1/label/__name__/values")))
        return not missing

    assert world.prometheus.wait_for(all_there, DATA_SECONDS_MAX), f"no node has {missing}"
    return f"{len(names)} families"


def nothing_critical(world):
    """A healthy cluster raises no critical alert but for the idle groups, which have stopped indeed."""
    critical = []

    def calm():
        firing = (labels for labels in world.prometheus.firing() if labels["severity"] == "critical")
        critical[:] = [labels for labels in firing if labels.get("consumergroup") not in IDLE_GROUPS]
        return not critical

    assert world.prometheus.wait_for(calm, DATA_SECONDS_MAX), f"firing: {critical}"


def exact_lag(world):
    """Lag and its sums are those of the records that were produced and not committed."""
    assert world.prometheus.wait_for(lambda: not world.wrong_lag(), DATA_SECONDS_MAX), world.wrong_lag()


def node_down(world):
    """kill -9 of a node: `kafka_brokers < 3` has data, and the alerts fire."""
    world.cluster.brokers[-1].kill()
    fired = world.prometheus.wait_for(lambda: len(world.prometheus.query("kafka_brokers < 3")) == NODES - 1, FENCED_SECONDS_MAX)
    assert fired, f"kafka_brokers: {world.prometheus.query('kafka_brokers')} {FENCED_SECONDS_MAX} s after kill -9 of a node"
    wanted = {"OttlaNodeDown", "OttlaScrapeDown", "OttlaNodeFenced", "OttlaUnderReplicatedPartitions"}
    seen = world.prometheus.wait_for(lambda: wanted <= world.prometheus.firing_names(), DATA_SECONDS_MAX)
    assert seen, f"not firing: {wanted - world.prometheus.firing_names()}"


def lag_in_an_outage(world):
    """With one node dead, each group is shown by its new coordinator, with the same lag."""
    assert world.prometheus.wait_for(lambda: not world.wrong_lag(), DATA_SECONDS_MAX), world.wrong_lag()


def node_back(world):
    """The node is started again: three nodes, and the alerts end."""
    world.cluster.brokers[-1].start()
    back = world.prometheus.wait_for(lambda: len(world.prometheus.query("kafka_brokers == 3")) == NODES, BACK_SECONDS_MAX)
    assert back, f"kafka_brokers: {world.prometheus.query('kafka_brokers')}"
    down = {"OttlaNodeDown", "OttlaScrapeDown", "OttlaNodeFenced", "OttlaUnderReplicatedPartitions", "OttlaOfflinePartitions"}
    ended = world.prometheus.wait_for(lambda: not down & world.prometheus.firing_names(), BACK_SECONDS_MAX)
    assert ended, f"still firing: {down & world.prometheus.firing_names()}"


def ends_well(world):
    """The load has lost nothing through all this; nodes and Prometheus end with exit code 0."""
    world.load.stop()
    world.prometheus.stop()
    world.cluster.stop()


LIVE = [names_and_types, own_dashboard, exporter_dashboards, alerts_have_series, nothing_critical, exact_lag, node_down, lag_in_an_outage, node_back]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given = os.environ.get("TEST_BROKER", str(ROOT / "target" / "release" / "ottla"))
    parser.add_argument("--broker", default=given, help="the binary to test")
    parser.add_argument("--files", action="store_true")
    parser.add_argument("--draw", metavar="FILE")
    return parser.parse_args()


def main():
    given = arguments()
    failed, count = run(FILES), len(FILES)
    if not given.files:
        with tempfile.TemporaryDirectory(prefix="ottla-monitoring-") as directory:
            world = World(os.path.abspath(given.broker), directory)
            try:
                world.start()
                failed += run(LIVE, world)
                if given.draw:
                    draw = [os.environ.get("PYTHON_WITH_MATPLOTLIB", sys.executable), str(ROOT / "deploy" / "grafana" / "draw.py"), f"http://{world.prometheus.address}", given.draw]
                    subprocess.run([*draw, "--seconds", str(int(time.time() - world.started))], check=True)
                failed += run([ends_well], world)
            finally:
                world.kill()
        count += len(LIVE) + 1
    print(f"{count - failed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


main()
