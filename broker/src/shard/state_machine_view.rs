//! The parts of a state machine that its shard reads.
//!
//! May not know: how the state changes.

use std::sync::Arc;

use parking_lot::Mutex;

use super::cut_points::CutPoints;
use super::read_view::ReadView;
use crate::replicated::shard_state::ShardState;

/// Shared with the state machine; cheap to clone.
#[derive(Clone)]
pub struct StateMachineView {
    pub(super) state: Arc<Mutex<ShardState>>,
    pub(super) read_view: Arc<ReadView>,
    pub(super) cut_points: Arc<Mutex<CutPoints>>,
}
