//! What is acknowledged under `min.insync.replicas` is synced by as many replicas.

use super::Violation;

/// `synced` replicas have more than was committed before the batch was sent; `down`: so many may have, and cannot be asked.
pub(crate) fn acknowledged(index: i32, required: usize, synced: usize, down: usize) -> Result<(), Violation> {
    if synced + down >= required {
        return Ok(());
    }
    let what = format!("acknowledged when {synced} replicas had synced it, {down} are down, {required} are required");
    Err(Violation::new("min.insync.replicas have what is acknowledged", index, what))
}
