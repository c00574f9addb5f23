//! `ottla topic ...`: one file per command.

mod alter;
mod consume;
mod create;
mod delete;
mod describe;
mod list;
mod produce;
mod resize;

use clap::Subcommand;

use super::failure::Failure;

/// What can be done with topics.
#[derive(Debug, Subcommand)]
pub(super) enum Words {
    /// Lists topics
    List(list::Words),
    /// Shows topics from near: partitions, leaders, offsets, sizes, configs
    Describe(describe::Words),
    /// Creates topics
    Create(create::Words),
    /// Changes a topic's configs or gives it more partitions
    Alter(alter::Words),
    /// Gives a topic shards of its own, or takes them back, while clients go on
    Resize(resize::Words),
    /// Deletes topics and all their records
    Delete(delete::Words),
    /// Writes the lines of standard input as records
    Produce(produce::Words),
    /// Prints records
    Consume(consume::Words),
}

/// Runs the command.
pub(super) async fn run(words: Words) -> Result<(), Failure> {
    match words {
        Words::List(words) => list::run(&words).await,
        Words::Describe(words) => describe::run(&words).await,
        Words::Create(words) => create::run(&words).await,
        Words::Alter(words) => alter::run(&words).await,
        Words::Resize(words) => resize::run(&words).await,
        Words::Delete(words) => delete::run(&words).await,
        Words::Produce(words) => produce::run(&words).await,
        Words::Consume(words) => consume::run(&words).await,
    }
}
