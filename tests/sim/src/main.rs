//! `cargo sim`: deterministic simulation of whole clusters: production code, one thread, virtual time, injected faults.
//!
//!     cargo sim --seed 7              one seed, run twice; its trace must repeat
//!     cargo sim --for 10m             seeds one after the other
//!     cargo sim --seeds 0..100        these; with --ledger docs/ledger.md the outcome is kept
//!     cargo sim found                 the seeds that found bugs, each twice
//!     cargo sim shrink --seed 7       the fewest faults that still break the law
//!     cargo sim mutants               every seeded bug, and how many seeds it took to catch it

#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod corruption;
mod durability_tracker;
mod graceful_stops;
mod history;
mod laws;
mod ledger;
mod liveness_check;
mod lost_markers;
mod min_in_sync;
#[cfg(feature = "mutants")]
mod mutants;
mod nemesis;
mod oracle;
mod panics;
mod profile;
mod registry;
mod regressions;
mod releases;
mod run;
mod scenarios;
mod shrink;
mod sim_node;
mod stalled_syncs;
mod targeting;
mod trace;
mod unapplied_markers;
mod wire;
mod workload;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand};
use ottla_env::{rt, sim};
use parking_lot::Mutex;

use tracing_subscriber::filter::LevelFilter;

use profile::MIXED_RELEASES_FROM;
use run::{Outcome, Plan, run};

/// A thread a seed: its first allocations would otherwise be fresh pages each time, a quarter of the whole time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs Ottla's clusters in a simulated world.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    world: WorldArguments,
    /// One seed, run twice: both runs must be the same.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// These seeds, each run once; every twentieth twice.
    #[arg(long, value_name = "FROM..TO", value_parser = range, default_value = "0..20")]
    seeds: Range<u64>,
    /// As many seeds as can be run in this time.
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
    lasts: Option<Duration>,
    /// Appends the outcome to this file, a table.
    #[arg(long, value_name = "FILE")]
    ledger: Option<PathBuf>,
}

/// The world of every seed.
#[derive(Args, Clone)]
struct WorldArguments {
    /// Nodes of the cluster; 0 takes 1, 3 and 5 in turn, mostly 3.
    #[arg(long, default_value_t = 0, global = true, value_parser = clap::value_parser!(u32).range(0..=5))]
    nodes: u32,
    /// Seeds that run at the same time; the default leaves one core alone. The output does not depend on it.
    #[arg(long, value_name = "N", global = true, value_parser = clap::value_parser!(u32).range(1..))]
    jobs: Option<u32>,
    /// Simulated time of faults.
    #[arg(long, default_value = "20s", global = true, value_parser = humantime::parse_duration)]
    storm: Duration,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the seeds that found bugs, each twice.
    Found,
    /// Finds the fewest faults of a seed that still break a law.
    Shrink {
        /// The seed.
        #[arg(long)]
        seed: u64,
    },
    /// Switches every seeded bug on and counts the seeds until a law is broken.
    #[cfg(feature = "mutants")]
    Mutants {
        /// Seeds to try for each.
        #[arg(long, default_value_t = 60)]
        most: u64,
        /// Only these bugs.
        #[arg(long, value_delimiter = ',')]
        only: Vec<String>,
    },
}

fn range(text: &str) -> Result<Range<u64>, String> {
    let (from, to) = text.split_once("..").ok_or("expected FROM..TO")?;
    let number = |text: &str| text.parse::<u64>().map_err(|error| error.to_string());
    Ok(number(from)?..number(to)?)
}

impl WorldArguments {
    fn jobs(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        self.jobs.map_or(cores.saturating_sub(1).max(1), |jobs| usize::try_from(jobs).unwrap_or(1))
    }

    fn plan(&self, seed: u64) -> Plan {
        let nodes = match (self.nodes, seed % 10) {
            (0, 0) => 5,
            (0, 5) => 1,
            (0, 7) if seed >= MIXED_RELEASES_FROM => 2,
            (0, _) => 3,
            (nodes, _) => nodes,
        };
        Plan { seed, nodes, fault_time: self.storm, only: None, mutant: None }
    }
}

/// Totals over the runs so far.
#[derive(Default)]
struct Sum {
    seeds: u64,
    first: Option<u64>,
    last: Option<u64>,
    /// The cluster sizes among them.
    sizes: BTreeSet<u32>,
    simulated: Duration,
    acknowledged: usize,
    reads: u64,
    faults: usize,
    broken: Vec<u64>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // A panic of a task is a finding, and the trace says more than a backtrace; one that the nemesis injected is none.
    std::panic::set_hook(Box::new(|info| {
        if !sim::is_injected_panic(&rt::panic_message(info.payload())) {
            eprintln!("panic: {info}");
        }
    }));
    // `RUST_LOG=warn` prints the nodes' own log lines; the default prints none.
    let filter =
        tracing_subscriber::EnvFilter::builder().with_default_directive(LevelFilter::OFF.into()).from_env_lossy();
    tracing_subscriber::fmt().with_env_filter(filter).without_time().with_writer(std::io::stderr).init();
    match arguments.command {
        Some(Command::Found) => {
            let Some(plans) = regressions::plans() else { return ExitCode::FAILURE };
            let plans = plans.into_iter().map(|plan| (plan, true));
            return run_all(&arguments.world, plans, None, arguments.ledger.as_deref());
        }
        Some(Command::Shrink { seed }) => return shrink::shrink(&arguments.world.plan(seed)),
        #[cfg(feature = "mutants")]
        Some(Command::Mutants { most, only }) => return mutants::hunt(&arguments.world, most, &only),
        None => {}
    }
    let seeds = match (arguments.seed, arguments.lasts) {
        (Some(seed), _) => seed..seed + 1,
        (None, Some(_)) => arguments.seeds.start..u64::MAX,
        (None, None) => arguments.seeds,
    };
    let plans = seeds.map(|seed| (arguments.world.plan(seed), arguments.seed.is_some() || seed % 20 == 0));
    run_all(&arguments.world, plans, arguments.lasts, arguments.ledger.as_deref())
}

/// Runs these plans, those marked `true` twice, and prints the totals.
fn run_all(
    world: &WorldArguments,
    plans: impl Iterator<Item = (Plan, bool)> + Send,
    lasts: Option<Duration>,
    ledger: Option<&Path>,
) -> ExitCode {
    let began = Instant::now();
    let mut sum = Sum::default();
    let in_time = || lasts.is_none_or(|lasts| began.elapsed() < lasts);
    in_order(
        world.jobs(),
        plans.take_while(|_| in_time()),
        |(plan, twice)| Ran::of(plan, twice),
        |ran| {
            report(&ran, &mut sum);
            true
        },
    );
    let (simulated, real) = (sum.simulated.as_secs_f64(), began.elapsed().as_secs_f64());
    println!(
        "{} seeds, {:.1} simulated minutes in {:.1} s ({:.1} simulated s/s), {} faults, {} records acknowledged, {} read, {} broken{}",
        sum.seeds,
        simulated / 60.0,
        real,
        simulated / real,
        sum.faults,
        sum.acknowledged,
        sum.reads,
        sum.broken.len(),
        if sum.broken.is_empty() { String::new() } else { format!(": seeds {:?}", sum.broken) },
    );
    if let Some(ledger) = ledger
        && let Err(error) = ledger::append(ledger, &sum, began.elapsed())
    {
        eprintln!("{}: {error}", ledger.display());
        return ExitCode::FAILURE;
    }
    if sum.broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A plan and its outcome.
struct Ran {
    plan: Plan,
    outcome: Outcome,
    real: Duration,
    /// The trace hash of the second run, if it differs.
    differs: Option<u64>,
}

impl Ran {
    /// Runs a plan, twice if `twice`.
    fn of(plan: Plan, twice: bool) -> Self {
        let began = Instant::now();
        let outcome = run(&plan);
        let real = began.elapsed();
        let second = twice.then(|| run(&plan));
        let same =
            |second: &Outcome| second.trace_hash == outcome.trace_hash && second.acknowledged == outcome.acknowledged;
        let differs = second.filter(|second| !same(second)).map(|second| second.trace_hash);
        Self { plan, outcome, real, differs }
    }
}

/// Prints the outcome of a run and adds it to the totals.
fn report(ran: &Ran, sum: &mut Sum) {
    let Ran { plan, outcome, real, differs } = ran;
    println!(
        "seed {}: {} nodes, {} faults, {} acknowledged, {} read, {:.1} s simulated in {:.1} s, trace {:016x}",
        plan.seed,
        plan.nodes,
        outcome.faults,
        outcome.acknowledged,
        outcome.reads,
        outcome.elapsed.as_secs_f64(),
        real.as_secs_f64(),
        outcome.trace_hash,
    );
    sum.seeds += 1;
    sum.first.get_or_insert(plan.seed);
    sum.last = Some(plan.seed);
    sum.sizes.insert(plan.nodes);
    sum.simulated += outcome.elapsed;
    sum.acknowledged += outcome.acknowledged;
    sum.reads += outcome.reads;
    sum.faults += outcome.faults;
    if let Some((violation, trace)) = &outcome.broken {
        println!(
            "BROKEN by seed {}: {violation}\n{trace}  again: cargo sim --seed {} --nodes {} --storm {}",
            plan.seed,
            plan.seed,
            plan.nodes,
            humantime::format_duration(plan.fault_time)
        );
        sum.broken.push(plan.seed);
    }
    if let Some(second) = differs {
        println!("seed {} does not repeat: trace {:016x}, then {second:016x}", plan.seed, outcome.trace_hash);
        sum.broken.push(plan.seed);
    }
}

/// Does `work` on each of `items` on so many threads and passes the results on in the order of the items, until `take`
/// returns false.
fn in_order<T: Send, R: Send>(
    jobs: usize,
    items: impl Iterator<Item = T> + Send,
    work: impl Fn(T) -> R + Sync,
    mut take: impl FnMut(R) -> bool,
) {
    let items = Mutex::new(items.enumerate());
    let over = AtomicBool::new(false);
    let (sender, done) = mpsc::sync_channel(jobs);
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            let (sender, items, work, over) = (sender.clone(), &items, &work, &over);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let Some((number, item)) = items.lock().next() else { return };
                    if sender.send((number, work(item))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let (mut next, mut waiting) = (0, BTreeMap::new());
        for (number, result) in done {
            waiting.insert(number, result);
            while let Some(result) = waiting.remove(&next) {
                next += 1;
                if !over.load(Ordering::Relaxed) && !take(result) {
                    over.store(true, Ordering::Relaxed);
                }
            }
        }
    });
}
