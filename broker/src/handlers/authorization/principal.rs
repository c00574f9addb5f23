//! The principal of a connection, in Kafka's form `User:name`. May not know: what it may do.

use std::fmt;
use std::sync::Arc;

/// The user on whose behalf a connection sends its requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The user's name, `ANONYMOUS` without authentication.
    pub name: Arc<str>,
}

const ANONYMOUS: &str = "ANONYMOUS";

impl Principal {
    /// The principal of a connection without authentication.
    #[must_use]
    pub fn anonymous() -> Self {
        Self { name: ANONYMOUS.into() }
    }

    pub(super) fn is_anonymous(&self) -> bool {
        *self.name == *ANONYMOUS
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "User:{}", self.name)
    }
}
