//! Mutation testing: switches each seeded bug on and counts the seeds until a law is broken. A bug that is never caught
//! fails the command: either the laws are too weak, or the nemesis never reaches it.

use std::process::ExitCode;
use std::time::Instant;

use ottla_env::mutants::Bug;

use crate::profile::GRACEFUL_STOPS_FROM;
use crate::run::{Plan, run};
use crate::{WorldArguments, in_order};

/// The first seed to try: bugs of leaving and coming back need nodes that are stopped and unregistered.
fn first_seed(bug: Bug) -> u64 {
    match bug {
        Bug::RemovalNotDetected
        | Bug::LoneFounderWaitsToLead
        | Bug::LeftNodeFounds
        | Bug::RegisteredWhileLeaving
        | Bug::UnregisteredStartWaits
        | Bug::RemovalsNotAwaited => GRACEFUL_STOPS_FROM,
        _ => 0,
    }
}

pub(crate) fn hunt(world: &WorldArguments, most: u64, only: &[String]) -> ExitCode {
    let chosen = |bug: &&Bug| only.is_empty() || only.iter().any(|name| name == bug.name());
    let mut free = Vec::new();
    println!("{:<44} {:>6}  law", "seeded bug", "seeds");
    for bug in Bug::ALL.iter().filter(chosen) {
        let began = Instant::now();
        let first = first_seed(*bug);
        let plans = (first..first + most).map(|seed| Plan { mutant: Some(bug.name().to_owned()), ..world.plan(seed) });
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
            }
            None => {
                println!("{:<44} {:>6}  NOT CAUGHT in {:.0} s", bug.name(), most, began.elapsed().as_secs_f64());
                free.push(bug.name());
            }
        }
    }
    if free.is_empty() {
        println!("all caught");
        return ExitCode::SUCCESS;
    }
    println!("not caught: {}", free.join(", "));
    ExitCode::FAILURE
}
