//! Removes from a shard's state what nothing needs any more: idle producers (`producer.id.expiration.ms`) and
//! tombstones of dropped partitions (design section 4).
//!
//! Only proposes: apply decides. Nothing expires by a clock that has jumped. May not know: when a round is due.

use super::adoption;
use crate::config::Config;
use crate::metadata::MetadataImage;
use crate::replicated::command::Command;
use crate::replicated::error::PartitionError;
use crate::shard::Shard;

pub(super) async fn expire_producers(shard: &Shard, config: &Config) -> Result<(), PartitionError> {
    let Some(now_ms) = shard.clock_for_expiry() else { return Ok(()) };
    let expiration_ms = i64::try_from(config.transaction.producer_id_expiration_ms).unwrap_or(i64::MAX);
    let cutoff_ms = now_ms.saturating_sub(expiration_ms);
    let any = {
        let state = shard.state().lock();
        state.partitions.values().any(|partition| !partition.producers.expired(cutoff_ms).is_empty())
    };
    if any {
        shard.command(Command::ExpireProducers { cutoff_ms }).await?;
    }
    Ok(())
}

pub(super) async fn forget_dropped(shard: &Shard, image: &MetadataImage) -> Result<(), PartitionError> {
    if shard.leading().is_none() {
        return Ok(());
    }
    if let Some(floor) = adoption::floor(shard, image) {
        shard.command(Command::ForgetDropped { floor }).await?;
    }
    Ok(())
}
