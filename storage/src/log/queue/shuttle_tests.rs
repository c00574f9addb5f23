//! The hand-over to the writer under many orders of its threads: `cargo test -p ottla-storage --features shuttle shuttle_`.
//!
//! No append waits for ever (shuttle takes that for a deadlock), no result precedes the sync, each is reported once, and
//! a replica in the order of its frames.

#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use shuttle::{check_pct, check_random, future, thread};

use super::super::frame::Kind;
use super::*;

const ITERATIONS: usize = 2_000;
const ROOM: Room = Room { commit_bytes: 200, segment_bytes: 1 << 20 };

/// Every reported result: replica, sequence, whether it succeeded, and whether anything was synced by then.
type Told = Arc<std::sync::Mutex<Vec<(u64, u64, bool, bool)>>>;

fn frame(replica: &Arc<Replica>, sequence: u64, synced: &Arc<AtomicU64>, told: &Told) -> Queued {
    let (synced, told, id) = (Arc::clone(synced), Arc::clone(told), replica.id.0);
    let on_synced = move |outcome: io::Result<()>| {
        let after_sync = synced.load(Ordering::SeqCst) > 0;
        told.lock().unwrap().push((id, sequence, outcome.is_ok(), after_sync));
    };
    Queued::new(replica, sequence, RawFrame::empty(Kind::Entry), Done::Callback(Some(Box::new(on_synced))))
}

/// As the log's writer does it: takes the queued frames, syncs, reports. Fails at the sync of commit `fails_at`.
async fn write(queue: &Queue, synced: &AtomicU64, fails_at: u64) -> u64 {
    let mut commits = 0;
    loop {
        queue.some().await;
        let frames = match queue.next(ROOM).await {
            Work::Frames(frames) => frames,
            Work::Roll { .. } | Work::EndSegment(_) => panic!("there is room"),
            Work::Closed => break,
        };
        commits += 1;
        if commits == fails_at {
            let failure = LogFailure { operation: "sync", kind: io::ErrorKind::Other, message: "EIO".into() };
            let waiting = queue.fail(failure.clone());
            frames.into_iter().chain(waiting).for_each(|queued| queued.done.report(Err(&failure)));
            return commits;
        }
        synced.fetch_add(1, Ordering::SeqCst);
        thread::yield_now();
        frames.into_iter().for_each(|queued| queued.done.report(Ok(LogPosition { segment: 1, byte: 0 })));
    }
    let failure = closed();
    queue.fail(failure.clone()).into_iter().for_each(|queued| queued.done.report(Err(&failure)));
    commits
}

/// Three replicas push, one of them with priority, each several times; a refused one reports by itself.
fn hand_over(fails_at: u64) {
    let (queue, synced, told) = (Arc::new(Queue::default()), Arc::new(AtomicU64::new(0)), Told::default());
    let pushers: Vec<_> = (1..=3_u64)
        .map(|id| {
            let (queue, synced, told) = (Arc::clone(&queue), Arc::clone(&synced), Arc::clone(&told));
            thread::spawn(move || {
                let replica = Arc::new(Replica::new(ReplicaId(id), Bytes::new()));
                replica.set_priority(id == 1);
                for sequence in [1, 3] {
                    let frames = (0..2).map(|n| frame(&replica, sequence + n, &synced, &told)).collect();
                    match queue.push(frames) {
                        Ok(bell) => drop(bell),
                        Err((failure, frames)) => frames.into_iter().for_each(|f| f.done.report(Err(&failure))),
                    }
                }
            })
        })
        .collect();
    let writer = {
        let (queue, synced) = (Arc::clone(&queue), Arc::clone(&synced));
        thread::spawn(move || future::block_on(write(&queue, &synced, fails_at)))
    };
    pushers.into_iter().for_each(|pusher| pusher.join().unwrap());
    drop(queue.close());
    writer.join().unwrap();
    let told = told.lock().unwrap().clone();
    for id in 1..=3 {
        let own = told.iter().filter(|(of, ..)| *of == id);
        let own: Vec<(u64, bool)> = own.map(|(_, sequence, ok, _)| (*sequence, *ok)).collect();
        let durable: Vec<u64> = own.iter().filter(|(_, ok)| *ok).map(|(n, _)| *n).collect();
        assert!(durable.iter().copied().eq(1..=durable.len() as u64), "durable, with gaps or out of order: {own:?}");
        let mut all: Vec<u64> = own.iter().map(|(n, _)| *n).collect();
        all.sort_unstable();
        assert_eq!(all, [1, 2, 3, 4], "replica {id} was told {own:?}");
        assert!(fails_at > 0 || durable.len() == 4, "{own:?}");
    }
    assert!(told.iter().all(|(.., ok, after_sync)| !ok || *after_sync), "told before anything was synced");
    assert!(queue.state.lock().lanes.is_empty(), "frames that nobody will be told of");
}

#[test]
fn shuttle_everybody_is_told_once_after_the_sync() {
    check_random(|| hand_over(0), ITERATIONS);
    check_pct(|| hand_over(0), ITERATIONS, 3);
}

#[test]
fn shuttle_a_failed_sync_is_told_to_everybody_who_waits_or_comes_later() {
    check_random(|| hand_over(1), ITERATIONS);
    check_random(|| hand_over(2), ITERATIONS);
}

/// One replica waits for each of its frames before it brings the next, as Raft's log store does; the writer waits for
/// it a moment if it lacks it.
#[test]
fn shuttle_a_writer_that_gathers_is_woken_by_the_next_frame() {
    let scenario = || {
        let (queue, synced, told) = (Arc::new(Queue::default()), Arc::new(AtomicU64::new(0)), Told::default());
        let expected = [ReplicaId(1), ReplicaId(2)];
        let pushers: Vec<_> = (1..=2_u64)
            .map(|id| {
                let (queue, synced, told) = (Arc::clone(&queue), Arc::clone(&synced), Arc::clone(&told));
                thread::spawn(move || {
                    let replica = Arc::new(Replica::new(ReplicaId(id), Bytes::new()));
                    let frame = frame(&replica, 1, &synced, &told);
                    drop(queue.push(vec![frame]).unwrap_or_else(|_| panic!("it is open")));
                })
            })
            .collect();
        let gathered = {
            let queue = Arc::clone(&queue);
            thread::spawn(move || {
                future::block_on(async {
                    queue.some().await;
                    // Without a time limit: only the frames themselves can end this wait.
                    poll_fn(|cx| if queue.lacks(&expected, cx.waker()) { Poll::Pending } else { Poll::Ready(()) })
                        .await;
                    match queue.next(Room { commit_bytes: 1 << 20, ..ROOM }).await {
                        Work::Frames(frames) => {
                            synced.fetch_add(1, Ordering::SeqCst);
                            let count = frames.len();
                            frames.into_iter().for_each(|f| f.done.report(Ok(LogPosition { segment: 1, byte: 0 })));
                            count
                        }
                        _ => 0,
                    }
                })
            })
        };
        pushers.into_iter().for_each(|pusher| pusher.join().unwrap());
        assert_eq!(gathered.join().unwrap(), 2, "both replicas are in one commit");
    };
    check_random(scenario, ITERATIONS);
}

/// A segment is to end while nothing is written, or something is: the writer hears of it, before the log is closed.
#[test]
fn shuttle_a_writer_hears_of_a_segment_that_is_to_end() {
    let scenario = || {
        let (queue, synced, told) = (Arc::new(Queue::default()), Arc::new(AtomicU64::new(0)), Told::default());
        let pusher = {
            let (queue, synced, told) = (Arc::clone(&queue), Arc::clone(&synced), Arc::clone(&told));
            thread::spawn(move || {
                let replica = Arc::new(Replica::new(ReplicaId(1), Bytes::new()));
                let frame = frame(&replica, 1, &synced, &told);
                drop(queue.push(vec![frame]).unwrap_or_else(|_| panic!("it is open")));
            })
        };
        let ender = {
            let queue = Arc::clone(&queue);
            thread::spawn(move || drop(queue.end_segment(7)))
        };
        let writer = {
            let queue = Arc::clone(&queue);
            thread::spawn(move || {
                future::block_on(async {
                    let (mut ended, mut frames) = (Vec::new(), 0);
                    while ended.is_empty() || frames == 0 {
                        queue.some().await;
                        match queue.next(ROOM).await {
                            Work::Frames(taken) => frames += taken.len(),
                            Work::EndSegment(segment) => ended.push(segment),
                            Work::Roll { .. } | Work::Closed => panic!("there is room, and it is open"),
                        }
                    }
                    (ended, frames)
                })
            })
        };
        pusher.join().unwrap();
        ender.join().unwrap();
        assert_eq!(writer.join().unwrap(), (vec![7], 1));
    };
    check_random(scenario, ITERATIONS);
}
