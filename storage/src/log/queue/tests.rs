//! Fairness in bytes, priority, and what does not fit.

use bytes::Bytes;

use super::super::frame::Kind;
use super::*;

const ROOM: Room = Room { commit_bytes: 1 << 20, segment_bytes: 1 << 30 };

fn replica(id: u64, first: bool) -> Arc<Replica> {
    let replica = Arc::new(Replica::new(ReplicaId(id), Bytes::new()));
    replica.set_priority(first);
    replica
}

fn push(lanes: &mut Lanes, replica: &Arc<Replica>, sequence: u64, bytes: usize) {
    let payload = Bytes::from(vec![0; bytes - super::super::frame::HEAD_BYTES]);
    lanes.push(Queued::new(replica, sequence, RawFrame { payload, ..RawFrame::empty(Kind::Entry) }, Done::Ignored));
}

fn bytes_by_replica(frames: &[Queued]) -> BTreeMap<u64, usize> {
    let mut bytes = BTreeMap::new();
    frames.iter().for_each(|f| *bytes.entry(f.replica.id.0).or_insert(0) += f.bytes);
    bytes
}

#[test]
fn large_and_small_frames_get_equal_bytes() {
    let (large, small) = (replica(1, false), replica(2, false));
    let mut lanes = Lanes::default();
    for n in 0..40 {
        push(&mut lanes, &large, n, 256 << 10);
    }
    for n in 0..4000 {
        push(&mut lanes, &small, n, 4 << 10);
    }
    let mut total = BTreeMap::new();
    for _ in 0..8 {
        for (id, bytes) in bytes_by_replica(&lanes.pick(ROOM)) {
            *total.entry(id).or_insert(0) += bytes;
        }
    }
    let (a, b) = (total[&1], total[&2]);
    assert!(a.abs_diff(b) <= 512 << 10, "{a} against {b}");
}

/// Else the lane whose turn the end of a commit cuts would be served again and again, and the others never.
#[test]
fn a_turn_that_is_cut_goes_on_without_a_further_quantum() {
    let (one, other) = (replica(1, false), replica(2, false));
    let mut lanes = Lanes::default();
    for n in 0..40 {
        push(&mut lanes, &one, n, 48 << 10);
        push(&mut lanes, &other, n, 48 << 10);
    }
    // One frame fills each commit.
    let room = Room { commit_bytes: 64 << 10, ..ROOM };
    let served: Vec<u64> = (0..20).flat_map(|_| lanes.pick(room)).map(|frame| frame.replica.id.0).collect();
    let of_one = served.iter().filter(|id| **id == 1).count();
    assert_eq!(served.len(), 20);
    assert!((8..=12).contains(&of_one), "{served:?}");
}

#[test]
fn frames_of_a_replica_keep_their_order() {
    let one = replica(1, false);
    let mut lanes = Lanes::default();
    for n in 0..100 {
        push(&mut lanes, &one, n, 88 + 8 * usize::try_from(n % 7).unwrap_or(0) * 1000);
    }
    let mut sequences = Vec::new();
    while !lanes.is_empty() {
        sequences.extend(lanes.pick(Room { commit_bytes: 64 << 10, ..ROOM }).iter().map(|f| f.sequence));
    }
    assert_eq!(sequences, (0..100).collect::<Vec<_>>());
    assert_eq!(lanes.bytes, 0);
}

#[test]
fn priority_goes_first_but_leaves_three_quarters() {
    let (first, bulk) = (replica(1, true), replica(2, false));
    let mut lanes = Lanes::default();
    for n in 0..400 {
        push(&mut lanes, &bulk, n, 8 << 10);
        push(&mut lanes, &first, n, 8 << 10);
    }
    let frames = lanes.pick(ROOM);
    assert_eq!(frames[0].replica.id.0, 1);
    let bytes = bytes_by_replica(&frames);
    assert!(bytes[&1] <= 256 << 10, "{bytes:?}");
    assert!(bytes[&2] >= 700 << 10, "{bytes:?}");
}

#[test]
fn priority_alone_fills_the_commit() {
    let first = replica(1, true);
    let mut lanes = Lanes::default();
    for n in 0..400 {
        push(&mut lanes, &first, n, 8 << 10);
    }
    assert!(lanes.pick(ROOM).len() > 100);
}

#[test]
fn a_frame_above_the_commit_limit_goes_alone_and_one_above_the_segment_waits() {
    let one = replica(1, false);
    let mut lanes = Lanes::default();
    push(&mut lanes, &one, 1, 3 << 20);
    push(&mut lanes, &one, 2, 1 << 10);
    assert!(lanes.pick(Room { segment_bytes: 2 << 20, ..ROOM }).is_empty());
    assert_eq!(lanes.pick(ROOM).len(), 1);
    assert_eq!(lanes.pick(ROOM).len(), 1);
    assert!(lanes.is_empty());
}

#[test]
fn a_commit_waits_for_a_replica_only_while_ordinary_frames_are_all_there_is() {
    let queue = Queue::default();
    let (one, first) = (replica(1, false), replica(3, true));
    let expected = [ReplicaId(1), ReplicaId(2)];
    let lacks = |queue: &Queue| queue.lacks(&expected, Waker::noop());
    assert!(!lacks(&queue), "nothing waits");
    push(&mut queue.state.lock().lanes, &one, 1, 1_000);
    assert!(lacks(&queue));
    assert!(queue.state.lock().writer.is_some(), "the next frame wakes the writer");
    push(&mut queue.state.lock().lanes, &replica(2, false), 1, 1_000);
    assert!(!lacks(&queue), "both are here");
    let queue = Queue::default();
    push(&mut queue.state.lock().lanes, &one, 1, 1_000);
    push(&mut queue.state.lock().lanes, &first, 1, 1_000);
    assert!(!lacks(&queue), "what goes first does not wait");
}

/// A coordinator's large frame and what follows it must not be more than the segment holds: the writer would stop on
/// it.
#[test]
fn what_is_picked_never_exceeds_the_segment() {
    let (first, bulk) = (replica(1, true), replica(2, false));
    for rest in [100 << 10, 300 << 10, 1 << 20] {
        let mut lanes = Lanes::default();
        push(&mut lanes, &first, 1, 90 << 10);
        for n in 0..400 {
            push(&mut lanes, &bulk, n, 8 << 10);
        }
        let frames = lanes.pick(Room { commit_bytes: 4 << 20, segment_bytes: rest });
        assert_eq!(frames[0].replica.id.0, 1);
        let bytes: usize = bytes_by_replica(&frames).values().sum();
        assert!(bytes <= rest, "{bytes} bytes picked, the segment holds {rest}");
    }
}

/// A frame that fills the segment to its last byte is taken, however many replicas wait: it goes alone.
#[test]
fn a_frame_that_fits_alone_is_not_kept_back_by_those_that_wait() {
    let mut lanes = Lanes::default();
    for id in 1..=50 {
        push(&mut lanes, &replica(id, false), 1, 64 << 10);
    }
    let rest = (64 << 10) + HEADER_BYTES_PER_REPLICA;
    assert_eq!(lanes.largest_front_bytes(), 64 << 10);
    assert_eq!(lanes.pick(Room { segment_bytes: rest, ..ROOM }).len(), 1);
    assert!(lanes.pick(Room { segment_bytes: rest - 8, ..ROOM }).is_empty());
}
