//! What nodes tell and ask at each other's boards, as bytes.
//!
//!  notice: | version u8 | 0: announcement | node i32 | session u64 | number u64 | wall clock ms i64 |
//!                         list: shard u64, term u64, list: replica in sync u64 |                 answer: empty
//!          | version u8 | 1: have the preferred replica lead | shard u64 |                        answer: | outcome u8 |
//!          | version u8 | 2: are you there |                                                      answer: empty
//!          | version u8 | 3: about consumer lag | kind u8 | ...  see `lag_request`                answer: see `lag_request`
//!          | version u8 | 5: set the clock | shard u64 | a time follows u8 | its ms i64 |         answer: | outcome u8 | clock ms i64 |
//!
//! Reading never panics. May not know: what is done about them.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use ottla_protocol::ids::NodeId;
use ottla_storage::ids::ReplicaId;

use super::lag_request::LagRequest;
use crate::codec::{CodecError, Reader, Writer, read_list, write_list};
use crate::metadata::ShardId;

const VERSION: u8 = 1;

/// What a leader tells of its shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Led {
    pub(crate) term: u64,
    /// The voters that are in sync.
    pub(crate) in_sync: Arc<[ReplicaId]>,
}

/// What one node says that it leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Announcement {
    pub(super) node: NodeId,
    /// One life of the node; random.
    pub(super) session: u64,
    /// Grows with each announcement of the session.
    pub(super) number: u64,
    /// Its wall clock when it spoke.
    pub(super) wall_ms: i64,
    pub(super) led: BTreeMap<ShardId, Led>,
}

/// What comes to a board.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Notice {
    Announcement(Announcement),
    /// The node leads this shard: its preferred replica is to lead it.
    LeadPreferred(ShardId),
    /// Is the node there?
    Call,
    /// What the coordinators of other nodes need for consumer lag.
    Lag(LagRequest),
    /// The node leads this shard: its clock is to be what the operator says, or what that node's own is.
    SetClock(ShardId, Option<i64>),
}

/// What became of it that a shard's clock is to be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockSet {
    /// It is this now, in milliseconds.
    Done(i64),
    /// The shard is not led where it was asked.
    NotLeader,
    /// Most nodes' clocks do not agree with the leader's.
    NotConfirmed,
    /// The time named lies ahead of the leader's clock.
    Ahead,
    /// Not every node understands it yet: the feature level is too low.
    LevelTooLow,
    /// What became of it is unknown.
    TimedOut,
}

/// What became of it that the preferred replica is to lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Election {
    /// It leads now.
    Done,
    /// It led already.
    NotNeeded,
    /// It is no voter, lacks entries or does not answer.
    NotAvailable,
    /// The shard is not led where it was asked.
    NotLeader,
    /// Nobody knows.
    TimedOut,
}

impl Notice {
    pub(super) fn encode(&self) -> Bytes {
        let mut w = Writer::default();
        w.u8(VERSION);
        match self {
            Self::Announcement(told) => {
                w.u8(0).i32(told.node.0).u64(told.session).u64(told.number).i64(told.wall_ms);
                write_list(&mut w, told.led.iter(), |w, (shard, led)| {
                    w.u64(shard.0).u64(led.term);
                    write_list(w, led.in_sync.iter(), |w, replica| {
                        w.u64(replica.0);
                    });
                });
            }
            Self::LeadPreferred(shard) => drop(w.u8(1).u64(shard.0)),
            Self::Call => drop(w.u8(2)),
            Self::Lag(request) => request.write(w.u8(3)),
            Self::SetClock(shard, to_ms) => {
                w.u8(5).u64(shard.0).u8(u8::from(to_ms.is_some())).i64(to_ms.unwrap_or_default());
            }
        }
        w.finish()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut r = Reader::of_version(bytes, VERSION)?;
        let notice = match r.u8("notice")? {
            0 => {
                let (node, session) = (NodeId(r.i32("node id")?), r.u64("session")?);
                let (number, wall_ms) = (r.u64("number")?, r.i64("wall clock")?);
                let led = read_list(&mut r, "shards led", |r| {
                    let (shard, term) = (ShardId(r.u64("shard")?), r.u64("term")?);
                    let in_sync = read_list(r, "replicas in sync", |r| r.u64("replica").map(ReplicaId))?;
                    Ok((shard, Led { term, in_sync: in_sync.into() }))
                })?;
                Self::Announcement(Announcement { node, session, number, wall_ms, led: led.into_iter().collect() })
            }
            1 => Self::LeadPreferred(ShardId(r.u64("shard")?)),
            2 => Self::Call,
            3 => Self::Lag(LagRequest::read(&mut r)?),
            5 => {
                let (shard, is_named) = (ShardId(r.u64("shard")?), r.u8("a time follows")?);
                let to_ms = r.i64("time")?;
                match is_named {
                    0 => Self::SetClock(shard, None),
                    1 => Self::SetClock(shard, Some(to_ms)),
                    tag => return Err(CodecError::Tag("a time follows", tag)),
                }
            }
            tag => return Err(CodecError::Tag("notice", tag)),
        };
        r.end()?;
        Ok(notice)
    }
}

impl Election {
    pub(super) fn encode(self) -> Bytes {
        Bytes::copy_from_slice(&[match self {
            Self::Done => 0,
            Self::NotNeeded => 1,
            Self::NotAvailable => 2,
            Self::NotLeader => 3,
            Self::TimedOut => 4,
        }])
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [0] => Some(Self::Done),
            [1] => Some(Self::NotNeeded),
            [2] => Some(Self::NotAvailable),
            [3] => Some(Self::NotLeader),
            [4] => Some(Self::TimedOut),
            _ => None,
        }
    }
}

impl ClockSet {
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
    fn what_is_told_and_asked_comes_back_and_cut_bytes_are_refused() {
        let in_term = |term| Led { term, in_sync: [ReplicaId(4), ReplicaId(term)].into() };
        let led = BTreeMap::from([(ShardId(1), in_term(4)), (ShardId(7), in_term(u64::MAX))]);
        let told = Announcement { node: NodeId(3), session: 9, number: 2, wall_ms: 1_000, led };
        let set = |to_ms| Notice::SetClock(ShardId(7), to_ms);
        for notice in
            [Notice::Announcement(told), Notice::LeadPreferred(ShardId(7)), Notice::Call, set(None), set(Some(-9))]
        {
            let bytes = notice.encode();
            assert!((0..bytes.len()).all(|cut| Notice::decode(&bytes[..cut]).is_err()));
            assert_eq!(Notice::decode(&bytes), Ok(notice));
        }
        assert!(Notice::decode(&[VERSION, 9]).is_err());
        use Election::*;
        for outcome in [Done, NotNeeded, NotAvailable, NotLeader, TimedOut] {
            assert_eq!(Election::decode(&outcome.encode()), Some(outcome));
        }
        assert_eq!((Election::decode(&[]), Election::decode(&[9])), (None, None));
        let outcomes = [ClockSet::NotLeader, ClockSet::NotConfirmed, ClockSet::Ahead, ClockSet::LevelTooLow];
        for outcome in outcomes.into_iter().chain([ClockSet::Done(i64::MIN), ClockSet::TimedOut]) {
            assert_eq!(ClockSet::decode(&outcome.encode()), Some(outcome));
            assert_eq!(ClockSet::decode(&outcome.encode()[..8]), None);
        }
    }
}
