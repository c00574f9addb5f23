//! Judges a history that is kept in a file, and prints the report as JSON.
//!
//!     cargo run --release -p ottla-checker --example judge history.jsonl
//!
//! Exit code 0 if it is valid, 1 if not, 2 if nothing was read back; 3 if the file is no history.

#![allow(clippy::disallowed_methods)]

use std::process::ExitCode;

use ottla_checker::{Report, Verdict, check, lines};

fn main() -> ExitCode {
    match report() {
        Ok((report, text)) => {
            println!("{text}");
            match report.verdict {
                Verdict::Valid => ExitCode::SUCCESS,
                Verdict::Invalid => ExitCode::from(1),
                Verdict::Unknown => ExitCode::from(2),
            }
        }
        Err(reason) => {
            eprintln!("{reason}");
            ExitCode::from(3)
        }
    }
}

fn report() -> Result<(Report, String), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: judge HISTORY")?;
    let report = check(&lines::history(&std::fs::read_to_string(path)?)?);
    let text = serde_json::to_string_pretty(&report)?;
    Ok((report, text))
}
