//! What is acknowledged under `min.insync.replicas` is synced by as many replicas.

use ottla_storage::ids::{RaftIndex, ReplicaId};

use super::Violation;

/// `synced`: the last entry that each replica has synced, `None` of one that is down and may have had more. The batch lies behind
/// `before`, which its leader had applied when it was sent.
pub(crate) fn acknowledged(
    index: i32,
    required: usize,
    before: RaftIndex,
    synced: Vec<(ReplicaId, Option<RaftIndex>)>,
) -> Result<(), Violation> {
    let may_have = synced.iter().filter(|(_, last)| last.is_none_or(|last| last > before)).count();
    if may_have >= required {
        return Ok(());
    }
    let what = format!("{required} are required, it lies behind entry {}, synced are {synced:?}", before.0);
    Err(Violation::new("min.insync.replicas have what is acknowledged", index, what))
}
