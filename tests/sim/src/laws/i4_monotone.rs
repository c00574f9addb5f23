//! I4: high watermark, log start and leader epoch never fall, for any observer that stays with the node.

use std::collections::BTreeMap;

use super::Violation;

const LAW: &str = "I4 watermarks never fall";

/// What one incarnation of a node showed of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Shown {
    pub(crate) high_watermark: i64,
    pub(crate) log_start: i64,
    pub(crate) epoch: i32,
}

/// By incarnation, replica and partition.
#[derive(Debug, Default)]
pub(crate) struct Watch(BTreeMap<(u64, u64, i32), Shown>);

impl Watch {
    pub(crate) fn see(
        &mut self,
        (incarnation, replica): (u64, u64),
        index: i32,
        now: Shown,
        deleted: i64,
    ) -> Result<(), Violation> {
        let before = self.0.insert((incarnation, replica, index), now).unwrap_or_default();
        let fell = now.high_watermark < before.high_watermark
            || now.log_start < before.log_start
            || now.epoch < before.epoch
            || now.log_start > now.high_watermark;
        if now.log_start > deleted {
            let what = format!("life {incarnation} begins at {}, nobody asked for more than {deleted}", now.log_start);
            return Err(Violation::new("nothing is deleted that nobody asked for", index, what));
        }
        if fell {
            return Err(Violation::new(LAW, index, format!("life {incarnation} showed {before:?}, then {now:?}")));
        }
        Ok(())
    }
}
