//! The requests between nodes about shards, and their responses, as bytes.
//!
//!  request: | version u8 | 0: leadership update | node i32 | session u64 | number u64 | wall clock ms i64 |
//!                          list: shard u64, term u64, list: replica in sync u64 |             response: empty
//!           | version u8 | 1: elect the preferred replica | shard u64 |                       response: | outcome u8 |
//!           | version u8 | 2: ping |                                                          response: empty
//!           | version u8 | 3: consumer lag | kind u8 | ...  see `lag_request`                 response: see `lag_request`
//!           | version u8 | 6: transactions | bytes that `coordinator::transaction` reads |        response: bytes that it reads
//!           | version u8 | 5: set the clock | shard u64 | a time follows u8 | its ms i64 |    response: | outcome u8 | clock ms i64 |
//!
//! Decoding never panics. May not know: how a request is carried out.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use ottla_protocol::ids::NodeId;
use ottla_storage::ids::ReplicaId;

use super::lag_request::LagRequest;
use crate::codec::{CodecError, Padded, Writer, decode, decode_version, encode, encode_version, record};
use crate::metadata::ShardId;

const VERSION: u8 = 1;

/// Answers another node's request about what lies above shards; `None` if it cannot be read.
pub(crate) type PeerService = Arc<dyn Fn(Bytes) -> BoxFuture<'static, Option<Bytes>> + Send + Sync>;

/// A shard as its leader describes it to other nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LedShard {
    pub(crate) term: u64,
    /// The voters that are in sync.
    pub(crate) in_sync: Arc<[ReplicaId]>,
}

/// The shards that one node leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LeadershipUpdate {
    pub(super) node: NodeId,
    /// The node's incarnation: random, new with each start.
    pub(super) session: u64,
    /// Grows with each update of the session.
    pub(super) number: u64,
    /// The node's wall clock when it sent the update.
    pub(super) wall_ms: i64,
    pub(super) led: BTreeMap<ShardId, LedShard>,
}

/// A request from one node to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NodeRequest {
    LeadershipUpdate(LeadershipUpdate),
    /// The receiver leads this shard: it is to transfer leadership to the preferred replica.
    ElectPreferred(ShardId),
    /// Tests whether the receiver is alive.
    Ping,
    /// What coordinators on other nodes need for consumer lag.
    ConsumerLag(LagRequest),
    /// The receiver leads this shard: it is to set the shard clock to the operator's time, or to its own wall clock.
    SetClock(ShardId, Option<i64>),
    /// What partitions and coordinators of transactions ask each other.
    Transactions(Bytes),
}

/// The outcome of a request to set a shard's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetClockOutcome {
    /// The clock is set to this, in milliseconds.
    Done(i64),
    /// The node that received the request does not lead the shard.
    NotLeader,
    /// Most nodes' clocks do not agree with the leader's.
    NotConfirmed,
    /// The time named lies ahead of the leader's clock.
    Ahead,
    /// Not every node understands the command yet: the feature level is too low.
    LevelTooLow,
    /// No response in time; the clock may have been set.
    TimedOut,
}

/// The outcome of a preferred-leader election.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ElectionOutcome {
    /// The preferred replica leads now.
    Done,
    /// The preferred replica led already.
    NotNeeded,
    /// The preferred replica is no voter, lacks entries or does not respond.
    NotAvailable,
    /// The node that received the request does not lead the shard.
    NotLeader,
    /// No response in time; the preferred replica may lead or not.
    TimedOut,
}

impl NodeRequest {
    pub(super) fn encode(&self) -> Bytes {
        encode_version(VERSION, self)
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        decode_version(VERSION, bytes, "node request")
    }
}

record! {
    enum NodeRequest {
        0 LeadershipUpdate(update),
        1 ElectPreferred(shard),
        2 Ping,
        3 ConsumerLag(request),
        5 SetClock(shard, to_ms: Padded<0>),
        6 Transactions(request),
    }
    LeadershipUpdate { node, session, number, wall_ms, led }
    LedShard { term, in_sync }
    enum ElectionOutcome { 0 Done, 1 NotNeeded, 2 NotAvailable, 3 NotLeader, 4 TimedOut }
}

impl ElectionOutcome {
    pub(super) fn encode(self) -> Bytes {
        encode(&self)
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        decode(bytes, "outcome").ok()
    }
}

/// By hand: the clock has its bytes in every outcome.
impl SetClockOutcome {
    pub(super) fn encode(self) -> Bytes {
        let (outcome, clock_ms) = match self {
            Self::Done(clock_ms) => (0, clock_ms),
            Self::NotLeader => (1, 0),
            Self::NotConfirmed => (2, 0),
            Self::Ahead => (3, 0),
            Self::LevelTooLow => (4, 0),
            Self::TimedOut => (5, 0),
        };
        let mut w = Writer::default();
        w.u8(outcome).i64(clock_ms);
        w.finish()
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (outcome, clock_ms) = bytes.split_first()?;
        let clock_ms = i64::from_le_bytes(clock_ms.try_into().ok()?);
        match outcome {
            0 => Some(Self::Done(clock_ms)),
            1 => Some(Self::NotLeader),
            2 => Some(Self::NotConfirmed),
            3 => Some(Self::Ahead),
            4 => Some(Self::LevelTooLow),
            5 => Some(Self::TimedOut),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_outcomes_round_trip_and_truncated_bytes_are_refused() {
        let in_term = |term| LedShard { term, in_sync: [ReplicaId(4), ReplicaId(term)].into() };
        let led = BTreeMap::from([(ShardId(1), in_term(4)), (ShardId(7), in_term(u64::MAX))]);
        let update = LeadershipUpdate { node: NodeId(3), session: 9, number: 2, wall_ms: 1_000, led };
        let set = |to_ms| NodeRequest::SetClock(ShardId(7), to_ms);
        for request in [
            NodeRequest::LeadershipUpdate(update),
            NodeRequest::ElectPreferred(ShardId(7)),
            NodeRequest::Ping,
            set(None),
            set(Some(-9)),
            NodeRequest::Transactions(Bytes::from_static(b"above")),
        ] {
            let bytes = request.encode();
            assert!((0..bytes.len()).all(|cut| NodeRequest::decode(&bytes[..cut]).is_err()));
            assert_eq!(NodeRequest::decode(&bytes), Ok(request));
        }
        assert!(NodeRequest::decode(&[VERSION, 9]).is_err());
        use ElectionOutcome::*;
        for outcome in [Done, NotNeeded, NotAvailable, NotLeader, TimedOut] {
            assert_eq!(ElectionOutcome::decode(&outcome.encode()), Some(outcome));
        }
        assert_eq!((ElectionOutcome::decode(&[]), ElectionOutcome::decode(&[9])), (None, None));
        let outcomes = [
            SetClockOutcome::NotLeader,
            SetClockOutcome::NotConfirmed,
            SetClockOutcome::Ahead,
            SetClockOutcome::LevelTooLow,
        ];
        for outcome in outcomes.into_iter().chain([SetClockOutcome::Done(i64::MIN), SetClockOutcome::TimedOut]) {
            assert_eq!(SetClockOutcome::decode(&outcome.encode()), Some(outcome));
            assert_eq!(SetClockOutcome::decode(&outcome.encode()[..8]), None);
        }
    }
}
