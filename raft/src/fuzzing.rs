//! Entry points of the fuzz targets: messages between nodes, and the memberships that a data directory and a group's
//! creation hold. Never part of a release build. A function panics where a decoder does, or where decoding what was
//! encoded gives another value.

#[cfg(test)]
#[path = "../../fuzz/corpus.rs"]
mod corpus;

use bytes::Bytes;
use ottla_storage::ids::{LogId, RaftIndex, ReplicaId, Term};

use crate::membership::Membership;
use crate::net::message_codec::{decode, encode};
use crate::net::message_samples::samples;
use crate::openraft_types::{
    StoredMembership, decode_stored_membership, encode_stored_membership, to_raft_log_id, to_raft_membership,
};

/// A message between nodes.
pub fn message(data: &[u8]) {
    if let Ok(message) = decode(Bytes::copy_from_slice(data)) {
        assert_eq!(decode(encode(&message)), Ok(message));
    }
}

/// Seeds for `message`.
#[must_use]
pub fn message_seeds() -> Vec<Vec<u8>> {
    samples().iter().map(|message| encode(message).to_vec()).collect()
}

/// The membership of a cut.
pub fn membership(data: &[u8]) {
    if let Some(stored) = decode_stored_membership(Bytes::copy_from_slice(data)) {
        let again = decode_stored_membership(encode_stored_membership(&stored));
        assert_eq!(again, Some(stored));
    }
}

/// Seeds for `membership`.
#[must_use]
pub fn membership_seeds() -> Vec<Vec<u8>> {
    let id = LogId { term: Term(3), index: RaftIndex(70) };
    let sets = [vec![1], vec![1, 5, 9]];
    let members = sets.into_iter().map(|set| Membership::of(set.into_iter().map(ReplicaId)));
    members
        .flat_map(|members| [Some(id), None].map(|id| (id, members.clone())))
        .map(|(id, members)| {
            let stored = StoredMembership::new(id.map(to_raft_log_id), to_raft_membership(&members));
            encode_stored_membership(&stored).to_vec()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every input that was kept for its target is accepted.
    #[test]
    fn every_target_accepts_its_corpus() {
        corpus::kept("raft_membership").iter().for_each(|input| membership(input));
    }
}
