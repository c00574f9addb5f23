//! What Ottla is meant to reach beside Kafka, as numbers: the same for every run, so that a report can say hit or miss.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::table::{
    ALONE, CPU, ERRORS, GAP, GROWN, KIB_EACH, MIB, MS, OF_BEFORE, OF_DISK, OF_LIVE, OF_ONE, OF_USUAL, P50, P99, RATE,
    REQUESTS, SCRAPE, SECONDS, Sample, TRANSACTIONS,
};

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
        "cluster" if row.contains("linger") => vec![ratio(P99, false, 0.5)],
        "cluster" if is_kib => vec![ratio(CPU, false, 0.5), ratio(RATE, true, 1.5)],
        "cluster" => vec![ratio(CPU, false, 0.5)],
        // Three times a round trip and a sync.
        "zones" if row.contains("a second") && row.contains("syncs") => vec![own(P50, false, 9.0)],
        "zones" if row.contains("a second") => Vec::new(),
        "zones" if row.contains("syncs") => vec![ratio(RATE, true, 2.0)],
        "zones" if row.starts_with("40 ms") && row.ends_with(" 1 partition") => vec![own(RATE, true, 100.0)],
        "transactions" => vec![ratio(TRANSACTIONS, true, 2.0), ratio(P99, false, 0.5)],
        "compaction" if row.contains("keys") => vec![own(OF_LIVE, false, 2.0), own(MIB, false, 64.0)],
        "compaction" if !row.contains("not") => vec![own(ALONE, false, 2.0), own(GROWN, false, 1.1)],
        "gaps" => vec![own(ERRORS, false, 0.0)],
        "partitions" => vec![own(MIB, false, 300.0), own(SCRAPE, false, 300.0)],
        "pool" if row.starts_with("kill") => vec![own(ERRORS, false, 0.0), own(GAP, false, 2_000.0)],
        "pool" => vec![
            own(SECONDS, false, 60.0),
            own(KIB_EACH, false, 1.0),
            own(SCRAPE, false, 1_000.0),
            own(OF_ONE, true, 0.9),
        ],
        "resizes" => vec![own(ERRORS, false, 0.0), own(OF_USUAL, false, 5.0)],
        "rebuild" => vec![own(OF_DISK, true, 0.6), own(OF_BEFORE, true, 0.8)],
        "memory" if row.contains("idle") => vec![own(MIB, false, 40.0)],
        _ => Vec::new(),
    };
    let gap = match row {
        _ if table != "gaps" => None,
        row if row.starts_with("kill -9") && row.ends_with(" 1 partition") => Some(300.0),
        row if row.starts_with("kill -9") => Some(1_000.0),
        row if row.starts_with("SIGSTOP") => Some(3_000.0),
        _ => None,
    };
    goals.extend(gap.map(|most| own(GAP, false, most)));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn reached(table: &str, row: &str, figures: &[(&'static str, f64)], ratios: &[(&'static str, f64)]) -> Vec<bool> {
        let (own, ratios) = (figures.iter().copied().collect(), ratios.iter().copied().collect());
        of(table, row, &own, &ratios).iter().map(|(_, verdict)| verdict["reached"] == true).collect()
    }

    #[test]
    fn a_gap_is_judged_by_its_fault() {
        let figures = |gap| [(ERRORS, 0.0), (GAP, gap)];
        assert_eq!(reached("gaps", "kill -9, 1 partition", &figures(301.0), &[]), [true, false]);
        assert_eq!(reached("gaps", "kill -9, 50 partitions beside 10,000 others", &figures(301.0), &[]), [true, true]);
        assert_eq!(reached("gaps", "SIGSTOP, 1 partition", &figures(3_001.0), &[]), [true, false]);
        assert_eq!(reached("gaps", "SIGTERM, 1 partition", &[(ERRORS, 1.0), (GAP, 9_000.0)], &[]), [false]);
    }

    #[test]
    fn a_cluster_is_judged_by_what_the_row_loads() {
        let ratios = [(CPU, 0.5), (RATE, 1.4), (P99, 0.6)];
        assert_eq!(reached("cluster", "librdkafka produces 1 KiB, 1 partition", &[], &ratios), [true, false]);
        assert_eq!(reached("cluster", "librdkafka produces 100 B, 16 partitions", &[], &ratios), [true]);
        assert_eq!(reached("cluster", "librdkafka, records of 1 KiB, linger.ms=5", &[], &ratios), [false]);
    }
}
