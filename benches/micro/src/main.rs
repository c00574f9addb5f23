//! `cargo micro`: how many instructions each hot path takes, against the table beside this crate.
//!
//! Every case is run by this binary itself (`--case NAME --iterations N`) under valgrind, which counts instructions alike on
//! a busy machine and a quiet one. Two runs of different length are compared, so that setting up does not count.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::disallowed_types)]

mod cases;
mod measure;
mod table;

use std::process::ExitCode;

/// The broker's: what an allocation takes, and whether a list that grows is copied, must be as there. With that of glibc it hung on
/// the layout of the heap, which any change moves: by up to 9 %.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: &str = "usage: micro [--write] [NAME ...]
  without names every case; fails if one takes 5 % more instructions than benches/micro/table.txt says, or 20 % fewer
  --write                         renews the table (of the named cases)
  --list                          names the cases
  --case NAME --iterations N      runs a case here and now: what is counted, and what a profiler is to see";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["--list"] => {
            cases::all().iter().for_each(|case| println!("{:<28} {}", case.name, case.what));
            ExitCode::SUCCESS
        }
        ["--case", name, "--iterations", iterations] => {
            let case = cases::all().into_iter().find(|case| case.name == *name).expect("a case of --list");
            println!("{}", measure::processor());
            (case.run)(iterations.parse().expect("a number of iterations"));
            ExitCode::SUCCESS
        }
        rest => {
            let write = rest.contains(&"--write");
            let names: Vec<&str> = rest.iter().copied().filter(|word| *word != "--write").collect();
            let chosen: Vec<_> =
                cases::all().into_iter().filter(|case| names.is_empty() || names.contains(&case.name)).collect();
            if names.iter().any(|name| chosen.iter().all(|case| case.name != *name)) {
                eprintln!("{USAGE}");
                return ExitCode::from(2);
            }
            match table::compare(&chosen, names.is_empty(), write) {
                Ok(true) => ExitCode::SUCCESS,
                Ok(false) => ExitCode::FAILURE,
                Err(why) => {
                    eprintln!("micro: {why}");
                    ExitCode::FAILURE
                }
            }
        }
    }
}
