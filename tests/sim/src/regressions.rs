//! The regression seeds: those that found bugs, as `found.txt` lists them.

use crate::run::Plan;

/// The plans to run; `None` if a line is malformed, after printing it.
pub(crate) fn plans() -> Option<Vec<Plan>> {
    let lines = include_str!("../found.txt").lines().filter(|line| !line.starts_with('#'));
    lines.map(plan).collect()
}

fn plan(line: &str) -> Option<Plan> {
    let mut words = line.split_whitespace();
    let seed = words.next().and_then(|seed| seed.parse().ok());
    let nodes = words.next().and_then(|nodes| nodes.parse().ok());
    let fault_time = words.next().and_then(|time| humantime::parse_duration(time).ok());
    let (Some(seed), Some(nodes), Some(fault_time), None) = (seed, nodes, fault_time, words.next()) else {
        eprintln!("found.txt: not a seed, nodes and a storm: {line}");
        return None;
    };
    Some(Plan { seed, nodes, fault_time, only: None, mutant: None })
}
