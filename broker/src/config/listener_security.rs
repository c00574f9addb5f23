//! Settings of TLS that Kafka changes while a broker runs, and only for one listener of one node:
//! `listener.name.external.ssl.keystore.location`. They are kept and shown, and protect nothing before TLS is served.
//!
//! May not know: which listeners there are.

use super::setting::Kind;

const LISTENER: &str = "listener.name.";

/// Kafka's `SslConfigs.RECONFIGURABLE_CONFIGS`, with their types.
const SETTINGS: [(&str, Kind); 10] = [
    ("ssl.key.password", Kind::Password),
    ("ssl.keystore.certificate.chain", Kind::Password),
    ("ssl.keystore.key", Kind::Password),
    ("ssl.keystore.location", Kind::String),
    ("ssl.keystore.password", Kind::Password),
    ("ssl.keystore.type", Kind::String),
    ("ssl.truststore.certificates", Kind::Password),
    ("ssl.truststore.location", Kind::String),
    ("ssl.truststore.password", Kind::Password),
    ("ssl.truststore.type", Kind::String),
];

fn kind_without_listener(name: &str) -> Option<Kind> {
    SETTINGS.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind)
}

/// The name behind a listener's.
fn without_listener(name: &str) -> Option<&str> {
    let (listener, base) = name.strip_prefix(LISTENER)?.split_once('.')?;
    (!listener.is_empty()).then_some(base)
}

/// True for the name of such a setting that names no listener.
#[must_use]
pub fn names_no_listener(name: &str) -> bool {
    kind_without_listener(name).is_some()
}

/// True for a setting of one listener, known or not: it is one node's.
#[must_use]
pub fn is_of_a_listener(name: &str) -> bool {
    without_listener(name).is_some()
}

/// The type of such a setting of a listener.
#[must_use]
pub fn kind_of(name: &str) -> Option<Kind> {
    kind_without_listener(without_listener(name)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_known_by_its_listener_and_its_name() {
        assert_eq!(kind_of("listener.name.external.ssl.keystore.location"), Some(Kind::String));
        assert_eq!(kind_of("listener.name.external.ssl.keystore.password"), Some(Kind::Password));
        for strange in
            ["ssl.keystore.location", "listener.name.ssl", "listener.name..ssl.keystore.type", "x.ssl.keystore.type"]
        {
            assert_eq!(kind_of(strange), None, "{strange}");
        }
        assert!(names_no_listener("ssl.keystore.location") && !names_no_listener("ssl.protocol"));
        assert!(is_of_a_listener("listener.name.external.max.connections"));
        assert!(!is_of_a_listener("listener.name..ssl") && !is_of_a_listener("listener.name.external"));
    }
}
