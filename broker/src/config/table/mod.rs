//! The table of the node's settings. Everything that reads, shows or documents settings reads this table.
//!
//! May not know: values.

mod data;
mod front;
mod metrics;
mod unserved;

use super::setting::{Dynamic, Setting};

pub(super) use unserved::{reason_for, unneeded_by_kraft};

/// All settings of a node, grouped as the reference page shows them: heading, settings.
pub const GROUPS: &[(&str, &[Setting])] = &[
    ("The node and its listeners", front::NODE),
    ("Connections and requests", front::NETWORK),
    ("Topics", data::TOPICS),
    ("The log", data::LOG),
    ("Replication", data::REPLICATION),
    ("Groups and their offsets", front::GROUPS),
    ("Producers and transactions", front::TRANSACTIONS),
    ("Metrics", metrics::METRICS),
];

/// All settings of a node.
pub fn settings() -> impl Iterator<Item = &'static Setting> {
    GROUPS.iter().flat_map(|(_, settings)| settings.iter())
}

/// The setting called `name`.
#[must_use]
pub fn setting(name: &str) -> Option<&'static Setting> {
    settings().find(|setting| setting.name == name)
}

/// True for a setting, served or not, that cannot be changed while a node runs, as in Kafka. One that nothing knows may be a
/// plug-in's: it is kept.
#[must_use]
pub fn is_read_only(name: &str) -> bool {
    setting(name).map_or_else(|| unserved::is_read_only(name), |known| known.dynamic == Dynamic::No)
}

/// The known name nearest to `name`, if any is near.
#[must_use]
pub fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // The prefix `ottla.` is ignored: it would make all such settings near to each other.
    let own = |name: &'a str| name.strip_prefix("ottla.").unwrap_or(name);
    let asked = name.strip_prefix("ottla.").unwrap_or(name);
    known
        .map(|candidate| (strsim::jaro_winkler(asked, own(candidate)), candidate))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::setting::Acts;

    #[test]
    fn names_are_unique_defaults_allowed_and_docs_are_there() {
        let mut names = BTreeSet::new();
        for setting in settings() {
            assert!(names.insert(setting.name), "{} twice", setting.name);
            if let Some(default) = setting.default {
                assert_eq!(setting.check(default), Ok(default.to_owned()), "{}", setting.name);
            }
            assert!(setting.doc.ends_with('.'), "{}", setting.name);
            assert!(reason_for(setting.name).is_none(), "{} is served and yet called meaningless", setting.name);
            assert!(!matches!(setting.acts, Acts::Nowhere("not used")), "{}: say where it acts", setting.name);
        }
    }

    #[test]
    fn what_kafka_does_not_change_live_is_read_only_whether_it_is_served_or_not() {
        for read_only in ["broker.rack", "security.inter.broker.protocol", "process.roles", "quota.window.num"] {
            assert!(is_read_only(read_only), "{read_only}");
        }
        for kept in ["num.partitions", "listener.name.x.ssl.keystore.type", "sasl.enabled.mechanisms", "a.plug.in"] {
            assert!(!is_read_only(kept), "{kept}");
        }
    }

    #[test]
    fn the_nearest_name_is_found() {
        let names = || settings().map(|setting| setting.name);
        assert_eq!(nearest("num.partition", names()), Some("num.partitions"));
        assert_eq!(nearest("ottla.admin.listner", names()), Some("ottla.admin.listener"));
        assert_eq!(nearest("ottla.synk", names()), Some("ottla.sync"));
        assert_eq!(nearest("zzz", names()), None);
        assert_eq!(nearest("ottla.zzz", names()), None);
    }
}
