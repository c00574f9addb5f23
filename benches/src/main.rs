//! `cargo compare`: Ottla and Apache Kafka on this machine, loaded in turn by the same clients; ratios by name.
//!
//! Builds and fetches what it needs. See `docs/performance.md` for what it found and `--help` for its options.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::disallowed_types)]

mod bench;
mod goals;
mod loads;
mod machine;
mod peers;
mod plot;
mod process;
mod report;
mod results;
mod table;
mod tables;
mod wire;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Parser;
use serde_json::json;

use crate::bench::{Bench, Setup};
use crate::peers::{fresh_directory, kafka, ottla};
use crate::results::Results;

/// Compares Ottla with Apache Kafka on this machine.
#[derive(Parser)]
struct Arguments {
    /// Ends within ten minutes, with three nodes in twenty-five: short windows and less data.
    #[arg(long)]
    quick: bool,
    /// A tenth of a quick run: whether the tables work, not what they find.
    #[arg(long)]
    smoke: bool,
    /// Turns of each broker for each row, of which the median counts [default: 1 in a quick run, else 3].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    rounds: Option<u16>,
    /// Where the results are kept. Tables that are whole there are not run again unless they are named by --only.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Only these tables, in this order.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,
    /// Lists the tables.
    #[arg(long)]
    list: bool,
    /// Measures nothing: writes a page of docs/ and its pictures from a file of results.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// That page.
    #[arg(long, value_name = "NAME", default_value = "performance.md")]
    page: String,
    /// Ottla alone: no second broker, no ratios.
    #[arg(long)]
    alone: bool,
    /// The broker's binary instead of one that is built now.
    #[arg(long, value_name = "FILE")]
    broker: Option<PathBuf>,
    /// What the given binary is: its commit, say.
    #[arg(long, value_name = "TEXT", default_value = "a given binary")]
    broker_is: String,
    /// Kafka's jars instead of those that Maven fetches.
    #[arg(long, value_name = "DIRECTORY")]
    jars: Option<PathBuf>,
    /// Where both brokers keep their data [default: compare below the build's directory].
    #[arg(long, value_name = "DIRECTORY")]
    data: Option<PathBuf>,
}

/// The root of the workspace.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// Where this command builds and keeps things: beside the other builds.
pub(crate) fn target() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    own.ancestors().nth(2).unwrap().join("compare")
}

fn main() {
    let arguments = Arguments::parse();
    if arguments.list {
        tables::ALL.iter().for_each(|(name, _)| println!("{name}"));
        return;
    }
    if let Some(file) = arguments.report {
        report::write(&Results::open(Some(file)).value, &root().join("docs"), &arguments.page);
        return;
    }
    machine::raise_limits();
    let data = arguments.data.unwrap_or_else(target).join("data");
    // What a run that was ended from outside has left, too.
    fresh_directory(&data);
    let data = data.canonicalize().unwrap();
    let ottla = ottla::binary(arguments.broker.as_deref());
    let version = ottla::version(&ottla, arguments.broker.is_some().then_some(arguments.broker_is.as_str()));
    let jars = (!arguments.alone).then(|| kafka::jars(arguments.jars.as_deref()));
    let setup = Setup {
        quick: arguments.quick || arguments.smoke,
        rounds: arguments.rounds.map(usize::from),
        scale: if arguments.smoke { 0.1 } else { 1.0 },
        data,
        ottla,
        jars,
    };
    let mut bench = Bench::new(setup, Results::open(arguments.json));
    introduce(&mut bench, version);
    let chosen: Vec<&str> = match arguments.only.as_slice() {
        [] => tables::ALL.iter().map(|(name, _)| *name).collect(),
        names => names.iter().map(String::as_str).collect(),
    };
    let began = Instant::now();
    let mut failed = Vec::new();
    for name in chosen {
        let Some((_, run)) = tables::ALL.iter().find(|(known, _)| *known == name) else {
            panic!("no table {name}; --list names them");
        };
        if arguments.only.is_empty() && bench.results.has(name) {
            println!("\n{name}: is in the file of results already");
            continue;
        }
        let started = Instant::now();
        if catch_unwind(AssertUnwindSafe(|| run(&mut bench))).is_err() {
            bench.results.fail(name, "it panicked: see the output");
            bench.end_peers();
            failed.push(name);
        } else {
            bench.results.end(name, started.elapsed().as_secs_f64());
        }
    }
    bench.end_peers();
    machine::remove(&bench.setup.data);
    println!("\n{:.0} s", began.elapsed().as_secs_f64());
    if !failed.is_empty() {
        println!("failed: {}", failed.join(", "));
        std::process::exit(1);
    }
}

/// Prints and keeps what is compared, and on what.
fn introduce(bench: &mut Bench, ottla: String) {
    let machine = machine::describe(&bench.setup.data);
    println!("machine: {}", serde_json::to_string_pretty(&machine).unwrap_or_default());
    bench.results.set("machine", machine);
    let mut versions = vec![("ottla", ottla)];
    versions.extend(bench.jars().map(|jars| ("kafka", kafka::version(jars))));
    for ((name, version), peer) in versions.into_iter().zip(bench.prepare()) {
        println!("{name}: {version}\n  {}", peer.settings.join("\n  "));
        bench.results.value["peers"][name] = json!({"version": version, "settings": peer.settings});
    }
    println!("Ottla syncs to disk before every acknowledgement; Kafka, with its defaults, acknowledges from memory.");
    println!("Both are asked with acks=all. GB are 10^9 bytes of payload.");
    if bench.setup.scale >= 1.0
        && let Err(error) = machine::keep_full(&bench.setup.data.join("filler"))
    {
        println!("the page cache is not filled: {error}");
    }
}
