//! Messages for tests of their encodings and for fuzzing.

use bytes::Bytes;
use ottla_protocol::ids::{Offset, PartitionId};
use ottla_storage::compact::{Pass, PassDone};
use ottla_storage::data_dir::{Exported, ExportedBatch, ReplicaSnapshot};
use ottla_storage::entry::{Entry, EntryBatch, EntryKind, Vote};
use ottla_storage::ids::{LogId, RaftIndex, ReplicaId, Term};
use uuid::Uuid;

use super::message_codec::OWN_PART_BYTES;
use super::{Message, Resume, StatePart};

/// At least one message of each kind, with every optional field present in one of them.
pub(crate) fn samples() -> Vec<Message> {
    let id = LogId { term: Term(3), index: RaftIndex(70) };
    let vote = Vote { term: Term(4), voted_for: ReplicaId(9), committed: true };
    let partition = PartitionId { topic: Uuid::from_u128(5), index: 7 };
    let batch = |bytes: usize| EntryBatch { partition, data: vec![7; bytes].into() };
    let entry = |kind, batches: Vec<EntryBatch>| Entry {
        log_id: id,
        kind,
        clock_ms: -5,
        payload: Bytes::from_static(b"command"),
        batches: batches.into(),
    };
    let entries = vec![
        entry(EntryKind::Blank, Vec::new()),
        entry(EntryKind::Normal, vec![batch(61), batch(OWN_PART_BYTES), batch(3 * OWN_PART_BYTES)]),
        entry(EntryKind::Membership, Vec::new()),
    ];
    let keys = vec![(Bytes::from_static(b"k"), Bytes::new()), (Bytes::new(), vec![1; OWN_PART_BYTES].into())];
    let state = ReplicaSnapshot { applied: id, membership: Bytes::from_static(b"m"), checksum: u64::MAX, keys };
    let exported = vec![ExportedBatch { max_timestamp_ms: -1, data: vec![2; 2 * OWN_PART_BYTES].into() }];
    let offset = Offset(1 << 40);
    let done = PassDone { number: 7, pass: Pass { horizon: offset, cutoff: Offset(5) } };
    vec![
        Message::AppendEntries { vote, prev_log_id: Some(id), entries, leader_commit: None },
        Message::AppendEntries { vote, prev_log_id: None, entries: Vec::new(), leader_commit: Some(id) },
        Message::AppendEntriesSuccess,
        Message::AppendEntriesPartialSuccess(None),
        Message::AppendEntriesPartialSuccess(Some(id)),
        Message::AppendEntriesConflict,
        Message::HigherVote(vote),
        Message::RequestVote { pre_vote: true, vote, last_log_id: Some(id), leadership_transfer: false },
        Message::RequestVoteResponse { vote, last_log_id: None, granted: true },
        Message::TransferLeader { from_leader: vote, to: ReplicaId(2), last_log_id: Some(id) },
        Message::TransferLeaderResponse { accepted: false },
        Message::Request(Bytes::from_static(b"?")),
        Message::Response(Bytes::new()),
        Message::InstallSnapshot { vote, last_included: id },
        Message::InstallSnapshotResponse { done: true },
        Message::FetchWholeState,
        Message::FetchWholeStateResponse(None),
        Message::FetchWholeStateResponse(Some(state.clone())),
        Message::FetchState { resume: None },
        Message::FetchState { resume: Some(Resume { of: id, after: Bytes::from_static(b"k") }) },
        Message::CheckState { index: id.index, format: 1 },
        Message::CheckStateResponse(None),
        Message::CheckStateResponse(Some(u64::MAX)),
        Message::FetchStateResponse(None),
        Message::FetchStateResponse(Some(StatePart { state, is_last: true })),
        Message::FetchBatches { partition, from: offset, up_to: offset, bytes_max: 9 },
        Message::FetchBatchesResponse(Exported { log_start: offset, batches: exported.clone(), done: None }),
        Message::FetchBatchesResponse(Exported { log_start: offset, batches: exported, done: Some(done) }),
    ]
}
