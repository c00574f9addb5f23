//! Consumer lag of all groups of the cluster, from any node, and their status.
//!
//!     stores of __consumer_offsets --(sampler, every second)--> cache <-- ends of partitions, from their leaders
//!                                                                |
//!     any node --(request)--> the groups' coordinator ---------> report
//!
//! - [`Lags`] is the handle: the groups that this node coordinates, or those of the cluster, queried from their
//!   coordinators.
//! - `sampler` keeps the cache of every partition of `__consumer_offsets` that has a replica here: a follower samples
//!   too, only more rarely, so that a new coordinator has values, and the window of commits behind the status, from its
//!   first moment on.
//! - `status` judges a group as Burrow does; `report` is what pages show, and its bytes between nodes.
//!
//! A group is measured against both ends. Which of the two is its lag follows from the records that it reads: those of
//! OffsetFetch with `require_stable`, which clients send that read committed records only, against the last stable
//! offset, all others against the high watermark. The coordinator keeps that in memory alone: after an election it
//! learns it again by the next OffsetFetch, and replicas that answer in its place assume the high watermark. Only a
//! fetch of named topics counts, and where the group has members one by a client that has the id of one: tools that
//! look at offsets do not ask for stable ones.
//!
//! May not know: HTTP, text formats.

mod cache;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
pub(crate) mod report;
mod sampler;
pub(crate) mod status;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::join_all;
use ottla_env::rt;
use ottla_protocol::ids::NodeId;
use parking_lot::{Mutex, RwLock};

use self::cache::{CachedGroup, CachedPartition, CachedStore, Measured};
use self::report::{
    Filter, GroupLag, LagByEnd, MeasuredLag, PartitionLag, Report, Request, TopicLag, Version, decode_answer,
    encode_answer,
};
use self::status::WINDOW_COMMITS;
use crate::coordinator::group::{Groups, OFFSETS_TOPIC};
use crate::metadata::MetadataImage;
use crate::partition::{Isolation, Partitions};
use crate::shard::PeerService;

/// An answer to another node ends after the partition with which it exceeds this; the rest needs a further request.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// The approximate size of a group's partition in an answer.
const PARTITION_BYTES: usize = 48;

/// The lag of consumer groups; cheap to clone.
#[derive(Clone)]
pub struct Lags(Arc<Inner>);

struct Inner {
    groups: Groups,
    partitions: Partitions,
    /// By partition of `__consumer_offsets`. Locks are held for one partition or one group at a time, never across an
    /// await.
    stores: RwLock<BTreeMap<i32, Arc<RwLock<CachedStore>>>>,
}

impl std::fmt::Debug for Lags {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Lags")
    }
}

impl Lags {
    /// Lags of the groups and partitions of this node; nothing is sampled before [`Self::start`].
    #[must_use]
    pub fn new(groups: Groups, partitions: Partitions) -> Self {
        Self(Arc::new(Inner { groups, partitions, stores: RwLock::default() }))
    }

    /// Samples from now on, and answers other nodes, as long as a handle is kept.
    pub fn start(&self) {
        rt::spawn(sampler::run(Arc::downgrade(&self.0)));
        let weak = Arc::downgrade(&self.0);
        let service: PeerService = Arc::new(move |request| {
            let weak = weak.clone();
            async move { rt::spawn_blocking(move || answer(&weak, &request)).await.ok().flatten() }.boxed()
        });
        self.0.partitions.serve_groups(service);
    }

    /// Records which records a group reads that this node coordinates, from an OffsetFetch of named topics by a client
    /// with this id.
    pub(crate) fn fetched(&self, group: &str, client_id: &str, isolation: Isolation) {
        let partition = self.0.groups.coordinator_partition(group);
        let cached = self.0.stores.write().entry(partition).or_default().clone();
        let is_known = cached.read().groups.get(group).is_some_and(|group| group.lock().isolation == isolation);
        if !is_known && self.0.may_be_of_a_member(partition, group, client_id) {
            cached.write().reads(group, isolation);
        }
    }

    /// The groups that this node coordinates, or with `any_replica` all of which it has a replica; then what it has not
    /// measured yet is missing.
    pub(crate) async fn here(&self, filter: &Filter, any_replica: bool) -> Report {
        let request = Request { filter: filter.clone(), any_replica, partitions: self.0.kept(filter) };
        let mut missing = BTreeSet::new();
        if any_replica {
            // A node that has a replica is the first to be asked.
            let kept = request.partitions.iter().copied().collect();
            let own = self.0.targets(&kept, true, &BTreeSet::new()).remove(&self.0.partitions.node());
            missing.extend(own.unwrap_or_default());
        }
        let inner = self.0.clone();
        let answered = rt::spawn_blocking(move || inner.answer(&request, usize::MAX)).await.unwrap_or_default();
        for (partition, _) in &answered {
            missing.remove(partition);
        }
        let groups = sorted(answered.into_iter().flat_map(|(_, groups)| groups));
        Report { groups, missing: missing.into_iter().collect() }
    }

    /// The groups of the whole cluster, from their coordinators; where none answers, from a replica of the partition
    /// that keeps them: during an election its values are only older.
    pub(crate) async fn cluster(&self, filter: &Filter) -> Report {
        let mut missing: BTreeSet<i32> = self.0.kept(filter).into_iter().collect();
        let mut groups = Vec::new();
        let own = self.0.partitions.node();
        for any_replica in [false, true] {
            let mut queried = BTreeSet::new();
            // A node that answered for none of the missing partitions gets no further request.
            while !missing.is_empty() {
                let targets = self.0.targets(&missing, any_replica, &queried);
                if targets.is_empty() {
                    break;
                }
                let queries = targets.into_iter().map(|(node, partitions)| {
                    let request = Request { filter: filter.clone(), any_replica, partitions };
                    async move { (node, self.ask(node, own, request).await) }
                });
                for (node, answered) in join_all(queries).await {
                    let before = missing.len();
                    for (partition, found) in answered {
                        if missing.remove(&partition) {
                            groups.extend(found);
                        }
                    }
                    if missing.len() == before {
                        queried.insert(node);
                    }
                }
            }
        }
        Report { groups: sorted(groups), missing: missing.into_iter().collect() }
    }

    async fn ask(&self, node: NodeId, own: NodeId, request: Request) -> Vec<(i32, Vec<GroupLag>)> {
        if node == own {
            let inner = self.0.clone();
            return rt::spawn_blocking(move || inner.answer(&request, usize::MAX)).await.unwrap_or_default();
        }
        let (newest, older) = (request.encode(Version::Newest), request.encode(Version::ByHighWatermark));
        let answer = self.0.partitions.ask_groups(node, newest, older).await;
        answer.and_then(|bytes| decode_answer(&bytes).ok()).unwrap_or_default()
    }
}

fn sorted(groups: impl IntoIterator<Item = GroupLag>) -> Vec<GroupLag> {
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_by(|a, b| a.name.cmp(&b.name));
    groups
}

fn answer(inner: &Weak<Inner>, request: &Bytes) -> Option<Bytes> {
    let inner = inner.upgrade()?;
    let (version, request) = Request::decode(request).ok()?;
    Some(encode_answer(version, &inner.answer(&request, ANSWER_BYTES_MAX)))
}

impl Inner {
    /// False if the group has members and none of them has this client id.
    fn may_be_of_a_member(&self, partition: i32, group: &str, client_id: &str) -> bool {
        let Some(store) = self.groups.replicated(partition) else { return false };
        let store = store.lock();
        let membership = store.group(group).and_then(|stored| stored.membership.as_deref());
        let members = membership.map_or(&[][..], |value| &value.members);
        members.is_empty() || members.iter().any(|member| member.client_id == client_id)
    }

    /// The partitions of `__consumer_offsets` that may keep the requested groups.
    fn kept(&self, filter: &Filter) -> Vec<i32> {
        let image = self.partitions.image();
        let Some(topic) = image.topic(OFFSETS_TOPIC) else { return Vec::new() };
        match &filter.exact {
            Some(group) => vec![self.groups.coordinator_partition(group)],
            None => (0..topic.partition_count()).collect(),
        }
    }

    /// The node to query for each of these partitions: its leader, or with `any_replica` one of its replicas, this node
    /// first.
    fn targets(
        &self,
        wanted: &BTreeSet<i32>,
        any_replica: bool,
        queried: &BTreeSet<NodeId>,
    ) -> BTreeMap<NodeId, Vec<i32>> {
        let image = self.partitions.image();
        let (own, mut leaders) = (self.partitions.node(), self.partitions.leaders());
        let mut targets: BTreeMap<NodeId, Vec<i32>> = BTreeMap::new();
        let Some(topic) = image.topic(OFFSETS_TOPIC) else { return targets };
        for partition in wanted {
            let leader = leaders.of(topic, *partition);
            let mut replicas: Vec<NodeId> = match any_replica {
                true => leader.replicas.to_vec(),
                false => leader.node.into_iter().collect(),
            };
            replicas.sort_by_key(|node| *node != own);
            if let Some(node) = replicas.into_iter().find(|node| !queried.contains(node)) {
                targets.entry(node).or_default().push(*partition);
            }
        }
        targets
    }

    /// The groups of the requested partitions, as far as this node has them.
    fn answer(&self, request: &Request, bytes_max: usize) -> Vec<(i32, Vec<GroupLag>)> {
        let image = self.partitions.image();
        let (mut answer, mut bytes) = (Vec::new(), 0);
        for partition in &request.partitions {
            let leads = self.groups.leads(*partition);
            let cached = self.stores.read().get(partition).cloned();
            let (Some(cached), true) = (cached, leads || request.any_replica) else { continue };
            if !cached.read().is_measured {
                continue;
            }
            let coordinator = leads.then(|| self.partitions.node());
            let now_ms = self.groups.clock_ms(*partition);
            let groups = groups_of(&cached, &image, &request.filter, coordinator, now_ms);
            bytes += groups.iter().flat_map(GroupLag::partitions).count() * PARTITION_BYTES;
            answer.push((*partition, groups));
            if bytes > bytes_max {
                break;
            }
        }
        answer
    }
}

/// The groups of one partition of `__consumer_offsets`.
fn groups_of(
    cached: &RwLock<CachedStore>,
    image: &MetadataImage,
    filter: &Filter,
    coordinator: Option<NodeId>,
    clock_ms: i64,
) -> Vec<GroupLag> {
    let wanted: Vec<(Arc<str>, Arc<Mutex<CachedGroup>>)> = {
        let cached = cached.read();
        let wanted = cached.groups.iter().filter(|(name, _)| filter.wants_group(name));
        wanted.map(|(name, group)| (name.clone(), group.clone())).collect()
    };
    let (now, wall_ms) = (rt::now(), rt::wall_clock_ms());
    let shown = wanted.into_iter().map(|(name, group)| {
        let group = group.lock();
        let topics = group.topics.iter().filter(|(topic, _)| filter.wants_topic(topic));
        let topics = topics.filter_map(|(name, partitions)| {
            let topic = image.topic(name)?;
            let of_topic = partitions.iter().filter(|(index, partition)| {
                topic.route(**index).is_some() && partition.is_of(topic.id) && partition.is_shown()
            });
            let show = |(index, partition): (&i32, &CachedPartition)| {
                let measured = partition.measured(topic.id);
                PartitionLag {
                    index: *index,
                    committed: measured.map_or(partition.committed, |measured| measured.committed),
                    status: partition.status(topic.id, group.isolation, clock_ms),
                    window_commits: u8::try_from(partition.window.commits()).unwrap_or(WINDOW_COMMITS as u8),
                    measured: measured.map(|measured| shown(measured, group.isolation, now, wall_ms)),
                }
            };
            let partitions: Vec<_> = of_topic.map(show).collect();
            (!partitions.is_empty()).then(|| TopicLag { name: name.to_string(), partitions })
        });
        GroupLag {
            name: name.to_string(),
            protocol_type: group.protocol_type.clone(),
            generation: group.generation,
            members: group.members,
            coordinator,
            isolation: group.isolation,
            topics: topics.collect(),
        }
    });
    shown.filter(|group| !filter.is_by_topic() || !group.topics.is_empty()).collect()
}

/// What was measured, for a group that reads these records.
fn shown(measured: &Measured, isolation: Isolation, now: rt::Instant, wall_ms: i64) -> MeasuredLag {
    let lag = measured.lag(isolation);
    MeasuredLag {
        end: measured.high_watermark,
        lag,
        age_ms: i64::try_from(now.since(measured.at).as_millis()).unwrap_or(i64::MAX),
        behind_ms: match lag {
            0 => Some(0),
            _ => measured.first_uncommitted_ms.map(|first_ms| (wall_ms - first_ms).max(0)),
        },
        by_end: Some(LagByEnd {
            last_stable: measured.last_stable,
            high_watermark_lag: measured.lag(Isolation::ReadUncommitted),
            last_stable_lag: measured.lag(Isolation::ReadCommitted),
        }),
    }
}
