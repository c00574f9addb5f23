//! The split of a group on one node: what apply has split off a state becomes a group of its own, the child (design
//! section 8).
//!
//! ```text
//!  apply of the entry      the child owns its bytes; the cut of the parent and the child's first state are kept as a pair
//!  RaftHost::open_child    creation durable -> the pair in one checkpoint transaction -> the child runs
//! ```
//! Until then the child neither votes, nor acknowledges, nor appends. May not know: which partitions there are, and why
//! they are split off.

use std::sync::Arc;

use bytes::Bytes;
use ottla_storage::data_dir::SplitCut;
use ottla_storage::log::GroupCreation;

use crate::applier::InitialState;
use crate::directory::{Directory, EntryLog};
use crate::error::RaftError;
use crate::handle::GroupHandle;
use crate::host::RaftHost;
use crate::seeded_child::{SeededChild, first_membership};

impl RaftHost {
    /// Makes a child durable, with its parent's state past the split, and starts it. It campaigns at once where its parent
    /// leads. `created`: the creation that a crash has left here without a state.
    ///
    /// # Errors
    /// When the disk fails, or the child was created of another state than this one. The parent has stopped then.
    pub async fn open_child(
        &self,
        directory: Arc<dyn Directory>,
        child: SeededChild,
        created: Option<Bytes>,
    ) -> Result<GroupHandle, RaftError> {
        let SeededChild { creation, cut, members, state_machine } = child;
        let (replica, at, parent) = (creation.replica, cut.child.applied, self.group(cut.parent.replica));
        let log = match make_durable(&*directory, creation, cut, created).await {
            Ok(log) => log,
            Err(what) => {
                if let Some(GroupHandle(parent)) = parent {
                    parent.fail(&format!("replica {replica}, which was split off at entry {at}: {what}"));
                }
                return Err(RaftError::Storage { replica, what });
            }
        };
        let leads = parent.as_ref().is_some_and(|parent| parent.role().borrow().ready);
        if let Some(GroupHandle(parent)) = &parent {
            parent.applier.end_resize();
        }
        let membership = first_membership(&members, at);
        let initial = InitialState { applied: Some(at), committed: Some(at), membership, damaged: None };
        let handle = self.start(directory, log, initial, members, state_machine).await?;
        if leads {
            handle.0.clone().campaign_soon();
        }
        Ok(handle)
    }
}

/// The creation first, then the pair; the text says what is wrong.
async fn make_durable(
    directory: &dyn Directory,
    creation: GroupCreation,
    cut: SplitCut,
    created: Option<Bytes>,
) -> Result<Arc<dyn EntryLog>, String> {
    let replica = creation.replica;
    let log = match created {
        Some(created) if created == creation.payload => directory.replica_log(replica),
        Some(_) => return Err("it was created of another state".to_owned()),
        None => {
            let log = directory.create_child(cut.parent.replica, cut.child.applied.index, creation).await;
            Some(log.map_err(|error| error.to_string())?)
        }
    };
    directory.commit_split(cut).await.map_err(|error| error.to_string())?;
    log.ok_or_else(|| "it has no log".to_owned())
}
