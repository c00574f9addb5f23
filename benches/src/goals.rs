//! What Ottla is meant to reach beside Kafka, as numbers: the same for every run, so that a report can say hit or miss.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::table::{ALONE, CPU, MIB, MS, OF_ONE, P99, RATE, REQUESTS, Sample};

/// A goal: on the ratio to the other peer, or on Ottla's own figure.
struct Goal {
    metric: &'static str,
    is_ratio: bool,
    at_least: bool,
    value: f64,
}

fn goals(table: &str, row: &str) -> Vec<Goal> {
    let ratio = |metric, at_least, value| Goal { metric, is_ratio: true, at_least, value };
    let own = |metric, at_least, value| Goal { metric, is_ratio: false, at_least, value };
    let is_kib = row.contains(" 1 KiB") || row.starts_with("1 KiB") || table == "requests";
    let cpu = if is_kib { 1.0 / 3.0 } else { 0.5 };
    let mut goals = match table {
        "produce" | "clients" | "sustained" if is_kib => vec![ratio(CPU, false, cpu), ratio(RATE, true, 2.0)],
        "produce" | "clients" | "sustained" | "fetch" | "fanout" | "catchup" => vec![ratio(CPU, false, cpu)],
        "requests" if row.contains("connections, pipelined") => {
            vec![own(REQUESTS, true, 250_000.0), ratio(CPU, false, cpu)]
        }
        "requests" => vec![ratio(CPU, false, cpu)],
        "latency" => vec![ratio(P99, false, 1.0 / 3.0)],
        "beside" if !row.contains("alone") => vec![own(ALONE, false, 2.0)],
        "recovery" => vec![own(MS, false, 1_000.0)],
        "memory" if row.contains("idle") => vec![own(MIB, false, 40.0)],
        _ => Vec::new(),
    };
    if table == "produce" && row.contains("10,000 partitions") {
        goals.push(own(OF_ONE, true, 0.9));
    }
    goals
}

/// Which goals a row has, and whether they are reached.
pub(crate) fn of(table: &str, row: &str, ottla: &Sample, ratios: &BTreeMap<&'static str, f64>) -> Vec<(String, Value)> {
    let verdict = |goal: &Goal| {
        let found = if goal.is_ratio { ratios.get(goal.metric) } else { ottla.get(goal.metric) };
        let is_reached = if goal.at_least { *found? >= goal.value } else { *found? <= goal.value };
        let sign = if goal.at_least { ">=" } else { "<=" };
        let what = if goal.is_ratio { "of the other's" } else { "of its own" };
        Some((
            goal.metric.to_owned(),
            json!({"goal": format!("{sign} {:.2} {what}", goal.value), "reached": is_reached}),
        ))
    };
    goals(table, row).iter().filter_map(verdict).collect()
}
