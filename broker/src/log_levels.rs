//! Log levels of a node that change while it runs: Kafka's resource type BROKER_LOGGER. A logger is a module of the code with all that is
//! in it, `root` is all that has no level of its own. A change lasts until the process ends, as in Kafka.
//!
//! May not know: who changes a level, where lines are written.

use std::collections::BTreeMap;
use std::fmt;

use parking_lot::Mutex;
use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;

/// The logger of all modules that have no level of their own.
pub const ROOT: &str = "root";

/// The loggers. Kafka knows those classes that have logged; modules are fewer, and known beforehand.
pub const LOGGERS: &[&str] = &[
    ROOT,
    "openraft",
    "ottla_broker",
    "ottla_broker::admin",
    "ottla_broker::coordinator",
    "ottla_broker::handlers",
    "ottla_broker::metadata",
    "ottla_broker::node",
    "ottla_broker::partition",
    "ottla_broker::replicated",
    "ottla_broker::server",
    "ottla_broker::shard",
    "ottla_env",
    "ottla_protocol",
    "ottla_raft",
    "ottla_storage",
];

/// A level, by Kafka's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// Nothing is logged. It is shown, and cannot be set, as in Kafka.
    Off,
    /// As [`Self::Error`]: nothing is more severe here.
    Fatal,
    /// What an operator has to look at.
    Error,
    /// What an operator may have to look at.
    Warn,
    /// What an operator may want to know.
    Info,
    /// What a developer may want to know.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    const SETTABLE: [Self; 6] = [Self::Debug, Self::Error, Self::Fatal, Self::Info, Self::Trace, Self::Warn];

    /// Its name, as Kafka writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "OFF",
            Self::Fatal => "FATAL",
            Self::Error => "ERROR",
            Self::Warn => "WARN",
            Self::Info => "INFO",
            Self::Debug => "DEBUG",
            Self::Trace => "TRACE",
        }
    }

    fn filter(self) -> LevelFilter {
        match self {
            Self::Off => LevelFilter::OFF,
            Self::Fatal | Self::Error => LevelFilter::ERROR,
            Self::Warn => LevelFilter::WARN,
            Self::Info => LevelFilter::INFO,
            Self::Debug => LevelFilter::DEBUG,
            Self::Trace => LevelFilter::TRACE,
        }
    }

    /// What a filter lets a module log.
    fn in_force(filter: &Targets, module: &str) -> Self {
        let by_verbosity = [
            (Level::TRACE, Self::Trace),
            (Level::DEBUG, Self::Debug),
            (Level::INFO, Self::Info),
            (Level::WARN, Self::Warn),
            (Level::ERROR, Self::Error),
        ];
        let logged = |(level, _): &(Level, Self)| filter.would_enable(module, level);
        by_verbosity.into_iter().find(logged).map_or(Self::Off, |(_, level)| level)
    }
}

/// Why levels are not changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogLevelError {
    /// There is no logger of this name.
    UnknownLogger(String),
    /// The level of the logger, the first, cannot be this.
    UnknownLevel(String, String),
    /// The root logger has a level.
    RootStays,
}

impl fmt::Display for LogLevelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownLogger(name) => write!(f, "Logger {name} does not exist!"),
            Self::UnknownLevel(logger, level) => {
                let valid = LogLevel::SETTABLE.map(LogLevel::name).join(", ");
                write!(
                    f,
                    "Cannot set the log level of {logger} to {level} as it is not a supported log level. Valid log levels are {valid}"
                )
            }
            Self::RootStays => f.write_str("Removing the log level of the root logger is not allowed"),
        }
    }
}

/// Puts a filter in force.
pub type Apply = Box<dyn Fn(Targets) + Send + Sync>;

/// The levels of this process.
pub struct LogLevels {
    configured: Targets,
    set: Mutex<BTreeMap<&'static str, LogLevel>>,
    apply: Apply,
}

/// Levels of a process that filters its lines by itself, as a simulation does: a change is shown, and filters nothing.
impl Default for LogLevels {
    fn default() -> Self {
        Self::new(Targets::new().with_default(LevelFilter::INFO), Box::new(|_| {}))
    }
}

impl LogLevels {
    /// Levels of a process that has begun with `configured`.
    #[must_use]
    pub fn new(configured: Targets, apply: Apply) -> Self {
        Self { configured, set: Mutex::default(), apply }
    }

    /// The loggers and the level of each that is in force.
    #[must_use]
    pub fn all(&self) -> Vec<(&'static str, LogLevel)> {
        let set = self.set.lock();
        let filter = self.filter(&set);
        let level = |logger: &'static str| {
            // No module has an empty name: only what is for all modules fits it.
            let module = if logger == ROOT { "" } else { logger };
            set.get(logger).copied().unwrap_or_else(|| LogLevel::in_force(&filter, module))
        };
        LOGGERS.iter().map(|logger| (*logger, level(logger))).collect()
    }

    /// Sets the levels of loggers; `None`: what was configured holds again. All are changed or none.
    ///
    /// # Errors
    /// When there is no such logger or level. With `validate_only` nothing else is done.
    pub fn change(&self, changes: &[(String, Option<String>)], validate_only: bool) -> Result<(), LogLevelError> {
        let changes = changes.iter().map(|(logger, level)| checked(logger, level.as_deref()));
        let changes = changes.collect::<Result<Vec<_>, _>>()?;
        if validate_only {
            return Ok(());
        }
        let mut set = self.set.lock();
        for (logger, level) in changes {
            match level {
                Some(level) => set.insert(logger, level),
                None => set.remove(logger),
            };
            let name = level.map_or("as configured", LogLevel::name);
            tracing::info!(logger, "log level: {name}");
        }
        (self.apply)(self.filter(&set));
        Ok(())
    }

    fn filter(&self, set: &BTreeMap<&'static str, LogLevel>) -> Targets {
        let configured = self.configured.default_level().unwrap_or(LevelFilter::OFF);
        let root = set.get(ROOT).map_or(configured, |level| level.filter());
        let own = set.iter().filter(|(logger, _)| **logger != ROOT);
        self.configured.clone().with_default(root).with_targets(own.map(|(logger, level)| (*logger, level.filter())))
    }
}

fn checked(logger: &str, level: Option<&str>) -> Result<(&'static str, Option<LogLevel>), LogLevelError> {
    let level = match level {
        None => None,
        Some(wanted) => {
            let named = LogLevel::SETTABLE.into_iter().find(|level| level.name() == wanted);
            Some(named.ok_or_else(|| LogLevelError::UnknownLevel(logger.to_owned(), wanted.to_owned()))?)
        }
    };
    let known = LOGGERS.iter().find(|known| **known == logger);
    let known = known.ok_or_else(|| LogLevelError::UnknownLogger(logger.to_owned()))?;
    if *known == ROOT && level.is_none() {
        return Err(LogLevelError::RootStays);
    }
    Ok((known, level))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;

    fn levels(configured: &str) -> (LogLevels, Arc<Mutex<Option<Targets>>>) {
        let applied = Arc::new(Mutex::new(None));
        let seen = applied.clone();
        let levels = LogLevels::new(configured.parse().unwrap(), Box::new(move |filter| *seen.lock() = Some(filter)));
        (levels, applied)
    }

    fn set(logger: &str, level: &str) -> (String, Option<String>) {
        (logger.to_owned(), Some(level.to_owned()))
    }

    fn of(levels: &LogLevels, logger: &str) -> &'static str {
        levels.all().into_iter().find(|(name, _)| *name == logger).unwrap().1.name()
    }

    #[test]
    fn every_logger_is_a_module() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        for logger in LOGGERS {
            let place = match *logger {
                ROOT | "openraft" => continue,
                "ottla_broker" => "src".to_owned(),
                "ottla_env" => "../storage/env/src".to_owned(),
                name => match name.strip_prefix("ottla_broker::") {
                    Some(module) => format!("src/{module}"),
                    None => format!("../{}/src", name.trim_start_matches("ottla_")),
                },
            };
            assert!(root.join(&place).is_dir(), "{logger}");
        }
    }

    #[test]
    fn a_module_has_its_own_level_or_that_of_what_it_is_in() {
        let (levels, applied) = levels("info,openraft=off");
        assert_eq!((of(&levels, ROOT), of(&levels, "ottla_raft"), of(&levels, "openraft")), ("INFO", "INFO", "OFF"));
        levels.change(&[set("ottla_broker", "DEBUG"), set("ottla_broker::handlers", "FATAL")], false).unwrap();
        assert_eq!(
            (of(&levels, "ottla_broker::shard"), of(&levels, "ottla_broker::handlers"), of(&levels, ROOT)),
            ("DEBUG", "FATAL", "INFO")
        );
        let filter = applied.lock().take().unwrap();
        let logs = |module, level| filter.would_enable(module, &level);
        assert!(
            logs("ottla_broker::shard::tasks", Level::DEBUG) && !logs("ottla_broker::handlers::fetch", Level::WARN)
        );
        assert!(
            logs("ottla_raft", Level::INFO) && !logs("ottla_raft", Level::DEBUG) && !logs("openraft", Level::ERROR)
        );

        levels.change(&[set(ROOT, "WARN"), ("ottla_broker".to_owned(), None)], false).unwrap();
        assert_eq!((of(&levels, ROOT), of(&levels, "ottla_broker"), of(&levels, "openraft")), ("WARN", "WARN", "OFF"));
        assert_eq!(of(&levels, "ottla_broker::handlers"), "FATAL");
    }

    #[test]
    fn all_changes_are_made_or_none() {
        let (levels, applied) = levels("info");
        let unknown = LogLevelError::UnknownLogger("kafka.log".to_owned());
        assert_eq!(levels.change(&[set("ottla_raft", "DEBUG"), set("kafka.log", "DEBUG")], false), Err(unknown));
        let no_level = LogLevelError::UnknownLevel("ottla_raft".to_owned(), "OFF".to_owned());
        assert_eq!(levels.change(&[set("ottla_raft", "OFF")], false), Err(no_level));
        assert_eq!(levels.change(&[(ROOT.to_owned(), None)], false), Err(LogLevelError::RootStays));
        assert_eq!(levels.change(&[set("ottla_raft", "DEBUG")], true), Ok(()));
        assert!(applied.lock().is_none() && of(&levels, "ottla_raft") == "INFO");
    }
}
