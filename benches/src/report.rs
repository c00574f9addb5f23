//! The file of results as a page below `docs` with a table and a picture for each comparison. Nothing on that page is typed by
//! hand.

use std::fmt::Write;
use std::path::Path;

use serde_json::Value;

use crate::plot::{Bar, Panel, svg};
use crate::table::{BROKER_CORES, Better, CLIENT_CORES, ERRORS, METRICS, RECORDS, short};
use crate::tables;

/// Figures of which a picture is made, where a table has them.
const PLOTTED: usize = 3;

/// Writes `page` and its pictures below `docs`.
pub(crate) fn write(results: &Value, docs: &Path, page: &str) {
    let file = docs.join(page);
    let pictures = docs.join("performance");
    std::fs::create_dir_all(&pictures).unwrap();
    let mut page = head(results);
    page.push_str(&verdicts(results));
    for (name, _) in tables::ALL {
        let table = &results["tables"][*name];
        if table["rows"].as_array().is_none_or(Vec::is_empty) {
            continue;
        }
        let title = table["title"].as_str().unwrap_or_default();
        let _ = writeln!(page, "## {title}\n\n{}\n", table["about"].as_str().unwrap_or_default());
        let panels = panels(table);
        if !panels.is_empty() {
            let other = other_of(table);
            let picture = svg(&format!("{title}: Ottla : {other}"), &panels);
            std::fs::write(pictures.join(format!("{name}.svg")), picture).unwrap();
            let _ = writeln!(page, "![{title}](performance/{name}.svg)\n");
        }
        page.push_str(&rows(table));
        let _ = writeln!(page, "\n`cargo compare {}--only {name}`\n", table["mode"].as_str().unwrap_or_default());
    }
    std::fs::write(file, page).unwrap();
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn other_of(table: &Value) -> String {
    let first = list(&table["rows"]).next();
    let has = |name: &str| first.is_some_and(|row| row[name].is_object());
    ["kafka", "nats"].into_iter().find(|name| has(name)).unwrap_or("nobody").to_owned()
}

fn head(results: &Value) -> String {
    let machine = &results["machine"];
    let of = |name: &str| machine[name].as_str().map_or_else(|| machine[name].to_string(), ToOwned::to_owned);
    let mut page = format!(
        "# Performance beside Apache Kafka\n\n\
         Made by `cargo compare --report FILE`; do not edit. `cargo compare --json FILE` measures, `--quick` within half \
         an hour, `--only NAME,...` single tables; `benches/` says how. One node stands on [performance.md](performance.md), \
         clusters of three on [performance-cluster.md](performance-cluster.md), transactions on \
         [performance-transactions.md](performance-transactions.md).\n\n\
         **Ottla syncs to disk before every acknowledgement. Kafka, with its defaults, acknowledges from memory.** Both are \
         asked with acks=all, by the same clients, on the same machine and disk, in turn (A B A B; medians are shown). \
         Clients share the processors with the broker: where they are busy, throughput says as much of the client as of \
         the broker, and CPU per GB is the figure to compare. GB are 10^9 bytes of payload. Before each \
         turn everything is synced and the page cache is filled, as it is on any machine whose broker has run for a while: \
         a virtual machine's first touch of free memory costs more than all the rest. The broker that is not asked idles.\n\n\
         ## Machine\n\n\
         {} cores ({}), {} MiB of memory, Linux {}, disk `{}`. Kernel's writeback: {} (20 % of what is available: {} MiB).\n\n",
        of("cores"),
        of("processor"),
        of("memory_mib"),
        of("kernel"),
        of("disk"),
        list(&machine["writeback"]).filter_map(Value::as_str).collect::<Vec<_>>().join(", "),
        of("dirty_limit_mib"),
    );
    page.push_str("## Configurations\n\n");
    for (name, peer) in results["peers"].as_object().into_iter().flatten() {
        let version = peer["version"].as_str().unwrap_or_default();
        let settings: Vec<&str> = list(&peer["settings"]).filter_map(Value::as_str).collect();
        let _ = writeln!(
            page,
            "**{name}** {version}; everything else is at its default:\n\n    {}\n",
            settings.join("\n    ")
        );
    }
    page
}

/// Every row that has a goal and whether it is reached.
fn verdicts(results: &Value) -> String {
    let mut out = String::from(
        "## Goals\n\n| table | row | figure | goal | Ottla | ratio | reached |\n| --- | --- | --- | --- | ---: | ---: | --- |\n",
    );
    let (mut reached, mut all) = (0, 0);
    for (name, _) in tables::ALL {
        for row in list(&results["tables"][*name]["rows"]) {
            for (metric, verdict) in row["goals"].as_object().into_iter().flatten() {
                let is_reached = verdict["reached"] == true;
                (reached, all) = (reached + usize::from(is_reached), all + 1);
                let _ = writeln!(
                    out,
                    "| {name} | {} | {metric} | {} | {} | {} | {} |",
                    row["name"].as_str().unwrap_or_default(),
                    verdict["goal"].as_str().unwrap_or_default(),
                    number(&row["ottla"][metric]),
                    number(&row["ratios"][metric]),
                    if is_reached { "yes" } else { "**no**" }
                );
            }
        }
    }
    let _ = writeln!(out, "\n{reached} of {all} are reached.\n");
    out
}

fn number(value: &Value) -> String {
    value.as_f64().map(short).unwrap_or_default()
}

/// Figures that a table shows, in their order.
fn shown(table: &Value) -> Vec<(&'static str, Better)> {
    let is_there = |metric: &str| list(&table["rows"]).any(|row| row["ottla"][metric].is_number());
    let hidden = [BROKER_CORES, CLIENT_CORES, ERRORS];
    METRICS.iter().copied().filter(|(m, _)| is_there(m) && !hidden.contains(m)).collect()
}

/// Ottla / other, and the ratio below where there is one.
fn rows(table: &Value) -> String {
    let (metrics, other) = (shown(table), other_of(table));
    let mut out = format!("Each cell: Ottla / {other} = ratio.\n\n| |");
    for (metric, _) in &metrics {
        let _ = write!(out, " {metric} |");
    }
    out.push_str(" limit |\n| --- |");
    metrics.iter().for_each(|_| out.push_str(" ---: |"));
    out.push_str(" --- |\n");
    for row in list(&table["rows"]) {
        let _ = write!(out, "| {} |", row["name"].as_str().unwrap_or_default());
        for (metric, _) in &metrics {
            let (a, b) = (number(&row["ottla"][*metric]), number(&row[&other][*metric]));
            let ratio = row["ratios"][*metric].as_f64().map(|r| format!(" = **{}**", short(r))).unwrap_or_default();
            let _ = write!(out, " {a} / {b}{ratio} |");
        }
        let limit = |peer: &str| row[format!("{peer} limit")].as_str().unwrap_or_default().to_owned();
        let (a, b) = (limit("ottla"), limit(&other));
        let _ = writeln!(out, " {} |", if a == b { a } else { format!("Ottla: {a}; {other}: {b}") });
    }
    let errors: f64 = list(&table["rows"])
        .flat_map(|row| [&row["ottla"][ERRORS], &row[&other][ERRORS]])
        .filter_map(Value::as_f64)
        .sum();
    if errors > 0.0 {
        let _ = writeln!(out, "\n{errors:.0} requests were answered with an error.");
    }
    out
}

fn panels(table: &Value) -> Vec<Panel> {
    let wanted = shown(table).into_iter().filter(|(m, better)| *better != Better::Neither && *m != RECORDS);
    let panel = |(metric, better): (&'static str, Better)| {
        let bar = |row: &Value| {
            let ratio = row["ratios"][metric].as_f64().filter(|r| *r > 0.0)?;
            Some(Bar { label: row["name"].as_str().unwrap_or_default().to_owned(), ratio })
        };
        let bars: Vec<Bar> = list(&table["rows"]).filter_map(bar).collect();
        Panel { title: metric.to_owned(), lower_is_better: better == Better::Lower, bars }
    };
    let is_request = list(&table["rows"]).any(|row| row["ottla"]["broker CPU us/request"].is_number());
    let skipped = if is_request { "broker CPU us/request" } else { "" };
    let kept = wanted.filter(|(m, _)| *m != skipped && (*m != "requests/s" || !is_request));
    kept.map(panel).filter(|p| !p.bars.is_empty()).take(PLOTTED + 2).collect()
}
