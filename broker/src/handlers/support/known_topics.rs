//! The topics that a request commits offsets of, which it names or, in its later versions, gives the ids of.
//!
//! May not know: partitions, what is committed.

use std::sync::Arc;

use ottla_protocol::error::ErrorCode;
use uuid::Uuid;

use crate::handlers::context::Context;
use crate::metadata::Topic;

/// For each name and id in order the topic, after one read index if the local image lacks some of them.
///
/// # Errors
/// UNKNOWN_TOPIC_OR_PARTITION, or UNKNOWN_TOPIC_ID where it is looked for `by_id`.
pub(crate) async fn known_topics(
    ctx: &Context,
    by_id: bool,
    asked: &[(&str, Uuid)],
) -> Vec<Result<Arc<Topic>, ErrorCode>> {
    let unknown = if by_id { ErrorCode::UnknownTopicId } else { ErrorCode::UnknownTopicOrPartition };
    let look = || {
        let image = ctx.metadata.image();
        let one = |(name, id): &(&str, Uuid)| if by_id { image.topic_by_id(id) } else { image.topic(name) };
        asked.iter().map(|asked| one(asked).cloned().ok_or(unknown)).collect::<Vec<_>>()
    };
    let known = look();
    if known.iter().all(Result::is_ok) {
        return known;
    }
    // Errors of the read index are ignored: the client then asks again.
    let _ = ctx.metadata.read_index().await;
    look()
}
