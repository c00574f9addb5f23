//! The query of a URI: names and values. May not know: what they mean.

use axum::http::Uri;

/// What follows the question mark, decoded.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn of(uri: &Uri) -> Self {
        let pairs = uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        let pair = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(name), decoded(value))
        };
        Self(pairs.map(pair).collect())
    }

    /// The last value of a name; one that is empty counts as none.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().rev().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }
}

/// `%41` is A and `+` a space; what is neither stays, and bytes that are no UTF-8 are replaced.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = after.split_at_checked(2).filter(|(hex, _)| *first == b'%' && hex.iter().all(u8::is_ascii_hexdigit));
        let byte = hex.and_then(|(hex, _)| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match (byte, hex) {
            (Some(byte), Some((_, after))) => {
                bytes.push(byte);
                rest = after;
            }
            _ => {
                bytes.push(if *first == b'+' { b' ' } else { *first });
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_are_decoded() {
        let query = |text: &'static str| Query::of(&Uri::from_static(text));
        let found = query("/metrics/groups?group=%5Ea+b%2b.*&scope=cluster&x&topic=&scope=node");
        assert_eq!(found.get("group"), Some("^a b+.*"));
        assert_eq!((found.get("scope"), found.get("x"), found.get("topic")), (Some("node"), None, None));
        assert_eq!(query("/metrics"), Query::default());
        assert_eq!(query("/?a=%").get("a"), Some("%"));
        assert_eq!(query("/?a=%4").get("a"), Some("%4"));
        assert_eq!(query("/?a=%zz").get("a"), Some("%zz"));
        assert_eq!(query("/?a=%ff").get("a"), Some("\u{fffd}"));
    }
}
