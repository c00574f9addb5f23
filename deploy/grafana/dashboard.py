#!/usr/bin/env python3
"""Writes ottla.json, the Grafana dashboard: rows, panels, and the expressions that they show.

Usage: deploy/grafana/dashboard.py [--check]. With --check it writes nothing and fails if the file is not what it would write.
Edit the panels here, not the JSON. tests/monitoring/run.py asks a live cluster for every expression.
"""

import json
import pathlib
import sys

PAGE = pathlib.Path(__file__).resolve().parent / "ottla.json"
# Grafana 11 and newer; older releases that know this form of panels (from 8 on) read it, too.
SCHEMA = 39
COLUMNS = 24
SOURCE = {"type": "prometheus", "uid": "${datasource}"}

JOB = 'job="$job"'
TOPIC = f'{JOB}, topic=~"$topic"'
GROUP = f'{JOB}, consumergroup=~"$group"'
GROUP_TOPIC = f'{GROUP}, topic=~"$topic"'
# The numbers of ottla_consumergroup_status, which are Burrow's.
STATUSES = {1: ("OK", "green"), 2: ("WARN", "yellow"), 3: ("ERR", "red"), 4: ("STOP", "red"), 5: ("STALL", "orange"), 6: ("REWIND", "purple")}


def rate(selector):
    return f"rate({selector}[$__rate_interval])"


def quantiles(api):
    buckets = rate(f'ottla_request_seconds_bucket{{{JOB}, api="{api}"}}')
    return [(f"histogram_quantile({share}, sum by (le) ({buckets}))", f"p{share * 100:.0f}") for share in (0.5, 0.95, 0.99)]


def steps(*limits):
    """Green below the first limit, then orange, then red."""
    colours = ["orange", "red"] if len(limits) > 1 else ["red"]
    return [{"color": "green", "value": None}, *({"color": c, "value": v} for c, v in zip(colours, limits))]


def falling(*limits):
    """Red below the first limit, then orange, green from the last on."""
    colours = ["orange", "green"] if len(limits) > 1 else ["green"]
    return [{"color": "red", "value": None}, *({"color": c, "value": v} for c, v in zip(colours, limits))]


def panel(kind, title, about, targets, width, height, unit, thresholds=None, custom=None, options=None, mappings=None, low=0):
    def target(number, expression, legend):
        instant = kind in ("stat", "bargauge", "table")
        form = {"format": "table"} if kind == "table" else {"format": "time_series"}
        when = {"instant": True, "range": False} if instant else {"instant": False, "range": True}
        return {"datasource": SOURCE, "editorMode": "code", "expr": expression, "legendFormat": legend, "refId": chr(65 + number), **form, **when}

    defaults = {"unit": unit, "mappings": mappings or [], "custom": custom or {}}
    defaults["color"] = {"mode": "thresholds" if thresholds else "palette-classic"}
    if thresholds:
        defaults["thresholds"] = {"mode": "absolute", "steps": thresholds}
    if low is not None:
        defaults["min"] = low
    return {
        "type": kind,
        "title": title,
        "description": about,
        "datasource": SOURCE,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "gridPos": {"h": height, "w": width},
        "options": options or {},
        "targets": [target(number, *one) for number, one in enumerate(targets)],
    }


def stat(title, about, expression, unit="short", thresholds=None, width=4, legend="", text="auto"):
    options = {
        "colorMode": "value",
        "graphMode": "none",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "textMode": text,
    }
    return panel("stat", title, about, [(expression, legend)], width, 4, unit, thresholds, options=options, low=None)


def lines(title, about, targets, unit="short", width=8, stacked=False, thresholds=None):
    custom = {"drawStyle": "line", "fillOpacity": 10, "lineWidth": 1, "showPoints": "never"}
    custom["stacking"] = {"group": "A", "mode": "normal" if stacked else "none"}
    if thresholds:
        custom["thresholdsStyle"] = {"mode": "line"}
    options = {
        "legend": {"calcs": ["lastNotNull", "max"], "displayMode": "table", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    made = panel("timeseries", title, about, targets, width, 8, unit, thresholds, custom, options)
    made["fieldConfig"]["defaults"]["color"] = {"mode": "palette-classic"}
    return made


def bars(title, about, expression, legend, unit, thresholds, width=8, high=None):
    options = {
        "displayMode": "basic",
        "orientation": "horizontal",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
    }
    made = panel("bargauge", title, about, [(expression, legend)], width, 8, unit, thresholds, options=options)
    if high is not None:
        made["fieldConfig"]["defaults"]["max"] = high
    return made


def states(title, about, expression, legend, meanings, width=8):
    options = {str(value): {"index": value, "text": text, "color": colour} for value, (text, colour) in meanings.items()}
    custom = {"fillOpacity": 70, "lineWidth": 0}
    shown = {"showValue": "never", "mergeValues": True, "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True}}
    mappings = [{"type": "value", "options": options}]
    made = panel("state-timeline", title, about, [(expression, legend)], width, 8, "short", None, custom, shown, mappings, None)
    made["fieldConfig"]["defaults"]["color"] = {"mode": "thresholds"}
    return made


def cluster():
    requests = f"ottla_requests_total{{{JOB}}}"
    errors = f'ottla_requests_total{{{JOB}, error!="NONE"}}'
    return [
        stat("Nodes", "Nodes that the cluster shows to clients, as the node that sees the fewest has it.",
             f"min(kafka_brokers{{{JOB}}})", width=3),
        stat("Pages scraped", "Nodes whose page of metrics Prometheus reads, of those that it was told of.",
             f"avg(up{{{JOB}}})", "percentunit", falling(0.5, 1), width=3),
        stat("Offline partitions", "Partitions without a leader: no client can write or read them.",
             f"max(ottla_partitions_offline{{{JOB}}})", thresholds=steps(1), width=3),
        stat("Under-replicated partitions", "Partitions with a replica that is not in sync; expected while a node is down.",
             f"sum(ottla_partitions_under_replicated{{{JOB}}})", thresholds=steps(1, 100000), width=3),
        stat("Partitions", "Partitions of all topics.", f"max(ottla_partitions{{{JOB}}})", width=3),
        stat("Records in", "Records that producers append in a second.",
             f"sum({rate(f'ottla_topic_records_in_total{{{JOB}}}')})", "cps", width=3),
        stat("Worst lag", "The age of the oldest record that some group has not committed.",
             f"max(ottla_consumergroup_lag_seconds_max{{{JOB}}})", "s", steps(60, 300), width=3),
        stat("Versions", "Releases that run, and on how many nodes: more than one during an upgrade only.",
             f"count by (version) (ottla_build_info{{{JOB}}})", legend="{{version}}", text="value_and_name", width=3),
        lines("Nodes by state", "`fenced`: a node without a session, which clients are not shown.",
              [(f"max by (state) (ottla_nodes{{{JOB}}})", "{{state}}")]),
        lines("Requests", "Requests answered in a second, by API.", [(f"sum by (api) ({rate(requests)}) > 0", "{{api}}")], "reqps", stacked=True),
        lines("Requests answered with an error", "By API and Kafka's name for the error. Some are a part of ordinary work, such as "
              "NOT_LEADER_OR_FOLLOWER after an election.", [(f"sum by (api, error) ({rate(errors)}) > 0", "{{api}} {{error}}")], "reqps"),
        lines("Produce: time to the answer", "From the request's start to the answer, acknowledgements of other replicas included.",
              quantiles("Produce"), "s"),
        lines("OffsetCommit: time to the answer", "What a consumer waits for when it commits.",
              quantiles("OffsetCommit"), "s"),
        lines("Connections", "Clients connected now, by node.", [(f"ottla_connections{{{JOB}}}", "{{instance}}")]),
    ]


def topics():
    by_topic = "sum by (topic) ({})"
    top = "topk(20, sum by (topic) ({}))"
    return [
        lines("Records in", "The 20 topics with the most records appended in a second.",
              [(top.format(rate(f"ottla_topic_records_in_total{{{TOPIC}}}")), "{{topic}}")], "cps"),
        lines("Bytes in", "Bytes of batches appended, compressed as the producer sent them.",
              [(top.format(rate(f"ottla_topic_bytes_in_total{{{TOPIC}}}")), "{{topic}}")], "Bps"),
        lines("Bytes out", "Bytes of batches given to consumers.",
              [(top.format(rate(f"ottla_topic_bytes_out_total{{{TOPIC}}}")), "{{topic}}")], "Bps"),
        lines("Size", "Bytes of batches from the log start to the end, one replica counted.",
              [(f"topk(20, {by_topic.format(f'ottla_topic_log_bytes{{{TOPIC}}}')})", "{{topic}}")], "bytes"),
        lines("Under-replicated partitions", "Partitions of the topic with a replica that is not in sync.",
              [(by_topic.format(f"ottla_topic_partitions_under_replicated{{{TOPIC}}}"), "{{topic}}")]),
        lines("Batches refused", "Record batches that the leader refused: too large, out of order, wrong timestamp.",
              [(by_topic.format(rate(f"ottla_topic_batches_refused_total{{{TOPIC}}}")), "{{topic}}")], "cps"),
    ]


def groups():
    # A group is shown by its coordinator only. When it moves, both nodes' series stand beside each other for a scrape: a sum
    # would count twice what the greatest counts once.
    return [
        stat("Groups", "Groups with a coordinator that answers.", f"count(count by (consumergroup) (kafka_consumergroup_members{{{JOB}}}))", width=6),
        stat("Lag, records", "Records that the chosen groups have not committed, over all partitions.",
             f"sum(max by (consumergroup) (ottla_consumergroup_lag_records{{{GROUP}}}))", width=6),
        stat("Groups that are not OK", "Groups whose status is another one than OK.",
             f"count(max by (consumergroup) (ottla_consumergroup_status{{{GROUP}}}) > 1) or vector(0)", thresholds=steps(1, 100000), width=6),
        stat("Oldest knowledge", "Age of the oldest number that lag was computed from. It grows while a partition has no leader.",
             f"max(ottla_consumergroup_lag_age_seconds{{{GROUP}}})", "s", steps(30, 120), width=6),
        lines("Lag, seconds", "Age of the first record that the group has not committed; the worst partition counts.",
              [(f"max by (consumergroup) (ottla_consumergroup_lag_seconds_max{{{GROUP}}})", "{{consumergroup}}")],
              "s", 12),
        lines("Lag, records", "Records between the committed offset and the end, over all partitions of the topic.",
              [(f"max by (consumergroup, topic) (kafka_consumergroup_lag_sum{{{GROUP_TOPIC}}})", "{{consumergroup}} / {{topic}}")],
              width=12),
        lines("Records committed", "Records by which committed offsets advance in a second. Compare with Records in.",
              [(f"clamp_min(max by (consumergroup, topic) (deriv(kafka_consumergroup_current_offset_sum{{{GROUP_TOPIC}}}[$__rate_interval])), 0)",
                "{{consumergroup}} / {{topic}}")], "cps"),
        lines("Members", "Members of the group.", [(f"max by (consumergroup) (kafka_consumergroup_members{{{GROUP}}})", "{{consumergroup}}")]),
        states("Status", "As Burrow has it: WARN falls behind, STOP does not commit any more, STALL commits the same offsets, REWIND went back.",
               f"max by (consumergroup) (ottla_consumergroup_status{{{GROUP}}})", "{{consumergroup}}", STATUSES),
    ]


def shards():
    frames, commits = (rate(f"ottla_log_{name}_total{{{JOB}}}") for name in ("frames", "commits"))
    return [
        lines("Shards that change", "Moved to other nodes, split, or merged into others, by the balancer or an operator.",
              [(f"max by (change) (ottla_shards_changing{{{JOB}}})", "{{change}}")]),
        lines("Replicas by role", "A learner has not caught up. A stopped replica does not come back by itself: see the log of its node.",
              [(f"sum by (role) (ottla_raft_replicas{{{JOB}}})", "{{role}}")]),
        lines("Leaders by node", "Shards that a node leads; a leader leads all partitions of its shard.",
              [(f'sum by (instance) (ottla_raft_replicas{{{JOB}, role="leader"}})', "{{instance}}")]),
        lines("Partitions not led by the preferred node", "They return by themselves after a failure (auto.leader.rebalance.enable).",
              [(f"sum(ottla_partitions_leader_not_preferred{{{JOB}}})", "partitions")]),
        lines("Shard clock ahead", "By how much a shard's clock stands ahead of the node's: above 0 nothing expires by time.",
              [(f"max by (instance) (ottla_shard_clock_ahead_seconds{{{JOB}}})", "{{instance}}")], "s"),
        lines("Frames in a commit", "Entries of Raft groups that share one write and one sync.",
              [(f"sum by (instance) ({frames}) / sum by (instance) ({commits})", "{{instance}}")]),
        lines("Tasks and requests that panicked", "Each is a bug in Ottla: please report it with the log.",
              [(f"sum by (instance, task) (ottla_task_panics_total{{{JOB}}})", "{{instance}} {{task}}"),
               (f"sum by (instance) (ottla_request_panics_total{{{JOB}}})", "{{instance}} request")]),
    ]


def disks():
    place = "{{instance}} {{directory}}"
    sync = rate(f"ottla_log_sync_seconds_bucket{{{JOB}}}")
    return [
        bars("Free space", "Free share of the file system of each data directory. Below the reserve, producers are refused.",
             f"ottla_disk_free_bytes{{{JOB}}} / ottla_disk_bytes{{{JOB}}}", place, "percentunit", falling(0.1, 0.2), high=1),
        lines("Storage", "Bytes that segments and runs take.", [(f"ottla_storage_bytes{{{JOB}}}", place)], "bytes"),
        lines("Directories that refuse writes", "1: nearly full, or failed.",
              [(f"1 - ottla_disk_accepts_writes{{{JOB}}}", place)]),
        lines("Sync, 99 %", "Time of a sync of the log. All writes wait for it.",
              [(f"histogram_quantile(0.99, sum by (le, instance, directory) ({sync}))", place)], "s"),
        lines("Bytes that wait for the log", "Bytes queued for the log's writer: near 0 unless the disk is too slow.",
              [(f"ottla_log_queued_bytes{{{JOB}}}", place)], "bytes"),
        lines("Commits", "Group commits in a second: one write and one sync each.",
              [(f"sum by (instance, directory) ({rate(f'ottla_log_commits_total{{{JOB}}}')})", place)], "wps"),
        lines("Space and write amplification", "Bytes on the disk for each live byte; bytes written for each byte of the log.",
              [(f"ottla_space_amplification{{{JOB}}}", f"space {place}"), (f"ottla_write_amplification{{{JOB}}}", f"write {place}")]),
        lines("Damage", "Damaged batches that reads met, and those that were fetched from another replica.",
              [(f"ottla_damaged_reads_total{{{JOB}}}", f"met {place}"), (f"ottla_repaired_batches_total{{{JOB}}}", f"repaired {place}")]),
        lines("Checkpoints", "Bytes of checkpoints written in a second.",
              [(f"sum by (instance, directory) ({rate(f'ottla_checkpoint_bytes_total{{{JOB}}}')})", place)], "Bps"),
    ]


ROWS = {"Cluster": cluster, "Topics": topics, "Groups and lag": groups, "Shards": shards, "Disks": disks}


def placed():
    """All panels with their numbers and places: rows from the top, panels from the left."""
    made, y = [], 0
    for title, of in ROWS.items():
        made.append({"type": "row", "title": title, "collapsed": False, "panels": [], "gridPos": {"h": 1, "w": COLUMNS, "x": 0, "y": y}})
        x, y, height = 0, y + 1, 0
        for one in of():
            if x + one["gridPos"]["w"] > COLUMNS:
                x, y, height = 0, y + height, 0
            one["gridPos"].update(x=x, y=y)
            x, height = x + one["gridPos"]["w"], max(height, one["gridPos"]["h"])
            made.append(one)
        y += height
    return [{"id": number, **one} for number, one in enumerate(made, 1)]


def variable(name, label, query, several):
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": name},
        "definition": query,
        "refresh": 2,
        "sort": 1,
        "multi": several,
        "includeAll": several,
        **({"allValue": ".*", "current": {"text": ["All"], "value": ["$__all"]}} if several else {"current": {}}),
    }


def dashboard():
    source = {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "current": {}}
    variables = [
        source,
        variable("job", "Cluster", "label_values(ottla_build_info, job)", False),
        variable("topic", "Topic", f"label_values(kafka_topic_partitions{{{JOB}}}, topic)", True),
        variable("group", "Group", f"label_values(kafka_consumergroup_members{{{JOB}}}, consumergroup)", True),
    ]
    return {
        "uid": "ottla",
        "title": "Ottla",
        "description": "A cluster of Ottla: nodes, topics, consumer lag, shards, disks. Written by deploy/grafana/dashboard.py.",
        "tags": ["ottla", "kafka"],
        "schemaVersion": SCHEMA,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "annotations": {"list": []},
        "links": [],
        "templating": {"list": variables},
        "panels": placed(),
    }


def main():
    text = json.dumps(dashboard(), indent=1) + "\n"
    if "--check" not in sys.argv:
        PAGE.write_text(text)
    elif PAGE.read_text() != text:
        sys.exit(f"{PAGE.name} is not what dashboard.py writes: run deploy/grafana/dashboard.py")


if __name__ == "__main__":
    main()
