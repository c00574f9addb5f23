//! Shrinks a failing seed: the fewest faults of its schedule that still break the law, by leaving out halves, quarters
//! and single ones.
//!
//! A shorter schedule is another run, since clients and tasks draw other numbers afterwards. Each candidate is
//! therefore run.

use std::process::ExitCode;

use crate::run::{Plan, run};

/// Prints the schedule of the shortest run found that still breaks the law.
pub(crate) fn shrink(plan: &Plan) -> ExitCode {
    let first = run(plan);
    let Some((violation, _)) = first.broken else {
        println!("seed {} breaks no law", plan.seed);
        return ExitCode::SUCCESS;
    };
    println!("seed {}: {violation}, {} faults", plan.seed, first.faults);
    let law = violation.law;
    let mut kept: Vec<usize> = (0..first.faults).collect();
    let mut piece = kept.len().div_ceil(2).max(1);
    loop {
        let before = kept.len();
        let mut from = 0;
        while from < kept.len() {
            let mut without = kept.clone();
            without.drain(from..(from + piece).min(kept.len()));
            let shorter = Plan { only: Some(without.clone()), ..plan.clone() };
            if run(&shorter).broken.is_some_and(|(violation, _)| violation.law == law) {
                println!("  {} faults are enough", without.len());
                kept = without;
            } else {
                from += piece;
            }
        }
        if piece == 1 && kept.len() == before {
            break;
        }
        piece = (piece / 2).max(1);
    }
    let last = run(&Plan { only: Some(kept.clone()), ..plan.clone() });
    if let Some((violation, trace)) = last.broken {
        println!("faults {kept:?}: {violation}\n{trace}");
    }
    ExitCode::FAILURE
}
