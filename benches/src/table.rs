//! Rows of figures: samples of both peers, their medians, the ratios Ottla : Kafka, and what limited each.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::goals;

/// Figures of one turn by name.
pub(crate) type Sample = BTreeMap<&'static str, f64>;

/// Which way a figure is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Better {
    Higher,
    Lower,
    /// Said for judging the others; no ratio is made of it.
    Neither,
}

pub(crate) const RATE: &str = "MB/s";
pub(crate) const RECORDS: &str = "records/s";
pub(crate) const REQUESTS: &str = "requests/s";
pub(crate) const TRANSACTIONS: &str = "transactions/s";
pub(crate) const CPU: &str = "broker CPU s/GB";
pub(crate) const CPU_REQUEST: &str = "broker CPU us/request";
pub(crate) const CLIENT_CPU: &str = "client CPU s/GB";
pub(crate) const BROKER_CORES: &str = "broker cores";
pub(crate) const CLIENT_CORES: &str = "client cores";
pub(crate) const P50: &str = "p50 ms";
pub(crate) const P99: &str = "p99 ms";
pub(crate) const P999: &str = "p99.9 ms";
/// p99 as a multiple of what it is without the others.
pub(crate) const ALONE: &str = "times the p99 alone";
/// p99.9 as a multiple of what it was before.
pub(crate) const OF_USUAL: &str = "times the p99.9 before";
/// Throughput as a part of what the same load reaches with one partition.
pub(crate) const OF_ONE: &str = "of the rate with 1 partition";
/// Throughput as a part of what the same load reached before.
pub(crate) const OF_BEFORE: &str = "of the rate before";
/// Throughput as a part of what the disk takes from one writer.
pub(crate) const OF_DISK: &str = "of the disk's speed";
/// Bytes on the disk as a multiple of those of the last record of every key.
pub(crate) const OF_LIVE: &str = "times the live bytes";
/// The longest time in which a consumer read nothing of a partition.
pub(crate) const GAP_READ: &str = "longest gap of a reader ms";
/// The longest time without an acknowledgement: the worst of several faults, the median of them, and when the node is back.
pub(crate) const GAP: &str = "longest gap ms";
pub(crate) const GAP_MEDIAN: &str = "median gap ms";
pub(crate) const GAP_BACK: &str = "longest gap on return ms";
pub(crate) const SCRAPE: &str = "GET /metrics ms";
pub(crate) const SCRAPE_KIB: &str = "/metrics KiB";
/// Used while nobody asks for anything.
pub(crate) const IDLE: &str = "idle cores";
pub(crate) const SECONDS: &str = "s";
pub(crate) const MS: &str = "ms";
pub(crate) const MIB: &str = "MiB";
/// Resident memory for each replica of a partition.
pub(crate) const KIB_EACH: &str = "KiB a replica";
/// The most that the disk held in the last third of a window, as a part of the most of the middle third: 1 where cleaning keeps up.
pub(crate) const GROWN: &str = "times the disk of a third before";
pub(crate) const WRITTEN: &str = "bytes written per byte";
pub(crate) const READ: &str = "bytes read from disk per byte";
pub(crate) const ERRORS: &str = "errors";
pub(crate) const OFFERED: &str = "offered requests/s";

/// Every figure in the order in which it is shown.
pub(crate) const METRICS: &[(&str, Better)] = &[
    (GAP, Better::Lower),
    (GAP_MEDIAN, Better::Lower),
    (GAP_BACK, Better::Lower),
    (GAP_READ, Better::Lower),
    (SECONDS, Better::Lower),
    (MS, Better::Lower),
    (MIB, Better::Lower),
    (KIB_EACH, Better::Lower),
    (IDLE, Better::Lower),
    (SCRAPE, Better::Lower),
    (SCRAPE_KIB, Better::Neither),
    (OFFERED, Better::Neither),
    (RATE, Better::Higher),
    (RECORDS, Better::Higher),
    (REQUESTS, Better::Higher),
    (TRANSACTIONS, Better::Higher),
    (CPU, Better::Lower),
    (CPU_REQUEST, Better::Lower),
    (P50, Better::Lower),
    (P99, Better::Lower),
    (P999, Better::Lower),
    (ALONE, Better::Lower),
    (OF_USUAL, Better::Lower),
    (OF_ONE, Better::Higher),
    (OF_BEFORE, Better::Higher),
    (OF_DISK, Better::Higher),
    (OF_LIVE, Better::Lower),
    (GROWN, Better::Lower),
    (WRITTEN, Better::Lower),
    (READ, Better::Neither),
    (CLIENT_CPU, Better::Neither),
    (BROKER_CORES, Better::Neither),
    (CLIENT_CORES, Better::Neither),
    (ERRORS, Better::Neither),
];

/// One comparison: a name that is unique in its table, and the samples of each peer in the order of the turns.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) peers: Vec<(String, Vec<Sample>)>,
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) }
}

impl Row {
    /// The medians of a peer by figure.
    pub(crate) fn medians(&self, peer: &str) -> Sample {
        let Some((_, samples)) = self.peers.iter().find(|(name, _)| name == peer) else { return Sample::new() };
        let has = |metric: &str| samples.iter().filter_map(|s| s.get(metric).copied()).collect::<Vec<f64>>();
        let pairs = METRICS.iter().map(|(metric, _)| (*metric, has(metric)));
        pairs.filter(|(_, values)| !values.is_empty()).map(|(metric, values)| (metric, median(values))).collect()
    }

    /// Adds a figure to all samples of a peer.
    pub(crate) fn note(&mut self, peer: &str, metric: &'static str, value: f64) {
        for (name, samples) in &mut self.peers {
            if name == peer {
                for sample in samples {
                    sample.insert(metric, value);
                }
            }
        }
    }

    /// Ottla : the other, of every figure that has a direction.
    pub(crate) fn ratios(&self) -> BTreeMap<&'static str, f64> {
        let Some((other, _)) = self.peers.iter().find(|(name, _)| name != "ottla") else { return BTreeMap::new() };
        let (ottla, other) = (self.medians("ottla"), self.medians(other));
        let made = METRICS.iter().filter(|(_, better)| *better != Better::Neither).filter_map(|(metric, _)| {
            let (a, b) = (ottla.get(metric)?, other.get(metric)?);
            (*b > 0.0).then(|| (*metric, a / b))
        });
        made.collect()
    }

    pub(crate) fn json(&self, table: &str, cores: f64) -> Value {
        let mut out = Map::new();
        out.insert("name".to_owned(), json!(self.name));
        for (peer, samples) in &self.peers {
            out.insert(peer.clone(), json!(self.medians(peer)));
            out.insert(format!("{peer} rounds"), json!(samples));
            out.insert(format!("{peer} limit"), json!(limit(&self.medians(peer), cores)));
        }
        let ratios = self.ratios();
        let verdicts: Map<String, Value> =
            goals::of(table, &self.name, &self.medians("ottla"), &ratios).into_iter().collect();
        out.insert("ratios".to_owned(), json!(ratios));
        out.insert("goals".to_owned(), Value::Object(verdicts));
        Value::Object(out)
    }

    /// Two lines for whoever watches.
    pub(crate) fn print(&self, cores: f64) {
        println!("  {}", self.name);
        for (peer, _) in &self.peers {
            let medians = self.medians(peer);
            let shown = METRICS.iter().filter_map(|(m, _)| Some(format!("{} {m}", short(*medians.get(m)?))));
            println!("    {peer:<6} {}; limit: {}", shown.collect::<Vec<_>>().join(", "), limit(&medians, cores));
        }
        let ratios = self.ratios();
        let shown = METRICS.iter().filter_map(|(m, _)| Some(format!("{m} {}", short(*ratios.get(m)?))));
        println!("    ratio  {}", shown.collect::<Vec<_>>().join(", "));
    }
}

/// What kept a peer from more, as far as the processors say.
fn limit(sample: &Sample, cores: f64) -> String {
    let (Some(client), Some(broker)) = (sample.get(CLIENT_CORES), sample.get(BROKER_CORES)) else {
        return String::new();
    };
    if sample.contains_key(OFFERED) {
        "the offered rate".to_owned()
    } else if client + broker >= 0.88 * cores {
        let more = if client > broker { "the client takes more" } else { "the broker takes more" };
        format!("all cores are busy, {more}")
    } else if *client >= 0.9 {
        "the client".to_owned()
    } else {
        "waits (disk, round trips)".to_owned()
    }
}

/// A number with about three digits.
pub(crate) fn short(value: f64) -> String {
    match value.abs() {
        v if v >= 1e6 => format!("{:.2} M", value / 1e6),
        v if v >= 10_000.0 => format!("{:.0} k", value / 1e3),
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 0.1 || v == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_those_of_the_medians() {
        let samples = |values: &[f64]| values.iter().map(|v| Sample::from([(RATE, *v), (CLIENT_CPU, 1.0)])).collect();
        let peers = vec![("ottla".to_owned(), samples(&[300.0, 100.0, 200.0])), ("kafka".to_owned(), samples(&[50.0]))];
        let row = Row { name: "a row".to_owned(), peers };
        assert_eq!(row.ratios(), BTreeMap::from([(RATE, 4.0)]), "and none of what has no direction");
    }
}
