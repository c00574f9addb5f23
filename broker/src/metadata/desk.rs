//! How nodes find the cluster before they know any of its replicas: each node has a desk where others ask.
//!
//!  question: | version u8 | 0: hello | node i32 | directory uuid | lost u64 list |      | version u8 | 1: join | fields |
//!            | version u8 | 2: members |
//!  answer:   | version u8 | 0: empty | directory uuid |   | 1: known | founders | own place? |   | 2: joined |   | 3: not now |
//!            | 4: refused | why |   | 5: members | replica, address |
//!
//! Only when all nodes that are to found a cluster say that they hold nothing does the first of them found it; everybody
//! else is told their place, which is bound to their directory: a node whose disk was wiped is a stranger and joins as one.
//! A desk has an address of its own, at the upper end of the replica ids. May not know: what a node does with its place.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use ottla_protocol::ids::NodeId;
use ottla_raft::{RaftHost, Service};
use ottla_storage::env::mutants::{self, Bug};
use ottla_storage::ids::ReplicaId;
use parking_lot::Mutex;
use uuid::Uuid;

use super::controller::{Inner, Metadata};
use super::error::MetadataError;
use super::fields::{read_ids, read_replica, read_replicas, write_ids, write_replica, write_replicas};
use super::forward::{read_join, write_join};
use super::image::{MetadataImage, ReplicaRecord, ShardId};
use super::joining::Join;
use crate::codec::{CodecError, Reader, Writer, read_list, write_list};

const VERSION: u8 = 1;
/// How far below the desks' addresses those of the boards are.
const BOARDS: u64 = 1 << 32;

/// The address of a node's desk.
#[must_use]
pub fn desk(node: NodeId) -> ReplicaId {
    ReplicaId(u64::MAX - u64::from(node.0.unsigned_abs()))
}

/// The address where a node is told what others lead.
#[must_use]
pub fn board(node: NodeId) -> ReplicaId {
    ReplicaId(desk(node).0 - BOARDS)
}

/// The node whose desk or board has this address; `None` for a replica's.
#[must_use]
pub fn node_of_address(address: ReplicaId) -> Option<NodeId> {
    let node = (u64::MAX - address.0) % BOARDS;
    (address.0 > u64::MAX - 2 * BOARDS).then(|| i32::try_from(node).ok().map(NodeId)).flatten()
}

/// What is asked at a desk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum DeskQuestion {
    /// Where is the metadata group's replica of this node, in this directory, that is none of the lost ones?
    Hello { node: NodeId, directory: Uuid, lost: Vec<ReplicaId> },
    /// Has the node registered.
    Join(Box<Join>),
    /// Where are the replicas of the metadata group? Who knows only its founders cannot reach another one that leads.
    Members,
}

/// Where a node belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) replica: ReplicaRecord,
    /// It is one of those that found the group; otherwise it waits to be given everything.
    pub(super) founds: bool,
}

/// What a desk answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum DeskAnswer {
    /// This node holds nothing of a cluster in its directory.
    Empty { directory: Uuid },
    /// There is a cluster.
    Known { founders: Vec<ReplicaRecord>, place: Option<Place> },
    /// The node is registered.
    Joined,
    /// Ask again later.
    NotNow,
    /// The node is not registered, and why.
    Refused(String),
    /// The replicas of the metadata group, and where their nodes are reached.
    Members(Vec<Member>),
}

/// A replica of the metadata group, and `host:port` of its node for other nodes.
pub(super) type Member = (ReplicaRecord, String);

fn write_member(w: &mut Writer, (replica, address): &Member) {
    write_replica(w, replica);
    w.string(address);
}

fn read_member(r: &mut Reader<'_>) -> Result<Member, CodecError> {
    Ok((read_replica(r)?, r.string("address")?))
}

/// The members that an image knows, as far as it knows where they are.
fn members(image: &MetadataImage) -> Vec<Member> {
    let replicas = image.shard(ShardId::METADATA).into_iter().flat_map(|record| record.members());
    replicas.filter_map(|replica| Some((*replica, image.nodes.get(&replica.node)?.cluster_address()?))).collect()
}

impl DeskQuestion {
    pub(super) fn encode(&self) -> Bytes {
        let mut w = Writer::default();
        w.u8(VERSION);
        match self {
            Self::Hello { node, directory, lost } => write_ids(w.u8(0).i32(node.0).uuid(directory), lost),
            Self::Join(join) => write_join(w.u8(1), join),
            Self::Members => drop(w.u8(2)),
        }
        w.finish()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut r = Reader::of_version(bytes, VERSION)?;
        let question = match r.u8("question")? {
            0 => {
                let (node, directory) = (NodeId(r.i32("node id")?), r.uuid("directory")?);
                Self::Hello { node, directory, lost: read_ids(&mut r)? }
            }
            1 => Self::Join(Box::new(read_join(&mut r)?)),
            2 => Self::Members,
            tag => return Err(CodecError::Tag("question", tag)),
        };
        r.end()?;
        Ok(question)
    }
}

impl DeskAnswer {
    pub(super) fn encode(&self) -> Bytes {
        let mut w = Writer::default();
        w.u8(VERSION);
        match self {
            Self::Empty { directory } => drop(w.u8(0).uuid(directory)),
            Self::Known { founders, place } => {
                write_replicas(w.u8(1), founders);
                w.u8(u8::from(place.is_some()));
                if let Some(place) = place {
                    write_replica(&mut w, &place.replica);
                    w.u8(u8::from(place.founds));
                }
            }
            Self::Joined => drop(w.u8(2)),
            Self::NotNow => drop(w.u8(3)),
            Self::Refused(why) => drop(w.u8(4).string(why)),
            Self::Members(members) => write_list(w.u8(5), members.iter(), write_member),
        }
        w.finish()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut r = Reader::of_version(bytes, VERSION)?;
        let answer = match r.u8("answer")? {
            0 => Self::Empty { directory: r.uuid("directory")? },
            1 => {
                let founders = read_replicas(&mut r)?;
                let place = match r.u8("place")? {
                    0 => None,
                    _ => Some(Place { replica: read_replica(&mut r)?, founds: r.u8("founds")? != 0 }),
                };
                Self::Known { founders, place }
            }
            2 => Self::Joined,
            3 => Self::NotNow,
            4 => Self::Refused(r.string("reason")?),
            5 => Self::Members(read_list(&mut r, "members", read_member)?),
            tag => return Err(CodecError::Tag("answer", tag)),
        };
        r.end()?;
        Ok(answer)
    }
}

/// What stands behind a desk.
enum Behind {
    /// The node looks for its place; `empty`: it has nothing that it might have promised.
    Seeking {
        empty: bool,
    },
    Known {
        metadata: Weak<Inner>,
        founders: Vec<ReplicaRecord>,
    },
}

/// A node's desk.
pub(super) struct Desk {
    directory: Uuid,
    behind: Mutex<Behind>,
}

impl Desk {
    /// Opens the desk of `node`.
    pub(super) fn open(host: &RaftHost, node: NodeId, directory: Uuid, empty: bool) -> Arc<Self> {
        let open = Arc::new(Self { directory, behind: Mutex::new(Behind::Seeking { empty }) });
        let behind = Arc::clone(&open);
        let service = move |_from: ReplicaId, question: Bytes| -> BoxFuture<'static, Option<Bytes>> {
            let desk = Arc::clone(&behind);
            async move { Some(desk.answer(DeskQuestion::decode(&question).ok()?).await.encode()) }.boxed()
        };
        let service: Service = Arc::new(service);
        host.serve(desk(node), service);
        open
    }

    /// From now on the node knows the cluster.
    pub(super) fn knows(&self, metadata: &Metadata, founders: Vec<ReplicaRecord>) {
        *self.behind.lock() = Behind::Known { metadata: metadata.downgrade(), founders };
    }

    /// The node is to be found at the place that it was given: it does not say any more that it holds nothing.
    pub(super) fn takes_place(&self) {
        *self.behind.lock() = Behind::Seeking { empty: false };
    }

    async fn answer(&self, question: DeskQuestion) -> DeskAnswer {
        let (metadata, founders) = match &*self.behind.lock() {
            Behind::Seeking { empty: true } => return DeskAnswer::Empty { directory: self.directory },
            Behind::Seeking { empty: false } => return DeskAnswer::NotNow,
            Behind::Known { metadata, founders } => (metadata.clone(), founders.clone()),
        };
        let Some(metadata) = Metadata::upgrade(&metadata) else { return DeskAnswer::NotNow };
        match question {
            DeskQuestion::Members => DeskAnswer::Members(members(&metadata.image())),
            DeskQuestion::Join(join) => match metadata.join(*join).await {
                Ok(()) => DeskAnswer::Joined,
                Err(MetadataError::UnsupportedVersion(why)) => DeskAnswer::Refused(why),
                Err(_) => DeskAnswer::NotNow,
            },
            DeskQuestion::Hello { node, directory, lost } => {
                let is_own = |replica: &&ReplicaRecord| {
                    let is_home = replica.directory == directory || mutants::is_on(Bug::WipedReplicaVotes);
                    replica.node == node && is_home && !lost.contains(&replica.id)
                };
                // What was recorded counts; before that, what the founders agreed on.
                let current = metadata.read_index().await.is_ok();
                let image = metadata.image();
                let place = match image.shard(ShardId::METADATA) {
                    // Its replica, of which it knows nothing any more, has not left yet.
                    Some(_) if !current || image.is_going(node) => return DeskAnswer::NotNow,
                    Some(record) => record
                        .replicas
                        .iter()
                        .find(is_own)
                        .map(|own| Place { replica: *own, founds: record.founders.contains(&own.id) }),
                    None => founders.iter().find(is_own).map(|own| Place { replica: *own, founds: true }),
                };
                DeskAnswer::Known { founders, place }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::image::{NodeRecord, NodeState};
    use crate::metadata::levels::Levels;
    use ottla_storage::ids::RaftIndex;

    #[test]
    fn a_desk_is_told_from_a_replica() {
        for node in [0, 1, i32::MAX].map(NodeId) {
            assert_eq!(node_of_address(desk(node)), Some(node));
            assert_eq!(node_of_address(board(node)), Some(node));
        }
        assert_eq!(node_of_address(ReplicaId(1 << 40)), None);
    }

    #[test]
    fn what_is_asked_and_answered_comes_back_and_cut_bytes_are_refused() {
        let replica = ReplicaRecord { id: ReplicaId(3), node: NodeId(2), directory: Uuid::from_u128(5) };
        let node = NodeRecord {
            id: NodeId(2),
            rack: None,
            listeners: Vec::new(),
            directories: Vec::new(),
            version: "1".into(),
            levels: Levels::FIRST,
            epoch: RaftIndex(0),
            state: NodeState::Active,
            liveness: crate::metadata::Liveness::default(),
        };
        let join = Join { node, cluster_id: "c".into(), founders: vec![replica], lost: vec![ReplicaId(9)] };
        let hello = DeskQuestion::Hello { node: NodeId(1), directory: replica.directory, lost: vec![ReplicaId(1)] };
        for question in [hello, DeskQuestion::Join(Box::new(join)), DeskQuestion::Members] {
            let bytes = question.encode();
            assert!((0..bytes.len()).all(|cut| DeskQuestion::decode(&bytes[..cut]).is_err()));
            assert_eq!(DeskQuestion::decode(&bytes), Ok(question));
        }
        for answer in [
            DeskAnswer::Empty { directory: replica.directory },
            DeskAnswer::Known { founders: vec![replica; 2], place: Some(Place { replica, founds: true }) },
            DeskAnswer::Known { founders: Vec::new(), place: None },
            DeskAnswer::Joined,
            DeskAnswer::NotNow,
            DeskAnswer::Refused("why".into()),
            DeskAnswer::Members(vec![(replica, "n2:19092".into()); 2]),
        ] {
            let bytes = answer.encode();
            assert!((0..bytes.len()).all(|cut| DeskAnswer::decode(&bytes[..cut]).is_err()));
            assert_eq!(DeskAnswer::decode(&bytes), Ok(answer));
        }
    }
}
