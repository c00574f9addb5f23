//! The ledger of long runs: appends the totals of a run to the table in a file.
//!
//! May not know: how runs are made.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use crate::Sum;

/// The abbreviated commit that is checked out; `dirty` follows if the work tree differs.
fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success());
        output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = git(&["rev-parse", "--short=10", "HEAD"]).unwrap_or_else(|| "unknown".to_owned());
    let clean = git(&["status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs/ledger.md"])
        .is_some_and(|changes| changes.is_empty());
    if clean { commit } else { format!("{commit} dirty") }
}

/// `2026-11-21 03:15`, in UTC.
fn now() -> String {
    let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    now.replace('T', " ").chars().take(16).collect()
}

/// Appends a line for a run of these seeds.
pub(crate) fn append(path: &Path, sum: &Sum, real: Duration) -> io::Result<()> {
    let command: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.contains("ledger")).collect();
    let seeds = match (sum.first, sum.last) {
        (Some(first), Some(last)) => format!("{first}..{}", last + 1),
        _ => "none".to_owned(),
    };
    let verdict = if sum.broken.is_empty() { "passed".to_owned() } else { format!("failed: seeds {:?}", sum.broken) };
    let mut file = OpenOptions::new().append(true).open(path)?;
    writeln!(
        file,
        "| {} | {} | `cargo sim {}` | {seeds} | {} s | {verdict} | {} seeds of {}, {:.2} simulated hours, {} faults, {} records acknowledged, {} read |",
        now(),
        commit(),
        command.join(" "),
        real.as_secs(),
        sum.seeds,
        sum.sizes.iter().map(u32::to_string).collect::<Vec<_>>().join(", ") + " nodes",
        sum.simulated.as_secs_f64() / 3_600.0,
        sum.faults,
        sum.acknowledged,
        sum.reads,
    )
}
