//! Broker addresses as given on the command line: `host`, `host:port`, `[::1]:port`, several separated by commas.
//!
//! May not know: connections.

use std::fmt;

/// Kafka's port, where none is given.
const PORT: u16 = 9092;

/// The address of a broker. Host names are resolved at each connection.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// Name or number of the host; without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl Address {
    /// Reads one address.
    ///
    /// # Errors
    /// A message, when it is not an address.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not host:port");
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, rest) = rest.split_once(']').ok_or_else(wrong)?;
                (host, if rest.is_empty() { None } else { Some(rest.strip_prefix(':').ok_or_else(wrong)?) })
            }
            // More than one colon without brackets: an IPv6 address that stands alone.
            None if text.matches(':').count() > 1 => (text, None),
            None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
        };
        let port = port.map_or(Ok(PORT), |port| port.parse().map_err(|_| wrong()))?;
        let is_host = !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || "/@[]".contains(c));
        if is_host && port > 0 { Ok(Self { host: host.to_owned(), port }) } else { Err(wrong()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_ports_and_numbers_are_read() {
        let forms = [
            ("kafka", "kafka:9092"),
            ("kafka:9093", "kafka:9093"),
            ("10.0.0.1:1", "10.0.0.1:1"),
            ("[::1]:9094", "[::1]:9094"),
            ("[::1]", "[::1]:9092"),
            ("::1", "[::1]:9092"),
        ];
        for (text, shown) in forms {
            assert_eq!(Address::parse(text).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_its_own_words() {
        for text in ["", ":9092", "kafka:", "kafka:0", "kafka:70000", "http://kafka:9092", "[::1", "[::1]9", "a b:1"] {
            assert_eq!(Address::parse(text), Err(format!("{text:?} is not host:port")));
        }
    }
}
