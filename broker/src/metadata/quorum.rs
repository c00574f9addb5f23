//! The metadata group's members as operators see them (DescribeQuorum): Raft's progress of replicas, by node.
//!
//!  | leader i32 | term u64 | high watermark i64 | voters | observers |
//!  member: | node i32 | directory uuid | log end i64 | last fetch i64 | last caught up i64 |
//!
//! May not know: which client sent the request.

use ottla_env::rt::Instant;
use ottla_protocol::ids::NodeId;
use ottla_raft::{MemberProgress, Quorum};
use ottla_storage::ids::RaftIndex;

use super::clock::Clock;
use super::image::{ReplicaRecord, ShardRecord};
use super::requests::{MetadataQuorum, QuorumMember};
use crate::codec::record;

const UNKNOWN: i64 = -1;

fn end_of(last: Option<RaftIndex>) -> i64 {
    last.and_then(|last| i64::try_from(last.0).ok()?.checked_add(1)).unwrap_or(UNKNOWN)
}

/// The progress of members, as the leader on node `leader` has it. A member that is not recorded, which is so for
/// moments only, is left out.
pub(super) fn described(record: &ShardRecord, quorum: &Quorum, leader: NodeId, clock: &Clock) -> MetadataQuorum {
    let wall_ms_of = |at: Option<Instant>| at.map_or(UNKNOWN, |at| clock.wall_ms_of(at));
    let member = |(replica, progress): (&ReplicaRecord, &MemberProgress)| QuorumMember {
        node: replica.node,
        directory: replica.directory,
        log_end: end_of(progress.last),
        last_fetch_ms: wall_ms_of(progress.heard_at),
        last_caught_up_ms: wall_ms_of(progress.caught_up_at),
    };
    let known = record.members().filter_map(|replica| Some((replica, quorum.members.get(&replica.id)?)));
    let (mut voters, observers): (Vec<_>, Vec<_>) = known.partition(|(_, progress)| progress.is_voter);
    voters.sort_by_key(|(replica, _)| replica.node);
    MetadataQuorum {
        leader,
        term: quorum.term.0,
        high_watermark: end_of(quorum.committed),
        voters: voters.into_iter().map(member).collect(),
        observers: observers.into_iter().map(member).collect(),
    }
}

record! {
    MetadataQuorum { leader, term, high_watermark, voters, observers }
    QuorumMember { node, directory, log_end, last_fetch_ms, last_caught_up_ms }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use ottla_storage::ids::{ReplicaId, Term};
    use uuid::Uuid;

    use super::*;
    use crate::metadata::image::{ShardId, ShardKind};

    #[test]
    fn replicas_become_nodes_and_instants_become_wall_times() {
        let replica = |id: u64, node: i32| ReplicaRecord {
            id: ReplicaId(id),
            node: NodeId(node),
            directory: Uuid::from_u128(u128::from(id)),
        };
        let record = ShardRecord {
            id: ShardId::METADATA,
            kind: ShardKind::Metadata,
            replicas: vec![replica(9, 3), replica(1, 1), replica(2, 2)],
            adding: Vec::new(),
            leaving: vec![replica(3, 3)],
            founders: Vec::new(),
            created: RaftIndex(1),
            split: None,
            merge: None,
        };
        let now = Instant(0) + Duration::from_secs(60);
        let ago = |seconds: u64| Some(now - Duration::from_secs(seconds));
        let progress = |is_voter, last: Option<u64>, heard_at, caught_up_at| MemberProgress {
            is_voter,
            last: last.map(RaftIndex),
            heard_at,
            caught_up_at,
        };
        let members = BTreeMap::from([
            (ReplicaId(1), progress(true, Some(41), ago(0), ago(0))),
            (ReplicaId(2), progress(true, Some(30), ago(1), ago(7))),
            (ReplicaId(3), progress(true, None, None, None)),
            (ReplicaId(9), progress(false, Some(2), ago(1), None)),
            (ReplicaId(77), progress(true, Some(2), ago(1), None)),
        ]);
        let quorum = Quorum { term: Term(4), committed: Some(RaftIndex(40)), members };
        let described_quorum = described(&record, &quorum, NodeId(1), &Clock { now, wall_ms: 1_000_000 });
        assert_eq!(
            (described_quorum.leader, described_quorum.term, described_quorum.high_watermark),
            (NodeId(1), 4, 41)
        );
        let seen = |members: &[QuorumMember]| -> Vec<_> {
            members
                .iter()
                .map(|m| (m.node.0, m.directory.as_u128(), m.log_end, m.last_fetch_ms, m.last_caught_up_ms))
                .collect()
        };
        assert_eq!(
            seen(&described_quorum.voters),
            [(1, 1, 42, 1_000_000, 1_000_000), (2, 2, 31, 999_000, 993_000), (3, 3, -1, -1, -1)]
        );
        assert_eq!(seen(&described_quorum.observers), [(3, 9, 3, 999_000, -1)]);
    }
}
