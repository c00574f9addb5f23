//! A producer with an older epoch than one that was acknowledged is fenced.

use super::Violation;

pub(crate) fn accepted(index: i32, epoch: i16, newest: i16) -> Violation {
    let what = format!("a batch of producer epoch {epoch} was acknowledged after one of epoch {newest}");
    Violation::new("old producer epochs are fenced", index, what)
}
