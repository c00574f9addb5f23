//! One bit for each offset of a window: the record has a successor of the same key.
//!
//! May not know: keys.

use ottla_protocol::ids::Offset;

const BITS: u64 = u64::BITS as u64;

/// The marked offsets of a window.
#[derive(Debug, Clone)]
pub struct Marks {
    from: Offset,
    words: Vec<u64>,
}

impl Marks {
    /// Offsets of one window at the most: 16 MiB of marks.
    pub const OFFSETS_MAX: u64 = 1 << 27;

    /// No marks yet, for `count` offsets from `from` on.
    ///
    /// # Panics
    /// If there are more than [`Self::OFFSETS_MAX`].
    #[must_use]
    pub fn new(from: Offset, count: u64) -> Self {
        assert!(count <= Self::OFFSETS_MAX, "a window of {count} offsets from {from} on");
        let words = usize::try_from(count.div_ceil(BITS)).unwrap_or(0);
        Self { from, words: vec![0; words] }
    }

    fn place(&self, offset: Offset) -> Option<(usize, u64)> {
        let number = u64::try_from(offset.0.checked_sub(self.from.0)?).ok()?;
        let word = usize::try_from(number / BITS).ok().filter(|word| *word < self.words.len())?;
        Some((word, 1 << (number % BITS)))
    }

    /// Marks an offset; nothing outside of the window.
    pub fn set(&mut self, offset: Offset) {
        if let Some((word, bit)) = self.place(offset) {
            self.words[word] |= bit;
        }
    }

    /// True if the offset is marked.
    #[must_use]
    pub fn is_set(&self, offset: Offset) -> bool {
        self.place(offset).is_some_and(|(word, bit)| self.words[word] & bit != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_marked_is_set() {
        let mut marks = Marks::new(Offset(1_000), 130);
        let set = [1_000, 1_063, 1_064, 1_129];
        set.iter().for_each(|offset| marks.set(Offset(*offset)));
        [999, 1_200, -1, i64::MAX, i64::MIN].iter().for_each(|offset| marks.set(Offset(*offset)));
        let found: Vec<i64> = (900..1_300).filter(|offset| marks.is_set(Offset(*offset))).collect();
        assert_eq!(found, set);
        assert!(!marks.is_set(Offset(i64::MIN)));
    }
}
