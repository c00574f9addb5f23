//! Frames are ordered by sequence number, not by position; which replicas lost data.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::entry::{Batches, Entry, EntryKind, EntryVerdicts};
use crate::ids::{LogId, RaftIndex, Term};

const ONE: ReplicaId = ReplicaId(1);

fn id(term: u64, index: u64) -> LogId {
    LogId { term: Term(term), index: RaftIndex(index) }
}

fn entry(term: u64, index: u64) -> FrameBody {
    FrameBody::Entry(Entry {
        log_id: id(term, index),
        kind: EntryKind::Normal,
        clock_ms: 0,
        payload: Bytes::new(),
        batches: Batches::default(),
    })
}

fn create() -> FrameBody {
    FrameBody::Create(GroupCreation { replica: ONE, payload: Bytes::from_static(b"x"), vote: None, purged: None })
}

fn vote(term: u64, committed: bool) -> FrameBody {
    FrameBody::Vote(Vote { term: Term(term), voted_for: ReplicaId(3), committed })
}

fn place(byte: u32) -> EntryPlace {
    EntryPlace { position: LogPosition { segment: 1, byte }, frame_bytes: 80, commit_byte: byte }
}

/// Frames in the order of their places: (sequence, body).
fn replayed(frames: &[(u64, FrameBody)]) -> Replayed {
    let mut found = Found::default();
    for (number, (sequence, body)) in frames.iter().enumerate() {
        found.frame(ONE, *sequence, place(number as u32 * 100), body, false);
    }
    found.replay(false, None, &AcceptLoss::Nothing).remove(0)
}

fn ids(replayed: &Replayed) -> Vec<(u64, u64)> {
    let first = replayed.state.first_index;
    let slots = replayed.state.slots.iter().enumerate();
    slots.map(|(at, slot)| (slot.term.0, first + at as u64)).collect()
}

#[test]
fn a_frame_moved_to_the_tail_keeps_its_turn() {
    let frames = [
        (1, create()),
        (3, entry(1, 2)),
        // Overwritten from index 2 on, then truncated after 2.
        (4, entry(2, 2)),
        (5, entry(2, 3)),
        (6, FrameBody::Truncate(Some(id(2, 2)))),
        // Relocated: written first, found last.
        (2, entry(1, 1)),
        (7, vote(4, true)),
    ];
    let replica = replayed(&frames);
    assert_eq!(ids(&replica), vec![(1, 1), (2, 2)]);
    assert_eq!(replica.lost, None);
    assert_eq!(replica.state.next_sequence, 8);
}

#[test]
fn the_greatest_vote_wins() {
    let replica = replayed(&[(1, create()), (2, vote(4, true)), (3, vote(4, false)), (4, vote(3, true))]);
    assert_eq!(replica.state.vote.map(|v| (v.term.0, v.committed)), Some((4, true)));
}

#[test]
fn an_entry_that_is_purged_by_now_still_voids_what_was_above_it() {
    let mut found = Found::default();
    found.recovery_points(vec![RecoveryPoint {
        replica: ONE,
        creation: Bytes::new(),
        sequence: 1,
        position: LogPosition { segment: 1, byte: 0 },
        vote: None,
        purged: Some(id(6, 3)),
        lost: false,
        kept: Vec::new(),
    }]);
    for (sequence, body) in [(2, entry(5, 3)), (3, entry(5, 4)), (4, entry(6, 3))] {
        found.frame(ONE, sequence, place(sequence as u32 * 100), &body, false);
    }
    let replica = found.replay(false, None, &AcceptLoss::Nothing).remove(0);
    assert_eq!(replica.state.last_log_id(), Some(id(6, 3)));
}

/// A recovery point after frame 9 that keeps the entries of frames 2 and 3, which lie after it in the log.
fn kept_recovery_point() -> Found {
    let mut found = Found::default();
    found.recovery_points(vec![RecoveryPoint {
        replica: ONE,
        creation: Bytes::new(),
        sequence: 9,
        kept: vec![(2, 3)],
        position: LogPosition { segment: 1, byte: 0 },
        vote: None,
        purged: None,
        lost: false,
    }]);
    found
}

#[test]
fn of_the_frames_before_a_recovery_point_those_count_that_it_keeps() {
    let mut found = kept_recovery_point();
    // Relocated once and truncated later: its copy is still there.
    let frames = [(4, entry(1, 3)), (2, entry(1, 1)), (10, entry(1, 3)), (3, entry(1, 2)), (11, entry(1, 4))];
    for (number, (sequence, body)) in frames.iter().enumerate() {
        found.frame(ONE, *sequence, place(number as u32 * 100), body, false);
    }
    let replica = found.replay(false, None, &AcceptLoss::Nothing).remove(0);
    assert_eq!(replica.lost, None);
    assert_eq!(ids(&replica), vec![(1, 1), (1, 2), (1, 3), (1, 4)]);
    assert_eq!(replica.state.relocated, [1, 2].into());
}

#[test]
fn a_kept_entry_that_is_gone_is_lost_unless_it_is_purged() {
    for (purge, lost) in [(None, true), (Some(1), true), (Some(2), false)] {
        let mut found = kept_recovery_point();
        found.frame(ONE, 2, place(0), &entry(1, 1), false);
        found.frame(ONE, 10, place(100), &entry(1, 3), false);
        if let Some(index) = purge {
            found.frame(ONE, 11, place(200), &FrameBody::Purge(id(1, index)), false);
        }
        assert_eq!(found.replay(false, None, &AcceptLoss::Nothing).remove(0).lost.is_some(), lost, "{purge:?}");
    }
}

/// Found by the simulation (seed 123155). The segment was begun while a generation of the checkpoint counted that was damaged later; what
/// it purged is applied again, and the segments before were freed once that had been written anew.
#[test]
fn a_purge_that_only_the_first_header_knows_is_forgotten_with_its_checkpoint() {
    for (sequence, entries) in [(5, vec![(1, 1), (1, 2), (1, 3)]), (10, vec![(1, 3)])] {
        let mut found = kept_recovery_point();
        found.table(&SegmentHeader {
            segment: 1,
            incarnation: 1,
            first_commit: 1,
            previous_end: LogPosition { segment: 0, byte: 0 },
            rows: vec![ReplicaRow {
                replica: ONE,
                sequence,
                vote: None,
                purged: Some(id(1, 2)),
                lost: false,
                creation: Bytes::new(),
            }],
        });
        for (number, (sequence, body)) in [(2, entry(1, 1)), (3, entry(1, 2)), (11, entry(1, 3))].iter().enumerate() {
            found.frame(ONE, *sequence, place(number as u32 * 100), body, false);
        }
        if sequence == 5 {
            found.frame(ONE, 10, place(300), &vote(2, true), false);
        }
        let held = BTreeMap::from([(ONE, RaftIndex(0))]);
        let replica = found.replay(false, Some(&held), &AcceptLoss::Nothing).remove(0);
        assert_eq!((replica.lost.clone(), ids(&replica)), (None, entries), "the header's row is of frame {sequence}");
    }
}

#[test]
fn a_copy_behind_damage_clears_nobody() {
    let damage = Damage { segment: 1, to: 500, lists_complete: false };
    let mut found = Found::default();
    for (sequence, body) in [(1, create()), (2, entry(1, 1)), (3, vote(4, true))] {
        found.frame(ONE, sequence, place(sequence as u32), &body, false);
    }
    found.damage(damage);
    found.frame(ONE, 2, place(600), &entry(1, 1), false);
    assert!(
        found.replay(false, None, &AcceptLoss::Nothing).remove(0).lost.is_some(),
        "a vote may have been in the damage"
    );
}

#[test]
fn without_its_checkpoint_a_replica_with_copies_is_lost() {
    let mut found = Found::default();
    let row = ReplicaRow { replica: ONE, sequence: 9, vote: None, purged: None, lost: false, creation: Bytes::new() };
    let previous_end = LogPosition { segment: 0, byte: 0 };
    found.table(&SegmentHeader { segment: 1, incarnation: 1, first_commit: 4, previous_end, rows: vec![row] });
    found.frame(ONE, 2, place(100), &entry(1, 1), false);
    found.frame(ONE, 10, place(200), &entry(1, 2), false);
    assert!(
        found.replay(false, None, &AcceptLoss::Nothing).remove(0).lost.is_some(),
        "the log might end or begin elsewhere"
    );
}

#[test]
fn a_gap_that_may_hide_a_vote_or_an_entry_marks_the_replica() {
    let hidden_vote = replayed(&[(1, create()), (2, entry(1, 1)), (4, entry(1, 2))]);
    assert!(hidden_vote.lost.is_some() && hidden_vote.newly_lost);
    let hidden_entry = replayed(&[(1, create()), (2, entry(1, 1)), (4, entry(1, 3)), (5, vote(9, false))]);
    assert!(hidden_entry.lost.is_some());
}

#[test]
fn a_gap_below_what_is_purged_and_before_a_later_vote_is_harmless() {
    let replica = replayed(&[
        (1, create()),
        (2, entry(1, 1)),
        (4, entry(1, 3)),
        (5, vote(9, false)),
        (6, FrameBody::Purge(id(1, 2))),
    ]);
    assert_eq!(replica.lost, None);
    assert_eq!(ids(&replica), vec![(1, 3)]);
}

#[test]
fn a_damaged_first_header_hides_no_frame_behind_the_next_table() {
    let mut found = Found::default();
    found.damage(Damage { segment: 1, to: 0, lists_complete: true });
    for (sequence, body) in [(1, create()), (2, entry(1, 1)), (3, entry(1, 2))] {
        found.frame(ONE, sequence, place(sequence as u32 * 100), &body, false);
    }
    found.table(&SegmentHeader {
        segment: 2,
        incarnation: 1,
        first_commit: 4,
        previous_end: LogPosition { segment: 1, byte: 400 },
        rows: vec![ReplicaRow {
            replica: ONE,
            sequence: 3,
            vote: None,
            purged: None,
            lost: false,
            creation: Bytes::new(),
        }],
    });
    let replica = found.replay(false, None, &AcceptLoss::Nothing).remove(0);
    assert_eq!(replica.lost, None);
    assert_eq!(ids(&replica), vec![(1, 1), (1, 2)]);
}

#[test]
fn frames_that_a_header_knows_and_nobody_finds_are_lost() {
    let mut found = Found::default();
    found.frame(ONE, 1, place(0), &create(), false);
    found.last_known(&[(ONE, 2)]);
    let replica = found.replay(false, None, &AcceptLoss::Nothing).remove(0);
    assert!(replica.lost.is_some());
    assert_eq!(replica.state.next_sequence, 3, "a lost number is not given again");
}

/// Found by the simulation (seed 6159): it was forgotten, and its node created the same id anew.
#[test]
fn a_replica_whose_creation_is_gone_is_lost_and_not_forgotten() {
    let mut listed = Found::default();
    listed.last_known(&[(ONE, 1)]);
    let mut voted = Found::default();
    voted.frame(ONE, 2, place(100), &vote(3, false), false);
    for found in [listed, voted] {
        let replica = found.replay(false, None, &AcceptLoss::Nothing).remove(0);
        assert!(replica.newly_lost && replica.lost.is_some());
        assert!(replica.creation.is_empty());
    }
}

#[test]
fn damage_that_nothing_clears_marks_and_damage_that_something_clears_does_not() {
    let damage = Damage { segment: 1, to: 500, lists_complete: false };
    for (behind, lost) in [(400, true), (600, false)] {
        let mut found = Found::default();
        found.frame(ONE, 1, place(0), &create(), false);
        found.frame(ONE, 2, place(behind), &entry(1, 1), false);
        found.damage(damage);
        assert_eq!(found.replay(false, None, &AcceptLoss::Nothing).remove(0).lost.is_some(), lost);
    }
}

#[test]
fn damaged_records_are_told_apart_by_the_known_commit() {
    for (verdicts, unproven) in [(true, None), (false, Some(id(1, 1)))] {
        let mut found = Found::default();
        found.frame(ONE, 1, place(0), &create(), false);
        found.frame(ONE, 2, place(100), &entry(1, 1), true);
        if verdicts {
            let told = vec![EntryVerdicts {
                log_id: id(1, 1),
                verdicts: Vec::new(),
                lineages: Vec::new(),
                relocated_to: None,
            }];
            found.frame(ONE, 3, place(200), &FrameBody::Verdicts(told), false);
        }
        let replica = found.replay(false, None, &AcceptLoss::Nothing).remove(0);
        assert_eq!(replica.lost, None, "whether a peer has them is for others to know");
        assert_eq!(replica.damaged_unproven, unproven);
        assert_eq!(replica.damaged, vec![id(1, 1)]);
    }
}

#[test]
fn a_removed_replica_stays_away_also_by_a_later_table() {
    let mut found = Found::default();
    found.frame(ONE, 1, place(0), &create(), false);
    let header = |segment| SegmentHeader {
        segment,
        incarnation: 1,
        first_commit: 1,
        previous_end: LogPosition { segment: 0, byte: 0 },
        rows: Vec::new(),
    };
    found.table(&header(0));
    found.table(&header(2));
    assert!(found.replay(false, None, &AcceptLoss::Nothing).is_empty());
}

#[test]
fn a_removed_replica_of_which_only_tables_tell_stays_away() {
    let header = |segment, rows| SegmentHeader {
        segment,
        incarnation: 1,
        first_commit: 1,
        previous_end: LogPosition { segment: 0, byte: 0 },
        rows,
    };
    let row = ReplicaRow {
        replica: ONE,
        sequence: 3,
        vote: None,
        purged: None,
        lost: false,
        creation: Bytes::from_static(b"x"),
    };
    let mut found = Found::default();
    found.table(&header(1, Vec::new()));
    // Its frames lay here, the last one behind the next table.
    found.damage(Damage { segment: 1, to: 500, lists_complete: true });
    found.table(&header(2, vec![row]));
    found.damage(Damage { segment: 2, to: 500, lists_complete: true });
    found.table(&header(3, Vec::new()));
    assert!(found.replay(false, None, &AcceptLoss::Nothing).is_empty());
}

/// Frames 3 and 4 are gone between whole ones, or the last ones are.
fn accepted(frames: &[(u64, FrameBody)], known: u64) -> Replayed {
    let mut found = Found::default();
    for (number, (sequence, body)) in frames.iter().enumerate() {
        found.frame(ONE, *sequence, place(number as u32 * 100), body, false);
    }
    found.last_known(&[(ONE, known)]);
    found.replay(false, None, &AcceptLoss::Of([ONE].into())).remove(0)
}

#[test]
fn where_a_loss_is_accepted_blank_entries_stand_for_those_that_are_gone() {
    let frames = [(1, create()), (2, entry(1, 0)), (5, entry(2, 2)), (6, entry(2, 3))];
    let replica = accepted(&frames, 6);
    assert_eq!(ids(&replica), vec![(1, 0), (1, 1), (2, 2), (2, 3)]);
    let missing = replica.missing.unwrap();
    assert_eq!((missing.frames, missing.entries, missing.at_end), (2, vec![(RaftIndex(1), RaftIndex(1))], false));
    assert_eq!((replica.lost, replica.newly_lost), (None, false));
    // Until the checkpoint stands for what was before, recovery points say that it is lost.
    assert!(replica.state.lost);
    let blank = replica.state.slot(RaftIndex(1)).unwrap();
    assert_eq!(blank.cached.as_ref().map(|entry| entry.kind), Some(EntryKind::Blank));
    assert_eq!(blank.place, Some(place(200)), "recovery from here on finds all that is behind it");
}

#[test]
fn frames_that_are_gone_at_the_end_may_have_been_entries() {
    let replica = accepted(&[(1, create()), (2, entry(1, 0))], 4);
    let missing = replica.missing.unwrap();
    assert_eq!((missing.frames, missing.entries, missing.at_end), (2, Vec::new(), true));
    let sound = accepted(&[(1, create()), (2, entry(1, 0))], 2);
    assert_eq!((sound.missing, sound.lost, sound.state.lost), (None, None, false));
}

#[test]
fn a_recovery_point_behind_an_accepted_loss_stands_for_marks_and_damage_before_it() {
    let point = |position| RecoveryPoint {
        replica: ONE,
        creation: Bytes::from_static(b"x"),
        sequence: 9,
        kept: Vec::new(),
        position: LogPosition { segment: 3, byte: position },
        vote: None,
        purged: Some(id(2, 7)),
        lost: false,
    };
    for (position, lost) in [(5_000, false), (100, true)] {
        let mut found = Found::default();
        found.recovery_points(vec![point(position)]);
        found.damage(Damage { segment: 3, to: 4_096, lists_complete: false });
        let replica = found.replay(false, None, &AcceptLoss::Nothing).remove(0);
        assert_eq!(replica.lost.is_some(), lost, "recovery point at {position}");
    }
}
