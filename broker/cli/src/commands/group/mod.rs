//! `ottla group ...`: one file per command.

mod describe;
mod lag;
mod list;
mod plan;
mod reset;

use clap::Subcommand;

use super::failure::Failure;

/// What can be done with consumer groups.
#[derive(Debug, Subcommand)]
pub(super) enum Words {
    /// Lists groups
    List(list::Words),
    /// Shows groups from near: committed offsets, lag and members by partition
    Describe(describe::Words),
    /// Shows how far groups are behind, in records and seconds, and their status. Asks the admin port of one node
    Lag(lag::Words),
    /// Sets the offsets of a group without members. Only shows what it would do unless --execute is given
    Reset(reset::Words),
}

/// Runs the command.
pub(super) async fn run(words: Words) -> Result<(), Failure> {
    match words {
        Words::List(words) => list::run(&words).await,
        Words::Describe(words) => describe::run(&words).await,
        Words::Lag(words) => lag::run(&words).await,
        Words::Reset(words) => reset::run(&words).await,
    }
}
