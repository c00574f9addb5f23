//! The settings of a node, a topic, a group or a subscription of client metrics as DescribeConfigs shows them: value, source,
//! synonyms, type, documentation.
//!
//! May not know: requests and responses on the wire.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::client_metrics_table::CLIENT_METRICS_SETTINGS;
use super::group_table::GROUP_SETTINGS;
use super::listener_security;
use super::setting::{Acts, Dynamic, Kind, Setting};
use super::table::{setting, settings};
use super::topic_table::{ResourceSetting, TOPIC_SETTINGS};
use super::typed::in_topic_units;
use super::values::{Source, Values};

/// DescribeConfigs' number for a value set for a topic.
pub const TOPIC_SOURCE: i8 = 1;
/// DescribeConfigs' number for a value set for a subscription of client metrics.
pub const CLIENT_METRICS_SOURCE: i8 = 7;
/// DescribeConfigs' number for a value set for a group.
pub const GROUP_SOURCE: i8 = 8;
/// DescribeConfigs' number for a default.
pub const DEFAULT_SOURCE: i8 = 5;

/// DescribeConfigs' number for a setting whose type is not known.
const UNKNOWN_KIND: i8 = 0;

/// A synonym: the value in effect, or one that would be without those before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Synonym {
    /// The setting that supplies it.
    pub name: &'static str,
    /// The value; `None` is unset or secret.
    pub value: Option<String>,
    /// DescribeConfigs' number of its source.
    pub source: i8,
}

/// One setting as shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// Its name.
    pub name: Cow<'static, str>,
    /// The value in effect; `None` is unset or secret.
    pub value: Option<String>,
    /// DescribeConfigs' number of its source.
    pub source: i8,
    /// True when it cannot be changed while the node runs.
    pub read_only: bool,
    /// True for secrets.
    pub sensitive: bool,
    /// DescribeConfigs' number of its type.
    pub kind: i8,
    /// Its documentation; for a setting without effect, the reason.
    pub documentation: String,
    /// All values, the one in effect first.
    pub synonyms: Vec<Synonym>,
}

fn documentation(setting: &Setting) -> String {
    match setting.acts {
        Acts::In(_) => setting.doc.to_owned(),
        Acts::Nowhere(why) => format!("{} Accepted without effect: {why}.", setting.doc),
    }
}

fn shown(setting: &Setting, synonyms: Vec<Synonym>, read_only: bool) -> Described {
    let first = synonyms.first();
    Described {
        name: setting.name.into(),
        value: first.and_then(|synonym| synonym.value.clone()),
        source: first.map_or(DEFAULT_SOURCE, |synonym| synonym.source),
        read_only,
        sensitive: setting.is_sensitive(),
        kind: setting.kind as i8,
        documentation: documentation(setting),
        synonyms,
    }
}

fn visible(setting: &Setting, value: &str) -> Option<String> {
    (!setting.is_sensitive()).then(|| value.to_owned())
}

/// What Kafka shows where it is set, and nowhere else: limits, since tools take one that is shown for one that was forgotten, and
/// what is internal.
const SHOWN_IF_SET: [&str; 4] = [
    "follower.replication.throttled.rate",
    "leader.replication.throttled.rate",
    "replica.alter.log.dirs.io.max.bytes.per.second",
    "internal.segment.bytes",
];

fn is_shown(described: &Described) -> bool {
    described.source != DEFAULT_SOURCE || !SHOWN_IF_SET.contains(&described.name.as_ref())
}

/// All settings of a node.
#[must_use]
pub fn describe_node(values: &Values) -> Vec<Described> {
    let describe = |setting: &'static Setting| {
        let synonyms = values
            .all(setting.name)
            .into_iter()
            .map(|(value, source)| Synonym {
                name: setting.name,
                value: visible(setting, value),
                source: source.code(),
            })
            .collect();
        shown(setting, synonyms, setting.dynamic == Dynamic::No)
    };
    settings().map(describe).filter(is_shown).collect()
}

/// Settings that were set and that no part of a node knows, each with the first source that has it. What they hold may be a secret, so it
/// is not shown, as in Kafka; of a listener's settings of TLS it is known which are.
pub fn describe_unknown<'a>(sets: impl IntoIterator<Item = (&'a BTreeMap<String, String>, Source)>) -> Vec<Described> {
    let mut unknown = BTreeMap::new();
    for (set, source) in sets {
        for (name, value) in set.iter().filter(|(name, _)| setting(name).is_none()) {
            unknown.entry(name).or_insert((value, source));
        }
    }
    let described = unknown.into_iter().map(|(name, (value, source))| {
        let kind = listener_security::kind_of(name);
        let sensitive = kind.is_none_or(|kind| kind == Kind::Password);
        Described {
            name: name.clone().into(),
            value: (!sensitive).then(|| value.clone()),
            source: source.code(),
            read_only: false,
            sensitive,
            kind: kind.map_or(UNKNOWN_KIND, |kind| kind as i8),
            documentation: String::new(),
            synonyms: Vec::new(),
        }
    });
    described.collect()
}

/// The dynamic settings of all nodes, and nothing else.
#[must_use]
pub fn describe_all_nodes(set: &BTreeMap<String, String>) -> Vec<Described> {
    let mut all = describe_unknown([(set, Source::DynamicDefault)]);
    for setting in settings() {
        if let Some(value) = set.get(setting.name) {
            let source = Source::DynamicDefault.code();
            let synonym = Synonym { name: setting.name, value: visible(setting, value), source };
            all.push(shown(setting, vec![synonym], false));
        }
    }
    all
}

/// All values of a topic's or group's setting, and the one in effect in its own unit: synonyms are shown in theirs.
fn synonyms(
    entry: &ResourceSetting,
    values: &Values,
    (overrides, source): (&BTreeMap<String, String>, i8),
) -> (Option<String>, Vec<Synonym>) {
    let mut synonyms = Vec::new();
    if let Some(value) = overrides.get(entry.setting.name) {
        synonyms.push(Synonym { name: entry.setting.name, value: Some(value.clone()), source });
    }
    for (name, _) in entry.node_settings {
        for (value, source) in values.all(name) {
            synonyms.push(Synonym { name, value: Some(value.to_owned()), source: source.code() });
        }
    }
    // Explicit values of any node setting go before the defaults of all of them.
    synonyms.sort_by_key(|synonym| synonym.source == DEFAULT_SOURCE);
    if !synonyms.iter().any(|synonym| synonym.source == DEFAULT_SOURCE) {
        let value = entry.setting.default.map(str::to_owned);
        synonyms.push(Synonym { name: entry.setting.name, value, source: DEFAULT_SOURCE });
    }
    let value = synonyms.first().and_then(|first| {
        let factor = entry.node_settings.iter().find(|(name, _)| *name == first.name).map_or(1, |(_, factor)| *factor);
        in_topic_units(first.value.as_deref()?, factor)
    });
    (value, synonyms)
}

/// All settings of a topic for which `overrides` are set, on a node with `values`.
#[must_use]
pub fn describe_topic(values: &Values, overrides: &BTreeMap<String, String>) -> Vec<Described> {
    describe(TOPIC_SETTINGS, values, (overrides, TOPIC_SOURCE))
}

/// All configs of a group, of which some may be set, on a node with `values`.
#[must_use]
pub fn describe_group(values: &Values, set: Option<&BTreeMap<String, String>>) -> Vec<Described> {
    describe(GROUP_SETTINGS, values, (set.unwrap_or(&BTreeMap::new()), GROUP_SOURCE))
}

/// What a subscription of client metrics says, whether it exists or not, on a node with `values`. What lies behind a value
/// that is set is not shown, as in Kafka.
#[must_use]
pub fn describe_client_metrics(values: &Values, set: Option<&BTreeMap<String, String>>) -> Vec<Described> {
    let mut all = describe(CLIENT_METRICS_SETTINGS, values, (set.unwrap_or(&BTreeMap::new()), CLIENT_METRICS_SOURCE));
    all.iter_mut().for_each(|described| described.synonyms.truncate(1));
    all
}

fn describe(
    table: &'static [ResourceSetting],
    values: &Values,
    overrides: (&BTreeMap<String, String>, i8),
) -> Vec<Described> {
    let describe = |entry: &'static ResourceSetting| {
        let (value, synonyms) = synonyms(entry, values, overrides);
        Described { value, ..shown(&entry.setting, synonyms, false) }
    };
    table.iter().map(describe).filter(is_shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::topic_table::topic_setting;

    #[test]
    fn a_topics_setting_shows_what_holds_and_what_lies_behind_it() {
        let mut values = Values::default();
        values.set("log.retention.hours", Source::File, "2".into());
        let overrides = BTreeMap::from([("retention.ms".to_owned(), "5".to_owned())]);
        let (value, all) = synonyms(topic_setting("retention.ms").unwrap(), &values, (&overrides, TOPIC_SOURCE));
        assert_eq!(value.as_deref(), Some("5"));
        let (inherited, _) =
            synonyms(topic_setting("retention.ms").unwrap(), &values, (&BTreeMap::new(), TOPIC_SOURCE));
        assert_eq!(inherited.as_deref(), Some("7200000"));
        let shown: Vec<_> = all.iter().map(|s| (s.name, s.value.as_deref().unwrap(), s.source)).collect();
        assert_eq!(
            shown,
            [("retention.ms", "5", 1), ("log.retention.hours", "2", 4), ("log.retention.hours", "168", 5)]
        );
    }

    #[test]
    fn all_settings_of_a_topic_are_shown_with_type_and_documentation() {
        let set = BTreeMap::from([("internal.segment.bytes".to_owned(), "1000".to_owned())]);
        assert_eq!(describe_topic(&Values::default(), &set).len(), TOPIC_SETTINGS.len());
        let all = describe_topic(&Values::default(), &BTreeMap::new());
        assert_eq!(all.len(), TOPIC_SETTINGS.len() - 1, "the internal one is shown where it is set");
        for described in all {
            assert_eq!(described.source, DEFAULT_SOURCE, "{}", described.name);
            assert_eq!(
                described.value.as_deref(),
                topic_setting(&described.name).unwrap().setting.default,
                "{}",
                described.name
            );
            assert!(!described.documentation.is_empty() && described.kind > 0 && !described.synonyms.is_empty());
        }
    }

    #[test]
    fn a_setting_that_nothing_knows_is_listed_once_with_the_source_in_effect() {
        let set = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), "1".to_owned())).collect();
        let (node, all): (BTreeMap<_, _>, BTreeMap<_, _>) =
            (set(&["x.one", "x.both"]), set(&["num.partitions", "x.both"]));
        let listed = describe_unknown([(&node, Source::DynamicNode), (&all, Source::DynamicDefault)]);
        let listed: Vec<_> = listed.iter().map(|one| (one.name.as_ref(), one.value.as_deref(), one.source)).collect();
        assert_eq!(listed, [("x.both", None, 2), ("x.one", None, 2)]);
    }

    #[test]
    fn of_a_listeners_tls_everything_but_secrets_is_shown() {
        let set = ["location", "password"].map(|what| (format!("listener.name.x.ssl.keystore.{what}"), "a".to_owned()));
        let listed = describe_unknown([(&BTreeMap::from(set), Source::DynamicNode)]);
        let listed: Vec<_> = listed.iter().map(|one| (one.value.as_deref(), one.sensitive, one.kind)).collect();
        assert_eq!(listed, [(Some("a"), false, 2), (None, true, 9)]);
    }

    #[test]
    fn of_a_subscription_only_the_value_that_holds_is_shown() {
        let set = BTreeMap::from([("metrics".to_owned(), "org.apache".to_owned())]);
        for described in describe_client_metrics(&Values::default(), Some(&set)) {
            let source = if described.name == "metrics" { CLIENT_METRICS_SOURCE } else { DEFAULT_SOURCE };
            assert_eq!(described.synonyms.iter().map(|s| s.source).collect::<Vec<_>>(), [source], "{}", described.name);
        }
    }

    #[test]
    fn a_dynamic_value_goes_before_a_static_one() {
        let mut values = Values::default();
        values.set("num.partitions", Source::File, "2".into());
        values.set("num.partitions", Source::DynamicDefault, "3".into());
        let all = describe_node(&values);
        assert!(!all.iter().any(|described| SHOWN_IF_SET.contains(&described.name.as_ref())));
        values.set(SHOWN_IF_SET[0], Source::DynamicNode, "1000".into());
        assert!(describe_node(&values).iter().any(|described| described.name == SHOWN_IF_SET[0]));
        let found = all.iter().find(|described| described.name == "num.partitions").unwrap();
        assert_eq!((found.value.as_deref(), found.source, found.read_only), (Some("3"), 3, false));
        assert_eq!(found.synonyms.iter().map(|s| s.source).collect::<Vec<_>>(), [3, 4, 5]);
    }
}
