//! Makes the typed configuration from the file, the environment and the command line: a flag overrides the environment,
//! the environment the file, the file the default.
//!
//! An unknown setting of Ottla (`ottla.`) is an error that names the nearest known one; a setting of Kafka without
//! effect here is one warning line. May not know: how settings act.

use std::collections::BTreeMap;

use ottla_storage::log::{batch_bytes_max, segment_bytes_min};

use super::ConfigError;
use super::flags::{CONFIG_VARIABLE, Flags};
use super::table::{nearest, reason_for, setting, settings, unneeded_by_kraft};
use super::topic_table::topic_setting;
use super::typed::{Config, controller_names};
use super::values::{Source, Values};

/// The sources of a node's configuration.
#[derive(Debug, Clone, Default)]
pub struct Inputs {
    /// The command line.
    pub flags: Flags,
    /// The environment, all of it.
    pub environment: Vec<(String, String)>,
    /// Path and content of the file that `flags.config_file` names.
    pub file: Option<(String, String)>,
}

/// A configuration and its warnings.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Warnings, a line each.
    pub warnings: Vec<String>,
}

/// Aliases of settings of the table.
const ALIASES: &[(&str, &str)] =
    &[("broker.id", "node.id"), ("log.dir", "log.dirs"), ("cluster.id", "ottla.cluster.id")];

/// Variables of Kafka's start scripts and images that are no settings, and the warning for each.
const SCRIPT_VARIABLES: &[(&str, &str)] = &[
    (
        "KAFKA_HEAP_OPTS",
        "there is no JVM heap to size; memory is bounded by queued.max.request.bytes and what the page cache takes",
    ),
    ("KAFKA_OPTS", "there is no JVM"),
    ("KAFKA_JVM_PERFORMANCE_OPTS", "there is no JVM"),
    ("KAFKA_GC_LOG_OPTS", "there is no JVM"),
    ("KAFKA_JMX_", "metrics are at /metrics of the admin port"),
    ("KAFKA_LOG4J_", "see OTTLA_LOG_LEVEL"),
    ("KAFKA_TOOLS_LOG4J_", "see OTTLA_LOG_LEVEL"),
];

/// Variables that images and shells set for themselves: ignored without a warning.
const SILENT_VARIABLES: &[&str] =
    &[CONFIG_VARIABLE, "KAFKA_HOME", "KAFKA_VERSION", "KAFKA_DEBUG", "KAFKA_CLASSPATH", "KAFKA_MODE", "KAFKA_DATA_DIR"];

/// The setting that the rest of a variable's name stands for: `_` is `.`, `__` is `_`, `___` is `-`.
fn setting_of_variable(rest: &str) -> String {
    rest.to_ascii_lowercase().replace("___", "-").replace("__", "\u{0}").replace('_', ".").replace('\u{0}', "_")
}

/// True for variables that Kubernetes and Docker set for a service called `kafka` or `ottla`.
fn is_service_link(name: &str, value: &str) -> bool {
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.contains("_TCP")
        || (name.ends_with("_PORT") && (value.starts_with("tcp://") || value.starts_with("udp://")))
}

/// One setting as given.
struct Given {
    name: String,
    value: String,
    source: Source,
    /// The name under which it was given.
    origin: String,
}

/// Collects values and warnings.
#[derive(Default)]
struct Collector {
    values: Values,
    /// Reason -> names.
    meaningless: BTreeMap<&'static str, Vec<String>>,
    warnings: Vec<String>,
    controller_listeners: Option<(Source, String)>,
    quorum_voters: Option<(Source, String)>,
}

/// Makes the configuration.
///
/// # Errors
/// When a value is not allowed or an `ottla.` setting is unknown.
pub fn load(inputs: &Inputs) -> Result<Loaded, ConfigError> {
    let mut collector = Collector::default();
    let mut given = Vec::new();
    if let Some((path, content)) = &inputs.file {
        for (name, value) in parse_properties(path, content)? {
            given.push(Given { origin: format!("in {path}"), name, value, source: Source::File });
        }
    }
    for (variable, value) in &inputs.environment {
        given.extend(collector.given_by(variable, value));
    }
    for (name, value) in &inputs.flags.settings {
        let origin = "on the command line".to_owned();
        given.push(Given { origin, name: name.clone(), value: value.clone(), source: Source::Flag });
    }
    for one in given {
        collector.take(one)?;
    }
    collector.finish()
}

impl Collector {
    fn given_by(&mut self, variable: &str, value: &str) -> Option<Given> {
        let given = |name: String| {
            Some(Given { origin: format!("as {variable}"), name, value: value.to_owned(), source: Source::Environment })
        };
        if value.is_empty() || is_service_link(variable, value) || SILENT_VARIABLES.contains(&variable) {
            return None;
        }
        if variable == "CLUSTER_ID" {
            return given("cluster.id".to_owned());
        }
        let known =
            |(name, _): &&(&str, &str)| variable == *name || (name.ends_with('_') && variable.starts_with(name));
        if let Some((_, reason)) = SCRIPT_VARIABLES.iter().find(known) {
            self.meaningless.entry(reason).or_default().push(variable.to_owned());
            return None;
        }
        if let Some(rest) = variable.strip_prefix("OTTLA_") {
            return given(format!("ottla.{}", setting_of_variable(rest)));
        }
        given(setting_of_variable(variable.strip_prefix("KAFKA_")?))
    }

    fn take(&mut self, given: Given) -> Result<(), ConfigError> {
        let remembered = match given.name.as_str() {
            "controller.listener.names" => Some(&mut self.controller_listeners),
            "controller.quorum.voters" => Some(&mut self.quorum_voters),
            _ => None,
        };
        if let Some(place) = remembered {
            *place = Some((given.source, given.value.clone()));
        }
        let alias = ALIASES.iter().find(|(alias, _)| *alias == given.name).map(|(_, name)| *name);
        let name = alias.unwrap_or(&given.name);
        if let Some(setting) = setting(name) {
            let value = setting.check(&given.value)?;
            let taken = self.values.all(name).iter().any(|(_, source)| *source == given.source);
            if alias.is_none() || !taken {
                self.values.set(setting.name, given.source, value);
            }
            return Ok(());
        }
        if name.starts_with("ottla.") {
            let nearest = nearest(name, settings().map(|setting| setting.name)).map(str::to_owned);
            return Err(ConfigError::UnknownSetting { name: name.to_owned(), origin: given.origin, nearest });
        }
        self.warn_about(name, &given.origin);
        Ok(())
    }

    /// Warns of a setting without effect; settings with the same reason share a line.
    fn warn_about(&mut self, name: &str, origin: &str) {
        if let Some(reason) = reason_for(name) {
            let names = self.meaningless.entry(reason).or_default();
            if !names.iter().any(|known| known == name) {
                names.push(name.to_owned());
            }
            return;
        }
        let hint = if let Some(entry) = topic_setting(name) {
            match entry.node_settings.first() {
                Some((node_name, _)) => {
                    format!("; it is a setting of topics, the default of all topics is {node_name}")
                }
                None => "; it is a setting of topics".to_owned(),
            }
        } else {
            let nearest = nearest(name, settings().map(|setting| setting.name));
            nearest.map(|near| format!("; did you mean {near}?")).unwrap_or_default()
        };
        self.warnings.push(format!("setting {name} ({origin}) is unknown and ignored{hint}"));
    }

    /// Takes the seeds and this node's peer addresses from the settings of a KRaft quorum of several nodes, if Ottla's own
    /// settings are not given.
    fn apply_kraft_quorum(&mut self) {
        let Some((source, voters)) = self.quorum_voters.clone() else { return };
        let voters: Vec<_> = voters.split(',').filter_map(|voter| voter.trim().split_once('@')).collect();
        if voters.len() < 2 || self.values.is_given("ottla.cluster.seeds") {
            return;
        }
        let seeds: Vec<_> = voters.iter().map(|(_, place)| *place).collect();
        self.values.set("ottla.cluster.seeds", source, seeds.join(","));
        if self.values.is_given("ottla.cluster.listener") {
            return;
        }
        let names = self.controller_listeners.as_ref().map(|(_, names)| controller_names(names)).unwrap_or_default();
        let listeners = self.values.list("listeners");
        let named = |listener: &&String| {
            listener.split_once("://").is_some_and(|(name, _)| names.contains(&name.trim().to_ascii_uppercase()))
        };
        if let Some((_, place)) = listeners.iter().find(named).and_then(|listener| listener.split_once("://")) {
            self.values.set("ottla.cluster.listener", source, place.to_owned());
            let own = self.values.int("node.id").to_string();
            if let Some((_, told)) = voters.iter().find(|(node, _)| *node == own) {
                self.values.set("ottla.cluster.advertised.listener", source, (*told).to_owned());
            }
        }
    }

    fn finish(mut self) -> Result<Loaded, ConfigError> {
        self.apply_kraft_quorum();
        let unneeded = match &self.controller_listeners {
            Some((_, names)) => controller_names(names),
            None => vec!["CONTROLLER".to_owned()],
        };
        for (reason, names) in &self.meaningless {
            let verb = if names.iter().all(|name| unneeded_by_kraft(name)) { "accepted" } else { "ignored" };
            self.warnings.push(format!("{verb}: {} ({reason})", names.join(", ")));
        }
        let config = Config::build(self.values, unneeded)?;
        if !config.log.sync {
            self.warnings.push("ottla.sync=false: a power cut or a crash of the system loses acknowledged records; use it for tests only".to_owned());
        }
        self.warnings.extend(check_batch_fits(&config)?);
        if values_disagree(&config) {
            self.warnings.push(format!(
                "message.max.bytes ({}) is above socket.request.max.bytes ({}): batches of that size cannot arrive",
                config.topics.defaults.max_message_bytes, config.network.request_bytes_max
            ));
        }
        Ok(Loaded { config, warnings: self.warnings })
    }
}

/// An allowed batch must fit into an entry, and the entry into a segment. A `message.max.bytes` that was not set
/// explicitly only warns: such batches are refused when they arrive.
fn check_batch_fits(config: &Config) -> Result<Option<String>, ConfigError> {
    let message_bytes = u64::try_from(config.topics.defaults.max_message_bytes).unwrap_or(0);
    let arriving = message_bytes.min(config.network.request_bytes_max as u64);
    let segment_bytes = config.log.segment_bytes;
    let fits = batch_bytes_max(segment_bytes);
    if arriving <= fits as u64 {
        return Ok(None);
    }
    let needed = segment_bytes_min(arriving);
    let raise = if batch_bytes_max(needed) as u64 >= arriving {
        format!("raise ottla.log.segment.bytes to at least {needed}, or ")
    } else {
        String::new()
    };
    let why = format!(
        "a batch of message.max.bytes={message_bytes} (socket.request.max.bytes={}) does not fit into it: {raise}lower \
         message.max.bytes to {fits}",
        config.network.request_bytes_max
    );
    let (name, value) = ("ottla.log.segment.bytes".to_owned(), segment_bytes.to_string());
    if !config.values.is_given("message.max.bytes") {
        return Ok(Some(format!("{name}={value}: {why}; larger batches are refused with MESSAGE_TOO_LARGE")));
    }
    Err(ConfigError::Invalid { name, value, why })
}

fn values_disagree(config: &Config) -> bool {
    usize::try_from(config.topics.defaults.max_message_bytes).unwrap_or(0) > config.network.request_bytes_max
}

/// Reads a file of Java properties: `name=value`, `name: value`, `#` and `!` comments, `\` at the end of a line
/// continues it.
fn parse_properties(path: &str, content: &str) -> Result<Vec<(String, String)>, ConfigError> {
    let mut pairs = Vec::new();
    let mut lines = content.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let mut logical = line.trim_start().to_owned();
        if logical.is_empty() || logical.starts_with(['#', '!']) {
            continue;
        }
        while logical.chars().rev().take_while(|c| *c == '\\').count() % 2 == 1 {
            logical.pop();
            match lines.next() {
                Some((_, next)) => logical.push_str(next.trim_start()),
                None => break,
            }
        }
        let (name, value) = split_property(&logical).ok_or_else(|| ConfigError::File {
            path: path.to_owned(),
            why: format!("line {}: expected name=value", number + 1),
        })?;
        pairs.push((unescape(name), unescape(value)));
    }
    Ok(pairs)
}

/// Name and value, split at the first `=`, `:` or blank.
fn split_property(line: &str) -> Option<(&str, &str)> {
    let end = line.find(['=', ':', ' ', '\t'])?;
    let (name, rest) = line.split_at(end);
    let rest = rest.trim_start();
    let rest = rest.strip_prefix(['=', ':']).unwrap_or(rest);
    (!name.is_empty()).then_some((name, rest.trim()))
}

fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        if c != '\\' {
            plain.push(c);
            continue;
        }
        match characters.next() {
            Some('t') => plain.push('\t'),
            Some('n') => plain.push('\n'),
            Some('r') => plain.push('\r'),
            Some('u') => {
                let digits: String = characters.by_ref().take(4).collect();
                plain.push(u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32).unwrap_or('\u{fffd}'));
            }
            Some(other) => plain.push(other),
            None => {}
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Endpoint, flags};

    fn inputs(file: &str, environment: &[(&str, &str)], line: &str) -> Inputs {
        Inputs {
            flags: flags::parse(line.split_whitespace().map(str::to_owned)).unwrap(),
            environment: environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            file: Some(("server.properties".to_owned(), file.to_owned())),
        }
    }

    fn loaded(file: &str, environment: &[(&str, &str)], line: &str) -> Loaded {
        load(&inputs(file, environment, line)).unwrap()
    }

    #[test]
    fn flag_beats_environment_beats_file_beats_default() {
        let file = "num.partitions=2\nlog.retention.hours=1\nnode.id=9\n";
        let environment = [("KAFKA_NUM_PARTITIONS", "3"), ("KAFKA_NODE_ID", "7")];
        let config = loaded(file, &environment, "--set num.partitions=4").config;
        assert_eq!(config.topics.num_partitions, 4);
        assert_eq!(config.node_id.0, 7);
        assert_eq!(config.topics.defaults.retention_ms, Some(3_600_000));
        assert_eq!(config.offsets.topic_partitions, 50);
        assert_eq!(config.values.get("num.partitions"), Some(("4", Source::Flag)));
        assert_eq!(config.values.all("num.partitions"), [("4", Source::Flag), ("1", Source::Default)]);
    }

    #[test]
    fn nothing_given_is_the_contract() {
        let config = load(&Inputs::default()).unwrap().config;
        assert_eq!(config.listeners[0].to_string(), "PLAINTEXT://127.0.0.1:9092");
        assert_eq!(config.advertised_listeners, config.listeners);
        assert_eq!(config.admin_listener.unwrap().to_string(), "127.0.0.1:9644");
        assert_eq!(config.log_dirs, [std::path::PathBuf::from("./data")]);
        assert_eq!(config.log.segment_bytes, 256 << 20);
        assert!(config.log.sync);
    }

    /// Settings that cannot work together are refused at start, with a message that names them and a remedy.
    #[test]
    fn a_batch_that_no_segment_holds_is_refused_at_start() {
        let refusal = |file: &str| load(&inputs(file, &[], "")).map(drop).map_err(|error| error.to_string());
        let told = refusal("ottla.log.segment.bytes=1048576\nmessage.max.bytes=1048588\n").unwrap_err();
        for word in ["ottla.log.segment.bytes", "message.max.bytes=1048588", "at least 1198387", "to 917504"] {
            assert!(told.contains(word), "{word} in: {told}");
        }
        assert_eq!(refusal("ottla.log.segment.bytes=1198387\nmessage.max.bytes=1048588\n"), Ok(()));
        // The default was not set explicitly: a node that ran with such segments starts, and warns of the limit.
        let warnings = loaded("ottla.log.segment.bytes=1048576\n", &[], "").warnings;
        assert!(warnings.iter().any(|warning| warning.contains("MESSAGE_TOO_LARGE")), "{warnings:?}");
        assert!(loaded("ottla.log.segment.bytes=1198387\n", &[], "").warnings.is_empty());
        assert_eq!(refusal("ottla.log.segment.bytes=1048576\nmessage.max.bytes=917504\n"), Ok(()));
        // A batch larger than a request never arrives.
        assert_eq!(refusal("message.max.bytes=2147483647\n"), Ok(()));
        let told = refusal("message.max.bytes=2147483647\nsocket.request.max.bytes=2147483647\n").unwrap_err();
        assert!(!told.contains("raise"), "no segment would do: {told}");
    }

    #[test]
    fn variables_map_as_in_kafkas_image() {
        assert_eq!(setting_of_variable("LOG_RETENTION_MS"), "log.retention.ms");
        assert_eq!(setting_of_variable("A__B___C_D"), "a_b-c.d");
        let config = loaded(
            "",
            &[
                ("OTTLA_ADMIN_LISTENER", "none"),
                ("OTTLA_CLUSTER_SEEDS", "a:1,b:2"),
                ("KAFKA_BROKER_RACK", "z1"),
                ("CLUSTER_ID", "abc"),
                ("OTTLA_CONFIG", "/etc/ottla/server.properties"),
            ],
            "",
        )
        .config;
        assert_eq!((config.admin_listener.clone(), config.cluster_size()), (None, 2));
        assert_eq!((config.rack.as_deref(), config.cluster_id.as_deref()), (Some("z1"), Some("abc")));
    }

    #[test]
    fn a_compose_file_for_kraft_starts_with_one_line_about_it() {
        let environment = [
            ("KAFKA_NODE_ID", "1"),
            ("KAFKA_PROCESS_ROLES", "broker,controller"),
            ("KAFKA_LISTENERS", "PLAINTEXT://localhost:9092,CONTROLLER://localhost:9093"),
            ("KAFKA_ADVERTISED_LISTENERS", "PLAINTEXT://localhost:9092"),
            ("KAFKA_CONTROLLER_LISTENER_NAMES", "CONTROLLER"),
            ("KAFKA_LISTENER_SECURITY_PROTOCOL_MAP", "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT"),
            ("KAFKA_CONTROLLER_QUORUM_VOTERS", "1@localhost:9093"),
            ("KAFKA_HEAP_OPTS", "-Xmx1g"),
            ("KAFKA_PORT_9092_TCP", "tcp://10.0.0.1:9092"),
            ("OTTLA_SERVICE_HOST", "10.0.0.1"),
        ];
        let loaded = loaded("", &environment, "");
        assert_eq!(loaded.config.listeners.len(), 1);
        assert_eq!(loaded.config.cluster_size(), 1);
        assert_eq!(loaded.warnings.len(), 2, "{:?}", loaded.warnings);
        assert!(loaded.warnings.iter().any(|line| line.contains("process.roles") && line.contains("not needed")));
        assert!(loaded.warnings.iter().any(|line| line.contains("KAFKA_HEAP_OPTS")));
    }

    #[test]
    fn quorum_voters_supply_the_seeds_where_only_they_are_given() {
        let voters = ("KAFKA_CONTROLLER_QUORUM_VOTERS", "1@a:9093,2@b:9093,3@c:9093");
        assert_eq!(loaded("", &[voters], "").config.cluster_size(), 3);
        assert_eq!(loaded("ottla.cluster.seeds=x:1", &[voters], "").config.cluster_size(), 1);
    }

    #[test]
    fn the_controllers_listener_is_where_other_nodes_come() {
        let environment = [
            ("KAFKA_NODE_ID", "2"),
            ("KAFKA_LISTENERS", "PLAINTEXT://:9092,CONTROLLER://:9093"),
            ("KAFKA_ADVERTISED_LISTENERS", "PLAINTEXT://b:9092"),
            ("KAFKA_CONTROLLER_LISTENER_NAMES", "CONTROLLER"),
            ("KAFKA_LISTENER_SECURITY_PROTOCOL_MAP", "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT"),
            ("KAFKA_CONTROLLER_QUORUM_VOTERS", "1@a:9093,2@b:9093,3@c:9093"),
        ];
        let config = loaded("", &environment, "").config;
        let place = |endpoint: Option<Endpoint>| endpoint.map(|endpoint| endpoint.to_string());
        assert_eq!(place(config.cluster_listener), Some(":9093".to_owned()));
        assert_eq!(place(config.cluster_advertised), Some("b:9093".to_owned()));
        let own = loaded("ottla.cluster.listener=x:1", &environment, "").config;
        assert_eq!((place(own.cluster_listener), own.cluster_advertised), (Some("x:1".to_owned()), None));
    }

    #[test]
    fn unknown_names_are_an_error_if_ours_and_a_warning_if_kafkas() {
        let error = load(&inputs("ottla.admin.listner=x", &[], "")).unwrap_err().to_string();
        assert_eq!(
            error,
            "unknown setting ottla.admin.listner (in server.properties); did you mean ottla.admin.listener?"
        );
        let error = load(&inputs("", &[("OTTLA_SYNK", "true")], "")).unwrap_err().to_string();
        assert!(error.contains("as OTTLA_SYNK") && error.contains("ottla.sync"), "{error}");
        let warnings =
            loaded("num.partition=3\nretention.ms=4\nzookeeper.connect=z:2181\nssl.keystore.password=secret", &[], "")
                .warnings;
        assert_eq!(warnings.len(), 4, "{warnings:?}");
        assert!(warnings[0].contains("did you mean num.partitions"));
        assert!(warnings[1].contains("log.retention.ms"));
        assert!(warnings.iter().all(|line| !line.contains("secret")));
    }

    #[test]
    fn a_value_out_of_range_is_an_error() {
        assert!(load(&inputs("num.partitions=0", &[], "")).unwrap_err().to_string().contains("at least 1"));
        assert!(load(&inputs("group.min.session.timeout.ms=0", &[], "")).is_ok(), "Kafka Streams' tests begin so");
        assert!(load(&inputs("group.min.session.timeout.ms=10\ngroup.max.session.timeout.ms=5", &[], "")).is_err());
    }

    #[test]
    fn properties_are_read_as_java_reads_them() {
        let text = "# c\n! c\n a = b \nc: d\ne f\ng=h\\\n   i\nj=k\\u0041\\\\\n\nl=\n";
        let pairs = parse_properties("p", text).unwrap();
        let expected = [("a", "b"), ("c", "d"), ("e", "f"), ("g", "hi"), ("j", "kA\\"), ("l", "")];
        assert_eq!(pairs, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert!(parse_properties("p", "loose").unwrap_err().to_string().contains("line 1"));
    }
}
