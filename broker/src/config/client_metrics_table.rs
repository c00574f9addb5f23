//! The table of what a subscription of client metrics says (KIP-714): all of Kafka 4.4, with its defaults and bounds.
//!
//! A subscription is kept and shown. As on a Kafka broker without a receiver of telemetry, no client is asked to push metrics.
//!
//! May not know: any subscription.

use super::name_filter::NameFilter;
use super::setting::{Range, Setting, int, list, split_list};
use super::topic_table::{ResourceSetting, find, of};

/// Time between two pushes of a client, in milliseconds.
pub const INTERVAL_MS: &str = "interval.ms";
/// Which clients are meant.
pub const MATCH: &str = "match";

const INTERVAL_MS_MIN: i32 = 100;
const INTERVAL_MS_MAX: i32 = 3_600_000;
/// What of a client a pattern of `match` may look at.
const SELECTORS: [&str; 6] = [
    "client_id",
    "client_instance_id",
    "client_software_name",
    "client_software_version",
    "client_source_address",
    "client_source_port",
];

const fn idle(setting: Setting) -> ResourceSetting {
    of(setting.idle("no client is asked for metrics, as by a Kafka broker without a receiver of telemetry"), &[])
}

/// All settings of a subscription, by name.
pub const CLIENT_METRICS_SETTINGS: &[ResourceSetting] = &[
    idle(int(INTERVAL_MS, "300000", Range::Any, "Time between two pushes of a client, in milliseconds.")),
    idle(list(MATCH, "", Range::Any, "Patterns of the clients that are meant, `selector=expression`; none: all.")),
    idle(list("metrics", "", Range::Any, "Prefixes of the names of the metrics that are asked for; `*`: all.")),
];

/// The setting called `name`.
#[must_use]
pub fn client_metrics_setting(name: &str) -> Option<&'static ResourceSetting> {
    find(CLIENT_METRICS_SETTINGS, name)
}

/// Whether `interval`, a number, may be the time between two pushes.
#[must_use]
pub fn is_interval(interval: &str) -> bool {
    interval.parse().is_ok_and(|ms: i32| (INTERVAL_MS_MIN..=INTERVAL_MS_MAX).contains(&ms))
}

/// The first of these patterns of clients that is none.
#[must_use]
pub fn illegal_pattern(patterns: &str) -> Option<&str> {
    let is_pattern = |pattern: &&str| {
        let words =
            pattern.split_once('=').filter(|(_, expression)| !expression.is_empty() && !expression.contains('='));
        words.is_some_and(|(selector, expression)| {
            SELECTORS.contains(&selector.trim()) && NameFilter::new(expression.trim()).is_ok()
        })
    };
    split_list(patterns).find(|pattern| !is_pattern(pattern))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::topic_table::assert_sound;

    #[test]
    fn every_setting_is_found_and_its_default_is_allowed() {
        assert_sound(CLIENT_METRICS_SETTINGS);
        assert!(CLIENT_METRICS_SETTINGS.iter().all(|entry| entry.setting.default.is_some()));
        assert!(client_metrics_setting("retention.ms").is_none());
    }

    #[test]
    fn intervals_and_patterns_have_kafkas_bounds() {
        for (interval, allowed) in [("99", false), ("100", true), ("3600000", true), ("3600001", false), ("-1", false)]
        {
            assert_eq!(is_interval(interval), allowed, "{interval}");
        }
        assert_eq!(illegal_pattern(""), None);
        assert_eq!(illegal_pattern("client_software_name = Java, client_software_version = 11.1.*"), None);
        for illegal in
            ["client_id", "client_id=", "=a", "unknown=a", "client_id=a=b", "client_id=(", "client_source_port"]
        {
            assert_eq!(illegal_pattern(&format!("client_id=a,{illegal}")), Some(illegal));
        }
    }
}
