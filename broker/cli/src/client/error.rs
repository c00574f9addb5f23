//! The errors of the command line's client; messages name Kafka's error.
//!
//! May not know: exit codes.

use std::io;

use ottla_protocol::error::ErrorCode;
use thiserror::Error;

use super::address::Address;

/// Why a request to a cluster failed.
#[derive(Debug, Error)]
pub enum ClientError {
    /// No broker responds at any of the addresses.
    #[error("no broker answers: {}", list(.tried))]
    NoBrokerAvailable {
        /// The addresses tried, each with its error.
        tried: Vec<(Address, io::Error)>,
    },
    /// A connection broke, or a response did not come in time.
    #[error("{address}: {source}")]
    Connection {
        /// The broker.
        address: Address,
        /// What happened.
        source: io::Error,
    },
    /// The server is no Kafka broker, or not on this port.
    #[error("{address} does not speak Kafka's protocol here: {why}")]
    NotKafka {
        /// The server's address.
        address: Address,
        /// What is wrong with the response.
        why: String,
    },
    /// The broker is too old or too new for a request.
    #[error("{address} serves {api} {served}, and {needed} is needed (UNSUPPORTED_VERSION)")]
    Unsupported {
        /// The broker.
        address: Address,
        /// The request's name.
        api: String,
        /// The versions that it serves.
        served: String,
        /// The versions that this client speaks.
        needed: String,
    },
    /// A request that cannot be encoded: its version has no field for a value, or it is too large.
    #[error("the request cannot be written: {0}")]
    Unencodable(String),
    /// The broker responded with an error.
    #[error("{what}: {}", refusal(*.code, .message.as_deref()))]
    Refused {
        /// The topic, group or other subject of the request.
        what: String,
        /// Kafka's error code.
        code: i16,
        /// The broker's message.
        message: Option<String>,
    },
    /// Records that cannot be decoded.
    #[error("{what}: {why}")]
    BadRecords {
        /// Topic, partition and offset.
        what: String,
        /// What is wrong.
        why: String,
    },
}

impl ClientError {
    /// `Ok` for the code of success, else [`Self::Refused`].
    pub(crate) fn check(code: i16, message: Option<&str>, what: impl FnOnce() -> String) -> Result<(), Self> {
        if code == ErrorCode::None.code() {
            return Ok(());
        }
        Err(Self::Refused { what: what(), code, message: message.map(str::to_owned) })
    }

    /// Kafka's error code, if the broker sent one.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused { code, .. } => ErrorCode::from_code(*code),
            _ => None,
        }
    }

    /// True for errors that may be gone after the leader is looked up again.
    pub(crate) fn is_retriable(&self) -> bool {
        match self {
            Self::Connection { .. } | Self::NoBrokerAvailable { .. } => true,
            Self::Refused { code, .. } => is_retriable(*code),
            _ => false,
        }
    }
}

/// True for codes worth a retry. An unknown topic is not retried: a mistyped name stays unknown.
pub(crate) fn is_retriable(code: i16) -> bool {
    let unknown = [ErrorCode::UnknownTopicOrPartition, ErrorCode::UnknownTopicId, ErrorCode::RequestTimedOut];
    ErrorCode::from_code(code).is_some_and(|code| code.is_retriable() && !unknown.contains(&code))
}

fn list(tried: &[(Address, io::Error)]) -> String {
    tried.iter().map(|(address, error)| format!("{address}: {error}")).collect::<Vec<_>>().join("; ")
}

/// The message (the broker's own if it sent one) and Kafka's name of the error.
fn refusal(code: i16, message: Option<&str>) -> String {
    let message = message.map(str::trim).filter(|message| !message.is_empty());
    match ErrorCode::from_code(code) {
        Some(error) => format!("{} ({})", message.unwrap_or(error.message()), error.name()),
        None => format!("{} (error {code}, which this release does not know)", message.unwrap_or("refused")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_kafkas_error_and_prefers_the_brokers_words() {
        let refused =
            |code, message| ClientError::check(code, message, || "topic t".to_owned()).unwrap_err().to_string();
        assert_eq!(
            refused(3, None),
            "topic t: the topic or partition does not exist here (UNKNOWN_TOPIC_OR_PARTITION)"
        );
        assert_eq!(refused(36, Some("it exists.")), "topic t: it exists. (TOPIC_ALREADY_EXISTS)");
        assert_eq!(refused(999, Some(" ")), "topic t: refused (error 999, which this release does not know)");
        assert!(ClientError::check(0, None, String::new).is_ok());
    }

    #[test]
    fn every_address_that_was_tried_is_named() {
        let address = |port| Address { host: "h".to_owned(), port };
        let error = || io::Error::new(io::ErrorKind::ConnectionRefused, "refused");
        let tried = vec![(address(1), error()), (address(2), error())];
        assert_eq!(
            ClientError::NoBrokerAvailable { tried }.to_string(),
            "no broker answers: h:1: refused; h:2: refused"
        );
    }

    #[test]
    fn a_lost_leader_is_retriable_and_an_unknown_topic_does_not() {
        assert!(
            is_retriable(ErrorCode::NotLeaderOrFollower.code()) && is_retriable(ErrorCode::LeaderNotAvailable.code())
        );
        assert!(
            !is_retriable(ErrorCode::UnknownTopicOrPartition.code())
                && !is_retriable(ErrorCode::MessageTooLarge.code())
        );
        assert!(!is_retriable(0) && !is_retriable(999));
    }
}
