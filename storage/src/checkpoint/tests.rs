//! The checkpoint on the simulated disk: replay against a model, a crash at every write and sync, flipped bits.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use ottla_protocol::ids::{Offset, PartitionId};
use parking_lot::Mutex;
use proptest::prelude::*;
use uuid::Uuid;

use super::Checkpoint;
use super::file::file_name;
use super::state::{Operation, ReplicaHead, State};
use crate::compact::Pass;
use crate::entry::Vote;
use crate::ids::{LogId, LogPosition, RaftIndex, ReplicaId, RunId, Term};
use crate::index::ExtentKey;
use crate::index::compacted::Compacted;
use crate::log::RecoveryPoint;
use crate::rewrite::RetentionClass;
use crate::runs::Listing;
use ottla_env::disk::Disk;
use ottla_env::sim;
use ottla_env::sim::disk::{Crash, DiskImage, SimDisk, SimDiskOptions, Tear};

const DIR: &str = "/data/state";

fn log_id(index: u64) -> LogId {
    LogId { term: Term(2), index: RaftIndex(index) }
}

fn head(replica: u64, applied: u64) -> ReplicaHead {
    ReplicaHead {
        recovery_point: RecoveryPoint {
            kept: Vec::new(),
            replica: ReplicaId(replica),
            creation: Bytes::from(format!("shard {replica}")),
            sequence: applied * 2,
            position: LogPosition { segment: applied / 10, byte: 64 },
            vote: (!applied.is_multiple_of(3)).then_some(Vote {
                term: Term(applied),
                voted_for: ReplicaId(1),
                committed: applied.is_multiple_of(2),
            }),
            purged: applied.checked_sub(5).map(log_id),
            lost: false,
        },
        applied: Some(log_id(applied)),
        membership: Bytes::from(vec![7; 20]),
        checksum: applied * 31,
    }
}

#[derive(Debug, Clone)]
struct Transaction {
    replica: u64,
    puts: Vec<(u8, usize)>,
    deletes: Vec<u8>,
    remove: bool,
    log_start: i64,
    rotate: bool,
}

fn transaction() -> impl Strategy<Value = Transaction> {
    let puts = prop::collection::vec((any::<u8>(), 0..3000usize), 0..8);
    let rest = (
        0..3u64,
        prop::collection::vec(any::<u8>(), 0..4),
        prop::bool::weighted(0.05),
        any::<i64>(),
        prop::bool::weighted(0.1),
    );
    (puts, rest).prop_map(|(puts, (replica, deletes, remove, log_start, rotate))| Transaction {
        replica,
        puts,
        deletes,
        remove,
        log_start,
        rotate,
    })
}

fn operations(number: u64, transaction: &Transaction) -> Vec<Operation> {
    let replica = ReplicaId(transaction.replica);
    let partition = PartitionId { topic: Uuid::from_u128(4), index: i32::from(transaction.rotate) };
    let key = ExtentKey::of(replica, partition);
    if transaction.remove {
        return vec![Operation::Remove(replica), Operation::Forget(key)];
    }
    let mut operations = vec![Operation::Replica(head(transaction.replica, number))];
    operations.extend(transaction.puts.iter().map(|(key, length)| Operation::Put {
        replica,
        key: Bytes::from(vec![*key]),
        value: Bytes::from(vec![*key ^ 0x55; *length]),
    }));
    operations
        .extend(transaction.deletes.iter().map(|key| Operation::Delete { replica, key: Bytes::from(vec![*key]) }));
    operations.push(Operation::LogStart(key, Offset(transaction.log_start)));
    let run = Listing {
        id: RunId(number),
        lineage: key.lineage,
        incarnation: number ^ 0xabc,
        bytes: number << 20,
        batch_bytes: number << 19,
        class: RetentionClass(number as u8),
        rewrites: 1,
    };
    let pass = Pass { horizon: Offset(transaction.log_start), cutoff: Offset(transaction.log_start / 2) };
    let imported = (0..number % 3).map(RunId).collect();
    operations.push(Operation::Compacted(key, Compacted { number, pass, first_run: RunId(number), imported }));
    operations.extend([Operation::Run(run), Operation::NextRun(RunId(number + 1)), Operation::Rewritten(number)]);
    operations.extend([Operation::DropRun(RunId(number / 2)), Operation::Unlinked(number.saturating_sub(3))]);
    operations
}

fn disk(seed: u64, tear: Tear) -> (SimDisk, Arc<dyn Disk>) {
    let sim = SimDisk::new(seed, SimDiskOptions { tear, ..SimDiskOptions::default() });
    let disk: Arc<dyn Disk> = Arc::new(sim.clone());
    disk.create_dir_all(Path::new(DIR)).unwrap();
    (sim, disk)
}

async fn open(disk: &Arc<dyn Disk>) -> (Checkpoint, State) {
    let found = Checkpoint::open(disk, Path::new(DIR)).await.unwrap();
    (found.checkpoint, found.state)
}

/// The disk at every write and sync, with the number of transactions that were durable for certain by then.
type Moments = Arc<Mutex<(usize, Vec<(usize, DiskImage)>)>>;

/// Runs the transactions; the states after each, and every moment at which a crash can come.
async fn run(seed: u64, tear: Tear, transactions: &[Transaction]) -> (Vec<State>, Moments, SimDisk) {
    let (sim, disk) = disk(seed, tear);
    let (mut checkpoint, mut state) = open(&disk).await;
    let moments: Moments = Arc::default();
    let seen = Arc::clone(&moments);
    sim.observe(move |_, image| {
        let mut seen = seen.lock();
        let durable = seen.0;
        seen.1.push((durable, image));
    });
    let mut states = vec![state.clone()];
    for (number, transaction) in transactions.iter().enumerate() {
        let operations = operations(number as u64, transaction);
        for operation in operations.clone() {
            assert!(state.apply(operation));
        }
        states.push(state.clone());
        checkpoint.commit(operations, number as u64, transaction.rotate).await.unwrap();
        moments.lock().0 = number + 1;
    }
    sim.stop_observing();
    (states, moments, sim)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn a_crash_at_any_write_or_sync_leaves_the_last_durable_transaction_or_the_one_under_way(
        transactions in prop::collection::vec(transaction(), 1..25), seed in any::<u64>(),
    ) {
        let tear = [Tear::Pages, Tear::Sectors, Tear::Garbage][usize::try_from(seed % 3).unwrap()];
        sim::run(seed, move || async move {
            let (states, moments, _) = run(seed, tear, &transactions).await;
            let moments = std::mem::take(&mut moments.lock().1);
            assert!(moments.len() > transactions.len());
            for (number, (durable, image)) in moments.into_iter().enumerate() {
                for crash in [Crash::Process, Crash::Power] {
                    let disk: Arc<dyn Disk> = Arc::new(image.crash(crash, seed ^ number as u64));
                    let (mut checkpoint, state) = open(&disk).await;
                    let next = states.get(durable + 1);
                    assert!(state == states[durable] || Some(&state) == next, "moment {number}, {crash:?}");
                    // The next process continues from there.
                    let more = operations(99, &transactions[0]);
                    checkpoint.commit(more.clone(), 1, number % 2 == 0).await.unwrap();
                    let mut expected = state;
                    assert!(more.into_iter().all(|operation| expected.apply(operation)));
                    assert_eq!(open(&disk).await.1, expected, "moment {number}, {crash:?}");
                }
            }
        });
    }

    #[test]
    fn a_flipped_bit_costs_transactions_but_never_the_older_generation(
        transactions in prop::collection::vec(transaction(), 8..25), seed in any::<u64>(), at in any::<prop::sample::Index>(),
    ) {
        sim::run(seed, move || async move {
            let (states, _, sim) = run(seed, Tear::Pages, &transactions).await;
            let disk: Arc<dyn Disk> = Arc::new(sim.clone());
            let (checkpoint, _) = open(&disk).await;
            let oldest = checkpoint.older().cloned();
            let newest = checkpoint.current.number;
            let byte = at.index(usize::try_from(checkpoint.current.end()).unwrap()) as u64;
            drop(checkpoint);
            sim.flip_bit(&Path::new(DIR).join(file_name(newest)), byte, (seed % 8) as u8).unwrap();
            let (after, state) = open(&disk).await;
            let position = states.iter().rposition(|known| *known == state).expect("a state that was");
            let oldest_kept = states.iter().position(|known| Some(super::Kept::of(known)) == oldest).unwrap_or(0);
            assert!(position >= oldest_kept, "nothing that the older generation holds is lost");
            drop(after);
        });
    }
}

#[test]
fn a_delta_that_does_not_fit_becomes_a_new_base_and_written_bytes_stay_bounded() {
    sim::run(5, || async {
        let (_, disk) = disk(5, Tear::Pages);
        let (mut checkpoint, _) = open(&disk).await;
        let mut logical = 0;
        for round in 0..200u64 {
            let value = Bytes::from(vec![1; 64 << 10]);
            let put =
                |key: u8| Operation::Put { replica: ReplicaId(1), key: Bytes::from(vec![key]), value: value.clone() };
            let operations = vec![Operation::Replica(head(1, round)), put((round % 8) as u8)];
            logical += 64 << 10;
            checkpoint.commit(operations, 0, false).await.unwrap();
        }
        assert!(checkpoint.written_bytes() < 3 * logical, "{} for {logical}", checkpoint.written_bytes());
        let big = Bytes::from(vec![2; 9 << 20]);
        let operation = Operation::Put { replica: ReplicaId(1), key: Bytes::from_static(b"big"), value: big.clone() };
        checkpoint.commit(vec![operation], 0, false).await.unwrap();
        let (_, state) = open(&disk).await;
        assert_eq!(state.replicas[&ReplicaId(1)].keys[b"big".as_slice()], big);
        let files = disk.list(Path::new(DIR)).unwrap();
        assert!(files.len() <= 2, "{files:?}");
    });
}

#[test]
fn a_failed_sync_of_the_checkpoint_is_an_error_and_a_full_disk_is_not_while_deltas_fit() {
    sim::run(6, || async {
        let (sim, disk) = disk(6, Tear::Pages);
        let (mut checkpoint, _) = open(&disk).await;
        checkpoint.commit(vec![Operation::Replica(head(1, 1))], 0, false).await.unwrap();
        checkpoint.commit(vec![Operation::Replica(head(1, 2))], 0, false).await.unwrap();
        sim.set_capacity(1);
        checkpoint.commit(vec![Operation::Replica(head(1, 3))], 0, true).await.unwrap();
        assert_eq!(checkpoint.heads()[&ReplicaId(1)], head(1, 3));
        sim.set_capacity(1 << 30);
        checkpoint.commit(vec![Operation::Replica(head(1, 4))], 0, true).await.unwrap();
        assert_eq!(checkpoint.oldest().unwrap()[&ReplicaId(1)], head(1, 4));
        sim.fail_sync_in(0);
        assert!(checkpoint.commit(vec![Operation::Replica(head(1, 5))], 0, false).await.is_err());
    });
}

/// Whole transactions lie after a damaged one. The next that is written takes its number and perhaps exactly its space:
/// those after it must not be read again.
#[test]
fn what_lies_behind_a_damaged_delta_never_comes_back() {
    sim::run(7, || async {
        let (sim, disk) = disk(7, Tear::Pages);
        let put = |key: u8| {
            let put =
                Operation::Put { replica: ReplicaId(1), key: Bytes::from(vec![key]), value: Bytes::from(vec![key]) };
            vec![Operation::Replica(head(1, u64::from(key))), put]
        };
        let (mut checkpoint, _) = open(&disk).await;
        for key in 1..8 {
            checkpoint.commit(put(key), 0, false).await.unwrap();
        }
        drop(checkpoint);
        let newest = disk.list(Path::new(DIR)).unwrap().into_iter().map(|entry| entry.name).max().unwrap();
        // A page of header, one of base, then one for each delta: the second of them.
        sim.flip_bit(&Path::new(DIR).join(newest), 3 * 4096 + 50, 1).unwrap();
        let (mut checkpoint, before) = open(&disk).await;
        assert!(before.replicas[&ReplicaId(1)].head.applied < Some(log_id(7)));
        checkpoint.commit(put(9), 0, false).await.unwrap();
        let (mut checkpoint, after) = open(&disk).await;
        let replica = &after.replicas[&ReplicaId(1)];
        assert_eq!(replica.head.applied, Some(log_id(9)));
        let mut keys = before.replicas[&ReplicaId(1)].keys.clone();
        keys.insert(Bytes::from(vec![9]), Bytes::from(vec![9]));
        assert_eq!(replica.keys, keys);
        checkpoint.commit(put(10), 0, true).await.unwrap();
    });
}

/// A latent sector error in a generation costs that generation, or what stands behind it, and never the start.
#[test]
fn a_page_that_cannot_be_read_counts_as_damaged() {
    // Of the newest generation: header, base, the delta of 6, the delta of 7; then any page of the older one.
    for (page, is_newest, expected) in
        [(0, true, 5), (1, true, 5), (2, true, 5), (3, true, 6), (0, false, 7), (1, false, 7)]
    {
        sim::run(9, move || async move {
            let (sim, disk) = disk(9, Tear::Pages);
            let (mut checkpoint, _) = open(&disk).await;
            for applied in 1..8 {
                let rotate = applied == 4 || applied == 5;
                checkpoint.commit(vec![Operation::Replica(head(1, applied))], 0, rotate).await.unwrap();
            }
            drop(checkpoint);
            let mut names: Vec<_> = disk.list(Path::new(DIR)).unwrap().into_iter().map(|entry| entry.name).collect();
            names.sort();
            let name = if is_newest { names.pop() } else { names.first().cloned() };
            sim.make_unreadable(&Path::new(DIR).join(name.unwrap()), page * 4096).unwrap();
            let (mut checkpoint, found) = open(&disk).await;
            assert_eq!(found.replicas[&ReplicaId(1)].head.applied, Some(log_id(expected)), "page {page}, {is_newest}");
            checkpoint.commit(vec![Operation::Replica(head(1, 9))], 0, false).await.unwrap();
            let (_, found) = open(&disk).await;
            assert_eq!(found.replicas[&ReplicaId(1)].head.applied, Some(log_id(9)), "page {page}, {is_newest}");
        });
    }
}

/// Found by the simulation (seed 8425): what only it had needed was unlinked for good by then.
#[test]
fn a_generation_that_was_let_go_does_not_come_back_when_the_power_fails() {
    for seed in 0..20 {
        sim::run(seed, move || async move {
            let sim = SimDisk::new(seed, SimDiskOptions::default());
            let disk: Arc<dyn Disk> = Arc::new(sim.clone());
            let dir = Path::new(DIR);
            disk.create_dir_all(dir).unwrap();
            disk.sync_dir(Path::new("/data")).unwrap();
            let mut found = Checkpoint::open(&disk, dir).await.unwrap();
            for applied in 1..=4 {
                found.checkpoint.commit(vec![Operation::Replica(head(1, applied))], 0, true).await.unwrap();
                let names = |disk: &dyn Disk| -> Vec<String> {
                    disk.list(dir).unwrap().into_iter().map(|entry| entry.name).collect()
                };
                let crashed = sim.image().crash(Crash::Power, seed);
                assert_eq!(names(&crashed), names(&*disk));
            }
        });
    }
}
