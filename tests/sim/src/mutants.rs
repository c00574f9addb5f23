//! Mutation testing: switches each seeded bug on and counts the seeds until a law is broken. A bug that is never caught
//! fails the command: either the laws are too weak, or the nemesis never reaches it. So does one that has become three times
//! harder to catch than it was.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use ottla_env::mutants::Bug;

use crate::profile::{GRACEFUL_STOPS_FROM, LATE_FOUNDERS_FROM};
use crate::run::{Plan, run};
use crate::{WorldArguments, in_order};

/// Where a bug is hunted unless the command says otherwise: most bugs in any seed, some only where they can do harm.
struct Ground {
    first_seed: u64,
    /// Nodes of the cluster, 0 for those that the seed has.
    nodes: u32,
    /// At least so long are the faults.
    storm: Duration,
}

impl Ground {
    const ANY: Self = Self { first_seed: 0, nodes: 0, storm: Duration::ZERO };

    fn of(bug: Bug) -> Self {
        match bug {
            // Nodes are stopped and unregistered.
            Bug::RemovalNotDetected | Bug::RegisteredWhileLeaving => {
                Self { first_seed: GRACEFUL_STOPS_FROM, ..Self::ANY }
            }
            // One node founds the cluster.
            Bug::LoneFounderWaitsToLead | Bug::LeftNodeFounds => {
                Self { first_seed: GRACEFUL_STOPS_FROM, nodes: 1, storm: Duration::from_secs(20) }
            }
            // A founder is late; nodes are unregistered as soon as they have joined, and while their disks hang.
            Bug::LevelNeedsAllFounders | Bug::UnregisteredStartWaits | Bug::RemovalsNotAwaited => {
                Self { first_seed: LATE_FOUNDERS_FROM, nodes: 3, ..Self::ANY }
            }
            // A follower that lags behind answers for a leader of which it does not know.
            Bug::FalseOutOfRange => Self { nodes: 5, storm: Duration::from_secs(30), ..Self::ANY },
            // An isolated leader truncates, and crashes before the next entry.
            Bug::TruncatedEntriesComeBack => Self { storm: Duration::from_secs(20), ..Self::ANY },
            _ => Self::ANY,
        }
    }

    /// The plan of a seed: what the command asks for, if it asks.
    fn plan(&self, world: &WorldArguments, bug: Bug, seed: u64) -> Plan {
        let plan = world.plan(seed);
        Plan {
            nodes: if self.nodes > 0 && world.nodes == 0 { self.nodes } else { plan.nodes },
            fault_time: plan.fault_time.max(self.storm),
            mutant: Some(bug.name().to_owned()),
            ..plan
        }
    }
}

/// In how many seeds each bug was caught when `caught.txt` was written.
const CAUGHT: &str = include_str!("../caught.txt");
/// A bug that takes so many times the seeds is harder to catch than it was; fewer than [`FEW_SEEDS`] are chance.
const HARDER_BY: u64 = 3;
const FEW_SEEDS: u64 = 10;

/// True if so many seeds are far more than it took.
fn is_harder(bug: Bug, seeds: u64) -> bool {
    let lines = CAUGHT.lines().filter_map(|line| line.split_once(' '));
    let known = lines.filter(|(name, _)| *name == bug.name()).find_map(|(_, seeds)| seeds.trim().parse::<u64>().ok());
    known.is_some_and(|known| seeds > HARDER_BY * known.max(FEW_SEEDS))
}

pub(crate) fn hunt(world: &WorldArguments, most: u64, only: &[String]) -> ExitCode {
    let chosen = |bug: &&Bug| only.is_empty() || only.iter().any(|name| name == bug.name());
    let (mut free, mut harder) = (Vec::new(), Vec::new());
    println!("{:<44} {:>6}  law", "seeded bug", "seeds");
    for bug in Bug::ALL.iter().filter(chosen) {
        let began = Instant::now();
        let ground = Ground::of(*bug);
        let first = ground.first_seed;
        let plans = (first..first + most).map(|seed| ground.plan(world, *bug, seed));
        let mut caught = None;
        in_order(
            world.jobs(),
            plans,
            |plan| (plan.seed - first + 1, run(&plan).broken),
            |(seeds, broken)| {
                caught = broken.map(|(violation, _)| (seeds, violation.to_string()));
                caught.is_none()
            },
        );
        match caught {
            Some((seeds, violation)) => {
                let law: String = violation.chars().take(110).collect();
                println!("{:<44} {seeds:>6}  {law}", bug.name());
                if is_harder(*bug, seeds) {
                    harder.push(bug.name());
                }
            }
            None => {
                println!("{:<44} {:>6}  NOT CAUGHT in {:.0} s", bug.name(), most, began.elapsed().as_secs_f64());
                free.push(bug.name());
            }
        }
    }
    if !harder.is_empty() {
        println!("{HARDER_BY} times harder to catch than caught.txt says: {}", harder.join(", "));
    }
    if !free.is_empty() {
        println!("not caught: {}", free.join(", "));
        return ExitCode::FAILURE;
    }
    println!("all caught");
    if harder.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
