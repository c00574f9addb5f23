//! The command line of `ottla start`: a few short flags, `--override name=value`, and every setting by its name.
//!
//! May not know: what a setting means; the environment; files.

use super::ConfigError;
use super::table::{nearest, settings};

/// The parsed command line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flags {
    /// `--config`.
    pub config_file: Option<String>,
    /// Settings by name, in the order given.
    pub settings: Vec<(String, String)>,
    /// `--help` was given.
    pub help: bool,
    /// `--version` was given.
    pub version: bool,
}

/// Names the configuration file where `--config` does not: an image sets it, so that every verb reads the same file.
pub const CONFIG_VARIABLE: &str = "OTTLA_CONFIG";

/// Flags that stand for a setting: flag, setting, help text.
const SHORT: &[(&str, &str, &str)] = &[
    ("node-id", "node.id", "number of this node"),
    ("rack", "broker.rack", "failure domain of this node"),
    ("listeners", "listeners", "what to bind, NAME://host:port by comma"),
    ("advertised-listeners", "advertised.listeners", "what clients are told to connect to"),
    ("data", "log.dirs", "data directories, by comma"),
    ("log-dirs", "log.dirs", "data directories, by comma"),
    ("admin-listener", "ottla.admin.listener", "host:port of metrics and health, or none"),
    ("cluster-listener", "ottla.cluster.listener", "host:port for other nodes"),
    ("cluster-seeds", "ottla.cluster.seeds", "host:port of the first nodes, by comma"),
    ("log-level", "ottla.log.level", "error, warn, info, debug or trace"),
];

fn all_flags() -> impl Iterator<Item = &'static str> {
    ["config", "override", "set", "help", "version"]
        .into_iter()
        .chain(SHORT.iter().map(|(flag, _, _)| *flag))
        .chain(settings().map(|setting| setting.name))
}

/// Text of `--help`.
#[must_use]
pub fn help() -> String {
    let mut text = String::from(
        "Usage: ottla [start] [flags]\n       ottla healthcheck [--live] [flags]\n       ottla topic|group|node|shard|feature COMMAND    asks a cluster and changes it: see ottla topic --help\n       ottla unsafe-recover [--lost NODES] [--accept-loss REPLICAS|all] [--execute] [flags]\n\nStarts a node; or asks the one that runs here whether it serves (--live: whether it lives), exit code 0 or 1. unsafe-recover: where most replicas of a shard are gone for good, or the only one lost entries, those of this node, which is down, go on alone (docs/operations.md). A flag beats the environment, which beats the file, which beats the default.\n\n\
         \x20 --config FILE             settings by Kafka's names, as in server.properties (also OTTLA_CONFIG)\n\
         \x20 --override NAME=VALUE     one setting (also --set); may be given often\n",
    );
    for (flag, setting, meaning) in SHORT {
        text.push_str(&format!("  --{flag:<23} {meaning} ({setting})\n"));
    }
    text.push_str("  --NAME VALUE              any other setting by its name: see docs/configuration.md\n");
    text.push_str("  --help, --version\n\nEnvironment: KAFKA_ variables as the apache/kafka image takes them (KAFKA_NODE_ID, KAFKA_LISTENERS, ...); OTTLA_ for settings that begin with ottla.\n");
    text
}

/// Parses the arguments after `ottla start`.
///
/// # Errors
/// When a flag is unknown (the message names the nearest known one) or has no value.
pub fn parse(words: impl IntoIterator<Item = String>) -> Result<Flags, ConfigError> {
    let mut flags = Flags::default();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let Some(flag) = word.strip_prefix("--") else {
            match word.as_str() {
                "-h" => flags.help = true,
                "-V" => flags.version = true,
                _ => {
                    return Err(ConfigError::Usage(format!("unexpected word {word}; flags begin with --, see --help")));
                }
            }
            continue;
        };
        let (flag, mut attached) = match flag.split_once('=') {
            Some((flag, value)) => (flag.to_owned(), Some(value.to_owned())),
            None => (flag.to_owned(), None),
        };
        let mut value = || {
            attached
                .take()
                .or_else(|| words.next())
                .ok_or_else(|| ConfigError::Usage(format!("--{flag} needs a value")))
        };
        match flag.as_str() {
            "help" => flags.help = true,
            "version" => flags.version = true,
            "config" => flags.config_file = Some(value()?),
            "override" | "set" => {
                let pair = value()?;
                let (name, value) = pair
                    .split_once('=')
                    .ok_or_else(|| ConfigError::Usage(format!("--{flag} {pair}: expected NAME=VALUE")))?;
                flags.settings.push((name.trim().to_owned(), value.trim().to_owned()));
            }
            name => {
                let setting = SHORT.iter().find(|(short, _, _)| *short == name).map(|(_, setting, _)| *setting);
                let setting =
                    setting.or_else(|| settings().find(|setting| setting.name == name).map(|setting| setting.name));
                match setting {
                    Some(setting) => flags.settings.push((setting.to_owned(), value()?)),
                    None => {
                        let nearest = nearest(name, all_flags()).map(|known| format!("--{known}"));
                        return Err(ConfigError::UnknownFlag { flag: word, nearest });
                    }
                }
            }
        }
    }
    Ok(flags)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Result<Flags, ConfigError> {
        parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn all_forms_are_read() {
        let flags = words(
            "--config a.properties --set num.partitions=3 --override=ottla.sync=false --node-id 4 --log.dirs=/a,/b",
        )
        .unwrap();
        assert_eq!(flags.config_file.as_deref(), Some("a.properties"));
        let pairs: Vec<_> = flags.settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(pairs, [("num.partitions", "3"), ("ottla.sync", "false"), ("node.id", "4"), ("log.dirs", "/a,/b")]);
    }

    #[test]
    fn an_unknown_flag_names_the_nearest() {
        assert_eq!(
            words("--listner PLAINTEXT://:1").unwrap_err().to_string(),
            "unknown flag --listner; did you mean --listeners?"
        );
        assert_eq!(
            words("--admin-listen=x").unwrap_err().to_string(),
            "unknown flag --admin-listen=x; did you mean --admin-listener?"
        );
        assert!(words("--config").unwrap_err().to_string().contains("needs a value"));
        assert!(words("start").is_err() && words("--set a").is_err());
    }

    #[test]
    fn help_names_every_short_flag() {
        assert!(SHORT.iter().all(|(flag, _, _)| help().contains(&format!("--{flag}"))));
    }
}
