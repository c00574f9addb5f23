//! The `ottla` binary: command line, logging, signals, exit codes. Everything else is in the library.
//!
//! `ottla start`: exit code 0 after a clean stop, 1 when the node cannot start, 2 when the command line cannot be
//! parsed. `ottla healthcheck`: 0 if the node is healthy, 1 if not. `ottla unsafe-recover`: 1 if nothing could be done.
//! Other verbs are requests to a cluster, as its clients send them ([`ottla_cli::commands`]).

use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;

use ottla_broker::admin::Readiness;
use ottla_broker::admin::check::{Probe, check};
use ottla_broker::config::flags::{self, Flags};
use ottla_broker::config::sources::{Inputs, load};
use ottla_broker::config::{Config, ConfigError};
use ottla_broker::log_levels::LogLevels;
use ottla_broker::node::{self, Losses, Node, StartError, World};
use ottla_cli::commands;
use ottla_protocol::ids::NodeId;
use ottla_storage::ids::ReplicaId;
use ottla_storage::log::AcceptLoss;
use tokio::signal::unix::{SignalKind, signal};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const EXIT_FAILED: u8 = 1;
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    let words = words();
    if words.first().is_some_and(|word| commands::is_one(word)) {
        return commands::run(words);
    }
    let readiness = Readiness::default();
    let (verb, words) = match verb(words) {
        Ok(verb) => verb,
        Err(error) => return complain(&error, EXIT_USAGE),
    };
    let flags = match flags::parse(words) {
        Ok(flags) => flags,
        Err(error) => return complain(&error, EXIT_USAGE),
    };
    if flags.help {
        print!("{}", flags::help());
        return ExitCode::SUCCESS;
    }
    if flags.version {
        println!("ottla {}", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    let (config, warnings) = match configure(flags) {
        Ok(configured) => configured,
        Err(error) => {
            let usage = matches!(error, ConfigError::Usage(_) | ConfigError::UnknownFlag { .. });
            return complain(&error, if usage { EXIT_USAGE } else { EXIT_FAILED });
        }
    };
    if let Verb::Healthcheck(probe) = verb {
        return healthcheck(&config, probe);
    }
    let log_levels = start_logging(&config);
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    node::raise_file_limit();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("ottla").build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&error, EXIT_FAILED),
    };
    let code = match verb {
        Verb::UnsafeRecover(losses, execute) => runtime.block_on(unsafe_recover(config, losses, execute)),
        Verb::Start | Verb::Healthcheck(_) => runtime.block_on(run(config, readiness, log_levels)),
    };
    // Blocking reads whose result is no longer needed must not keep the process alive.
    runtime.shutdown_background();
    code
}

/// The verb of the command line.
enum Verb {
    Start,
    Healthcheck(Probe),
    /// The lost nodes and replicas, and whether recovery is executed or only planned.
    UnsafeRecover(Losses, bool),
}

/// The command line after `ottla`.
fn words() -> Vec<String> {
    std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect()
}

/// The verb, `start` where none is given, and the flags after it.
fn verb(mut words: Vec<String>) -> Result<(Verb, Vec<String>), String> {
    let mut verb = Verb::Start;
    match words.first().map(String::as_str) {
        Some("start") => drop(words.remove(0)),
        Some("healthcheck") => {
            words.remove(0);
            let all = words.len();
            words.retain(|word| word != "--live");
            verb = Verb::Healthcheck(if words.len() < all { Probe::Live } else { Probe::Ready });
        }
        Some("unsafe-recover") => {
            words.remove(0);
            let all = words.len();
            words.retain(|word| word != "--execute");
            let execute = words.len() < all;
            verb = Verb::UnsafeRecover(losses(&mut words)?, execute);
        }
        _ => {}
    }
    if words.first().is_some_and(|word| word == "help") {
        words[0] = "--help".into();
    }
    Ok((verb, words))
}

/// Removes `--lost 2,3` and `--accept-loss 7` from the words.
fn losses(words: &mut Vec<String>) -> Result<Losses, String> {
    if words.iter().any(|word| word == "--help" || word == "-h") {
        return Ok(Losses::default());
    }
    let (nodes, replicas) = (option(words, "--lost")?, option(words, "--accept-loss")?);
    if nodes.is_none() && replicas.is_none() {
        return Err(
            "unsafe-recover needs --lost with the numbers of the nodes that are gone for good, or --accept-loss with \
                    those of replicas that lost entries (or all), by comma"
                .to_owned(),
        );
    }
    let number = |option: &str, word: &str| {
        word.trim().parse::<u64>().map_err(|_| format!("{option}: {word} is no number of a node or replica"))
    };
    let numbers = |option: &str, named: Option<String>| {
        let named = named.unwrap_or_default();
        let words = named.split(',').filter(|word| !word.trim().is_empty()).map(|word| number(option, word));
        words.collect::<Result<Vec<u64>, String>>()
    };
    let replicas = match replicas.as_deref() {
        None => AcceptLoss::Nothing,
        Some("all") => AcceptLoss::All,
        Some(_) => AcceptLoss::Of(numbers("--accept-loss", replicas)?.into_iter().map(ReplicaId).collect()),
    };
    let node = |id: u64| i32::try_from(id).map(NodeId).map_err(|_| format!("--lost: {id} is no node id"));
    let nodes = numbers("--lost", nodes)?.into_iter().map(node).collect::<Result<_, _>>()?;
    Ok(Losses { nodes, replicas })
}

/// Removes an option with its value from the words.
fn option(words: &mut Vec<String>, name: &str) -> Result<Option<String>, String> {
    let is_it = |word: &String| word.split('=').next() == Some(name);
    let Some(at) = words.iter().position(is_it) else { return Ok(None) };
    match words.remove(at).split_once('=') {
        Some((_, value)) => Ok(Some(value.to_owned())),
        None if at < words.len() => Ok(Some(words.remove(at))),
        None => Err(format!("{name} needs a value")),
    }
}

/// Prints the outcome for each replica of this node, and applies it if `--execute` was given.
async fn unsafe_recover(config: Config, losses: Losses, execute: bool) -> ExitCode {
    let all = match node::unsafe_recover(&config, &losses, execute).await {
        Ok(all) => all,
        Err(error) => return complain(&error, EXIT_FAILED),
    };
    all.iter().for_each(|recovery| println!("{recovery}"));
    let changed = all.iter().filter(|recovery| recovery.outcome.is_changed()).count();
    match execute {
        true => println!(
            "{changed} replicas go on alone; what only the lost nodes and entries had is gone. The lost nodes must never come back with their old disks."
        ),
        false => {
            println!("Nothing was changed; {changed} replicas would go on alone with --execute, on this node only.")
        }
    }
    ExitCode::SUCCESS
}

/// Exit code 0 if the node that this configuration describes is healthy, else 1.
fn healthcheck(config: &Config, probe: Probe) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&error, EXIT_FAILED),
    };
    match runtime.block_on(check(config, probe)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(unhealthy) => complain(&unhealthy, EXIT_FAILED),
    }
}

fn configure(flags: Flags) -> Result<(Config, Vec<String>), ConfigError> {
    let named = std::env::var(flags::CONFIG_VARIABLE).ok().filter(|path| !path.is_empty());
    let file = match flags.config_file.clone().or(named) {
        None => None,
        Some(path) => match std::fs::read_to_string(&path) {
            Ok(content) => Some((path, content)),
            Err(error) => return Err(ConfigError::Usage(format!("--config {path}: {error}"))),
        },
    };
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let loaded = load(&Inputs { flags, environment, file })?;
    Ok((loaded.config, loaded.warnings))
}

/// Starts to log to standard error, by `RUST_LOG` or else by the configuration; gives the levels, for those who change them.
fn start_logging(config: &Config) -> Arc<LogLevels> {
    let by_variable = std::env::var("RUST_LOG").ok().and_then(|filter| filter.parse::<Targets>().ok());
    let by_setting = format!("{},openraft=off", config.log_level).parse::<Targets>();
    let unclear = by_variable.is_none() && by_setting.is_err();
    let info = || Targets::new().with_default(LevelFilter::INFO).with_target("openraft", LevelFilter::OFF);
    let configured = by_variable.or(by_setting.ok()).unwrap_or_else(info);
    let (filter, filters) = tracing_subscriber::reload::Layer::new(configured.clone());
    let lines = tracing_subscriber::fmt::layer()
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    tracing_subscriber::registry().with(filter).with(lines).init();
    if unclear {
        tracing::warn!("ottla.log.level is no level and no filter by module: {}; info is used", config.log_level);
    }
    // A panic is logged like any other event, before the code that catches it logs the consequence.
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map_or_else(|| "?".to_owned(), ToString::to_string);
        let thread = std::thread::current().name().unwrap_or("?").to_owned();
        let message = ottla_env::rt::panic_message(info.payload());
        tracing::error!(thread, "panicked at {place}: {message}; please report this line");
        // With RUST_BACKTRACE=1.
        let backtrace = std::backtrace::Backtrace::capture();
        if backtrace.status() == std::backtrace::BacktraceStatus::Captured {
            tracing::error!("{backtrace}");
        }
    }));
    let apply = move |filter| {
        if let Err(error) = filters.reload(filter) {
            tracing::error!("log levels are not changed: {error}");
        }
    };
    Arc::new(LogLevels::new(configured, Box::new(apply)))
}

/// Starts a node on this machine.
async fn start(config: Config, readiness: Readiness, log_levels: Arc<LogLevels>) -> Result<Node, StartError> {
    let mut world = World::of_machine(&config).await?;
    world.options.log_levels = log_levels;
    Node::start(world, config, readiness).await
}

async fn run(config: Config, readiness: Readiness, log_levels: Arc<LogLevels>) -> ExitCode {
    let (mut terminate, mut interrupt) = match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        (Ok(terminate), Ok(interrupt)) => (terminate, interrupt),
        (Err(error), _) | (_, Err(error)) => return complain(&error, EXIT_FAILED),
    };
    let stop = async {
        tokio::select! {
            biased;
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        }
    };
    tokio::pin!(stop);
    let started = tokio::select! {
        biased;
        started = start(config, readiness, log_levels) => started,
        name = &mut stop => {
            // Nothing is acknowledged yet; an interrupted recovery is repeated at the next start.
            tracing::info!("{name} during the start: stopped");
            return ExitCode::SUCCESS;
        }
    };
    let node = match started {
        Ok(node) => node,
        Err(error) => return complain(&error, EXIT_FAILED),
    };
    let name = tokio::select! {
        biased;
        name = &mut stop => name,
        reason = node.failed() => {
            node.stop().await;
            return complain(&reason, EXIT_FAILED);
        }
    };
    tracing::info!("{name}: stopping");
    node.stop().await;
    tracing::info!("stopped");
    ExitCode::SUCCESS
}

/// Writes one line on standard error.
fn complain(error: &dyn std::fmt::Display, code: u8) -> ExitCode {
    eprintln!("ottla: {error}");
    ExitCode::from(code)
}
