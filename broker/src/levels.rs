//! Feature levels (KIP-584): which formats of its own a cluster may use, so that a release never writes what a node of
//! the release before could not read while nodes are upgraded one by one.
//!
//! - There is one feature that changes, `ottla.version`. Each build understands a range of its levels, and a node registers its
//!   build's range; the metadata group holds the level in force, which is one that every registered node understands.
//! - A release that brings a new format (of a command, a record, a message) raises [`Levels::OWN`]`.newest` and writes
//!   that format only where `MetadataImage::level` has reached it.
//! - `metadata.version` is listed to clients at one level that never changes: tools show by it which release of Kafka a
//!   cluster is like, and some fail where it is missing. `transaction.version` follows from our own level. Kafka's other features
//!   (group.version, share.version, ...) stand for protocols that are not served here: a client that finds none uses none
//!   of them.
//! - Everything that was written before there were levels has level 1, and a range of level 1 alone is not written at
//!   all: so builds before levels read it.
//!
//! May not know: how a level is raised (`features`), what depends on one.

use std::fmt;

/// The one feature whose level changes.
pub const FEATURE: &str = "ottla.version";
/// Kafka's feature for the release that a cluster is like.
pub const KAFKA_FEATURE: &str = "metadata.version";
/// Its one level: 4.3-IV0.
pub const KAFKA_LEVEL: FeatureLevel = FeatureLevel(30);

/// Kafka's feature for transactions (KIP-1022).
pub const TRANSACTION_FEATURE: &str = "transaction.version";
/// Its level where transactions are served (KIP-890).
pub const TRANSACTION_LEVEL: FeatureLevel = FeatureLevel(2);
/// From this level on transactions may be written: markers, batches that open a transaction, transactional ids. `transaction.version`
/// is finalized with it.
pub(crate) const TRANSACTIONS: FeatureLevel = FeatureLevel(7);

/// From this level on partitions may be compacted: the command, and messages that name a pass.
pub(crate) const COMPACTION: FeatureLevel = FeatureLevel(8);

/// From this level on a replica may move to another data directory of its node: it is created beside the one whose place it takes.
pub(crate) const DIRECTORY_MOVES: FeatureLevel = FeatureLevel(9);

/// The level of `transaction.version` in a cluster of this level; 0: transactions are not served.
#[must_use]
pub fn transaction_level(level: FeatureLevel) -> FeatureLevel {
    if level >= TRANSACTIONS { TRANSACTION_LEVEL } else { FeatureLevel(0) }
}

/// A level of the feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FeatureLevel(pub i16);

impl FeatureLevel {
    /// The level of everything that was written without a level.
    pub const FIRST: Self = Self(1);
}

impl Default for FeatureLevel {
    fn default() -> Self {
        Self::FIRST
    }
}

impl fmt::Display for FeatureLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The levels that a node understands: those of its build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Levels {
    /// The lowest.
    pub oldest: FeatureLevel,
    /// The highest.
    pub newest: FeatureLevel,
}

impl Levels {
    /// The range of a build that registers none.
    pub const FIRST: Self = Self { oldest: FeatureLevel::FIRST, newest: FeatureLevel::FIRST };
    /// The range of this build.
    pub const OWN: Self = Self { oldest: FeatureLevel::FIRST, newest: DIRECTORY_MOVES };

    /// True if it understands `level`.
    #[must_use]
    pub fn contains(&self, level: FeatureLevel) -> bool {
        (self.oldest..=self.newest).contains(&level)
    }

    /// The levels that both understand, if there are any.
    pub(crate) fn common(self, other: Self) -> Option<Self> {
        let both = Self { oldest: self.oldest.max(other.oldest), newest: self.newest.min(other.newest) };
        (both.oldest <= both.newest).then_some(both)
    }
}

impl fmt::Display for Levels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.oldest, self.newest)
    }
}
