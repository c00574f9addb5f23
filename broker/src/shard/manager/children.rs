//! The children of splits on this node: opened when apply has made them, also after a crash between apply and checkpoint.
//!
//! ```text
//!  apply of the split    in `seeded`: the reconciler neither creates the child, nor removes it or its parent
//!  open_children         durable, opened, added to the shards
//!  a crash before        the parent applies the split again; a creation that was durable waits in `unseeded`
//! ```
//! A replica of the parent that has come past the split by a snapshot has made no child: it is created empty, once the
//! metadata says that the split is done, and waits for a snapshot of its own. May not know: why a shard is split.

use std::sync::Arc;

use ottla_env::mutants::{self, Bug};
use ottla_raft::{Creation, GroupHandle, RaftError, Resize, SeededChild};
use ottla_storage::data_dir::DataDir;
use ottla_storage::ids::ReplicaId;

use super::unseeded::{Unseeded, WithoutState};
use super::{OpenError, Shards};
use crate::metadata::{ShardCreation, SplitRecord};

impl Shards {
    /// From now on these children wait for their parents, which apply the splits again as soon as they are opened.
    pub(super) fn await_seeds(&self, unseeded: &Unseeded) {
        if mutants::is_on(Bug::ChildSeedNotAwaited) {
            return;
        }
        let creations = unseeded.0.iter().map(|(replica, child)| (*replica, child.creation.clone()));
        self.0.unseeded.lock().extend(creations);
    }

    /// Where a parent does not run, nothing gives its children a state.
    pub(super) fn give_up_seeds(&self, unseeded: Unseeded) {
        for (replica, WithoutState { parent, split, creation }) in unseeded.0 {
            if parent.is_some_and(|parent| self.0.host.group(parent).is_some()) {
                continue;
            }
            self.0.unseeded.lock().remove(&replica);
            let what = format!("it was split off at entry {split}, and its parent, which has its state, does not run");
            let shard = Creation::decode(creation).and_then(|creation| ShardCreation::decode(&creation.shard).ok());
            let error = RaftError::Damaged { replica, what };
            self.leave_closed(replica, shard.map(|shard| shard.shard), &error.into());
        }
    }

    /// Makes durable what apply of a replica here has split off or taken over, one after the other, until it stops: what is split
    /// off becomes a group.
    pub(super) async fn finish_resizes(self, group: GroupHandle, directory: Arc<DataDir>) {
        while let Some(resize) = group.next_resize().await {
            let finished = match resize {
                Resize::Split(child) => {
                    let (replica, parent) = (child.replica(), child.parent());
                    let opened = self.open_child(&directory, *child).await;
                    opened
                        .map(|()| tracing::info!(replica = replica.0, "opened: replica {parent} has split it off"))
                        .map_err(|error| (replica, error))
                }
                Resize::Merge(merged) => {
                    let survivor = merged.survivor();
                    self.finish_merge(&directory, merged).await.map_err(|error| (survivor, error))
                }
            };
            if let Err((replica, error)) = finished {
                self.leave_closed(replica, None, &error);
                return;
            }
        }
    }

    async fn open_child(&self, directory: &Arc<DataDir>, child: SeededChild) -> Result<(), OpenError> {
        let replica = child.replica();
        let unreadable = |what: &str| OpenError::Unreadable { replica, what: what.to_owned() };
        let seeded = self.0.siblings.children.get(replica).ok_or_else(|| unreadable("nothing is known of it"))?;
        let creation = ShardCreation::decode(&seeded.creation).map_err(|error| unreadable(&error.to_string()))?;
        let created = self.0.unseeded.lock().remove(&replica);
        let parent = self.0.shards.find(seeded.parent);
        let group = self.0.host.open_child(directory.clone(), child, created).await?;
        self.add(creation, replica, directory, group, seeded.view, parent);
        self.0.siblings.children.remove(replica);
        Ok(())
    }

    /// `Some` if a replica of the child of this split is not to be created here: true if apply of the split makes it, if
    /// anybody; false if that is not known yet. `None`: the parent here has passed the split without it, or is no member any
    /// more, and the child's leader sends a snapshot.
    pub(super) fn left_to_split(&self, split: &SplitRecord, replica: ReplicaId) -> Option<bool> {
        let Some(done) = split.done else { return Some(true) };
        let first = split.replicas.iter().find(|of| of.child == replica)?;
        if self.0.siblings.children.contains(replica) || self.0.unseeded.lock().contains_key(&replica) {
            return Some(true);
        }
        let has_passed = match self.0.host.group(first.parent) {
            Some(parent) => parent.applied().map(|id| id.index) >= Some(done),
            // It may come yet: it is itself the child of a split, or its loss is accepted later.
            None => {
                let image = self.0.metadata.image();
                let parent = image.shard(split.parent);
                !parent.is_some_and(|parent| parent.members().any(|member| member.id == first.parent))
            }
        };
        (!has_passed && !mutants::is_on(Bug::ChildCreatedEarly)).then_some(false)
    }
}
