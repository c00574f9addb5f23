//! `ottla topic`, `group`, `node`, `shard`, `balance`, `feature`: the administrator's command line, with tables for people and
//! JSON for programs.
//!
//! Exit code 0 for success, 1 for failure, 2 for invalid arguments. May not know: any layer of the broker; it sends
//! requests as any client does.

mod balance;
mod common;
mod failure;
mod feature;
mod group;
mod input;
mod node;
mod output;
mod shard;
mod topic;
mod units;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use failure::Failure;

const EXIT_FAILED: u8 = 1;
/// The exit code that shells report for a process ended by SIGINT.
const EXIT_INTERRUPTED: u8 = 130;

/// Asks a cluster and changes it.
#[derive(Debug, Parser)]
#[command(name = "ottla", version, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Topics: list, describe, create, alter, delete, write to and read from them
    #[command(subcommand)]
    Topic(topic::Words),
    /// Consumer groups: list, describe, reset their offsets
    #[command(subcommand)]
    Group(group::Words),
    /// Nodes
    #[command(subcommand)]
    Node(node::Words),
    /// Shards: what is replicated and scaled. Asks the admin port of one node
    #[command(subcommand)]
    Shard(shard::Words),
    /// The balance of load over the nodes. Asks the admin port of one node
    #[command(subcommand)]
    Balance(balance::Words),
    /// Feature levels: which formats a cluster uses, raised after an upgrade
    #[command(subcommand)]
    Feature(feature::Words),
}

/// True for the first word of a command line that [`run`] understands.
#[must_use]
pub fn is_one(word: &str) -> bool {
    ["topic", "group", "node", "shard", "balance", "feature"].contains(&word)
}

/// Runs the command given by the arguments after `ottla`.
#[must_use]
pub fn run(words: Vec<String>) -> ExitCode {
    let cli = match Cli::try_parse_from(std::iter::once("ottla".to_owned()).chain(words)) {
        Ok(cli) => cli,
        Err(told) => {
            // A closed pipe while help is printed is no failure.
            let _ = told.print();
            return ExitCode::from(u8::try_from(told.exit_code()).unwrap_or(EXIT_FAILED));
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&error),
    };
    let code = runtime.block_on(finish(cli.command));
    // A thread that still reads standard input must not keep the process alive.
    runtime.shutdown_background();
    code
}

async fn finish(command: Command) -> ExitCode {
    let reads = matches!(&command, Command::Topic(topic::Words::Consume(_)));
    let outcome = tokio::select! {
        biased;
        outcome = run_command(command) => outcome,
        // `consume` has no other end: for it an interrupt is success.
        _ = tokio::signal::ctrl_c() => return if reads { ExitCode::SUCCESS } else { ExitCode::from(EXIT_INTERRUPTED) },
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of the output has closed the pipe, as `head` does.
        Err(Failure::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => complain(&failure),
    }
}

async fn run_command(command: Command) -> Result<(), Failure> {
    match command {
        Command::Topic(words) => topic::run(words).await,
        Command::Group(words) => group::run(words).await,
        Command::Node(words) => node::run(words).await,
        Command::Shard(words) => shard::run(words).await,
        Command::Balance(words) => balance::run(words).await,
        Command::Feature(words) => feature::run(words).await,
    }
}

/// Writes one line for each error.
fn complain(error: &dyn std::fmt::Display) -> ExitCode {
    for line in error.to_string().lines() {
        output::say(line);
    }
    ExitCode::from(EXIT_FAILED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once("ottla").chain(line.split_whitespace()))
    }

    #[test]
    fn the_words_hold_together_and_each_command_has_an_example() {
        Cli::command().debug_assert();
        for verb in Cli::command().get_subcommands() {
            assert!(is_one(verb.get_name()), "{}", verb.get_name());
            for command in verb.get_subcommands() {
                let help = command.clone().render_long_help().to_string();
                let example = format!("ottla {} {}", verb.get_name(), command.get_name());
                assert!(help.contains("Example") && help.contains(&example), "{example}: {help}");
            }
        }
        assert!(!is_one("start") && !is_one("--help"));
    }

    #[test]
    fn good_lines_are_understood_and_bad_ones_refused() {
        for line in [
            "topic list --internal -o json",
            "topic create a b --partitions 3 --replication-factor 1 --config retention.ms=1000",
            "topic alter a --partitions 4 --set k=v --delete x",
            "topic consume a -p 0,2 --from 2026-11-21T10:00:00 --exit-at-end --max-messages 5",
            "topic produce a --acks none --header a=b --header c=d --key-separator :",
            "topic list -b a:1,b:2 -b c",
            "group reset g --topic t:0,1 --topic u --shift-by -3 --execute",
            "group reset g --all-topics --to-earliest --dry-run",
            "group lag",
            "group lag g h --watch --admin http://h:1",
            "group lag g --watch 5 -o json",
            "shard describe 4 --admin http://h:1",
            "shard set-clock 4 --to 2026-11-21T10:00:00",
            "shard set-clock --all",
            "feature upgrade ottla.version=2 x=3 --dry-run",
        ] {
            if let Err(error) = parse(line) {
                panic!("{line}: {error}");
            }
        }
        for line in [
            "topic",
            "topic create",
            "topic create a --partitions 0",
            "topic create a --config x",
            "topic alter a",
            "topic consume a --from -5",
            "topic consume a --from yesterday",
            "topic produce a --acks 2",
            "topic list -b a:b",
            "group reset g --to-earliest",
            "group reset g --topic t",
            "group reset g --topic t --to-earliest --to-latest",
            "group reset g --topic t --all-topics --to-earliest",
            "group reset g --topic t:x --to-earliest",
            "group reset g --topic t --to-earliest --dry-run --execute",
            "group lag g --watch 0",
            "shard describe x",
            "shard set-clock",
            "shard set-clock 4 --all",
            "feature upgrade",
            "feature upgrade ottla.version=two",
        ] {
            assert_eq!(parse(line).err().map(|error| error.exit_code()), Some(2), "{line}");
        }
    }
}
