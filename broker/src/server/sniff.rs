//! Recognises TLS and HTTP on a Kafka listener by their first bytes, so that the log line says what to change.
//!
//! May not know: sockets.

/// A protocol recognised by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForeignProtocol {
    /// A TLS client hello on a plaintext listener.
    Tls,
    /// An HTTP request.
    Http,
}

impl ForeignProtocol {
    /// Recognises a protocol by the first bytes of a connection. None of these can be the size of a Kafka request: a
    /// TLS record begins with 0x16 0x03 (369 MB), "GET " is 1.2 GB.
    #[must_use]
    pub fn recognise(first: &[u8]) -> Option<Self> {
        const METHODS: [&[u8]; 7] = [b"GET ", b"POST", b"PUT ", b"HEAD", b"OPTI", b"DELE", b"PRI "];
        match first {
            [0x16, 0x03, 0..=4, ..] => Some(Self::Tls),
            _ if METHODS.iter().any(|method| first.starts_with(method)) => Some(Self::Http),
            _ => None,
        }
    }

    /// The advice of the log line: what the operator or the client's owner should change.
    #[must_use]
    pub fn advice(self) -> &'static str {
        match self {
            Self::Tls => {
                "a TLS client hello came on a plaintext listener; set security.protocol=PLAINTEXT in the client, \
                 or use the port of a TLS listener"
            }
            Self::Http => {
                "an HTTP request came on a Kafka listener; the admin HTTP port is set by ottla.admin.listener \
                 (default 9644)"
            }
        }
    }
}

/// A string from a client, escaped and cut for a log line.
#[must_use]
pub fn escape_for_log(text: &str, chars_max: usize) -> String {
    let mut escaped: String = text.chars().take(chars_max).flat_map(char::escape_debug).collect();
    if text.chars().nth(chars_max).is_some() {
        escaped.push_str("...");
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_protocols_are_told_from_kafka_requests() {
        assert_eq!(ForeignProtocol::recognise(&[0x16, 0x03, 0x01, 0x02, 0x00]), Some(ForeignProtocol::Tls));
        assert_eq!(ForeignProtocol::recognise(b"GET / HTTP/1.1"), Some(ForeignProtocol::Http));
        assert_eq!(ForeignProtocol::recognise(&[0, 0, 0, 26, 0, 18, 0, 3]), None);
        assert_eq!(ForeignProtocol::recognise(&[0x16]), None);
    }

    #[test]
    fn a_client_id_cannot_forge_log_lines() {
        assert_eq!(escape_for_log("a\nERROR b\u{1b}[2J", 80), "a\\nERROR b\\u{1b}[2J");
        assert_eq!(escape_for_log("abcdef", 3), "abc...");
    }
}
