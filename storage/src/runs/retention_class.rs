//! Retention classes: batches that expire at about the same time share runs, so that whole runs die together.
//!
//! May not know: topics and their settings.

use std::time::Duration;

/// About how long the batches of a partition are retained: one class shares runs, so that whole runs die together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RetentionClass(pub u8);

impl RetentionClass {
    /// Nothing is known about it.
    pub const UNKNOWN: Self = Self(0);
    /// Batches stay until they are deleted explicitly.
    pub const NEVER: Self = Self(u8::MAX);

    /// The class of batches that are retained this long: each class is four times as long as the one before it.
    #[must_use]
    pub fn lasting(life: Duration) -> Self {
        let seconds = life.as_secs().max(1);
        Self(1 + u8::try_from(seconds.ilog2() / 2).unwrap_or(u8::MAX - 2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_spans_a_factor_of_four() {
        let class = |seconds| RetentionClass::lasting(Duration::from_secs(seconds)).0;
        assert_eq!((class(0), class(3), class(4), class(15), class(16)), (1, 1, 2, 2, 3));
        assert_eq!((class(3600), class(86_400), class(7 * 86_400)), (6, 9, 10));
        assert!(class(u64::MAX) < RetentionClass::NEVER.0);
    }
}
