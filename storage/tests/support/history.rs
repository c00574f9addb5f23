//! A long random history over one log: appends of many replicas, truncations, votes, purges, verdicts, creations, removals,
//! rolls of small segments, unlinks.

use std::sync::Arc;
use std::time::Duration;

use ottla_env::rt;
use ottla_storage::entry::Vote;
use ottla_storage::ids::{ReplicaId, Term};
use ottla_storage::log::{GroupCreation, Log, LogOptions, RecoveryPoint, ReplicaLog};
use parking_lot::Mutex;

use super::{ModelState, Op, Oracle, Rng, entry, log_id, verdicts};

/// Options under which everything happens often.
pub fn small_options(fresh_page: Option<bool>) -> LogOptions {
    LogOptions {
        segment_bytes: 64 << 10,
        commit_bytes_max: 16 << 10,
        cache_bytes_max: 20 << 10,
        prepared_segments: 1,
        zero_ahead_bytes_per_second: 0,
        reserve_bytes: 0,
        fresh_page_per_commit: fresh_page,
        quiet_bytes: 20 << 10,
        ..LogOptions::default()
    }
}

/// The recovery points that a checkpoint made durable last.
pub type RecoveryPoints = Arc<Mutex<Vec<RecoveryPoint>>>;

/// One replica's driver.
struct Driver {
    log: Log,
    replica: ReplicaLog,
    oracle: Oracle,
    state: ModelState,
    term: u64,
    rng: Rng,
}

pub async fn create(log: &Log, oracle: &Oracle, id: u64, seeded: bool) -> Option<ReplicaLog> {
    let creation = GroupCreation {
        replica: ReplicaId(id),
        payload: bytes::Bytes::from(format!("group of {id}")),
        vote: seeded.then_some(Vote { term: Term(3), voted_for: ReplicaId(id), committed: false }),
        purged: seeded.then_some(log_id(2, 40)),
    };
    let number = oracle.asked(ReplicaId(id), Op::Create(creation.clone()));
    let replica = log.create_group(creation).await.ok()?;
    oracle.acked(ReplicaId(id), number);
    Some(replica)
}

impl Driver {
    fn next_index(&self) -> u64 {
        self.state.last().map_or(1, |id| id.index.0 + 1)
    }

    fn ask(&mut self, op: Op) -> usize {
        self.state.apply(&op);
        self.oracle.asked(self.replica.id(), op)
    }

    async fn step(&mut self) -> bool {
        match self.rng.below(20) {
            0..=10 => self.append(None).await,
            11 => self.overwrite().await,
            12..=13 => self.vote().await,
            14 => self.truncate().await,
            15..=16 => self.purge().await,
            17..=18 => self.verdicts().await,
            _ => {
                rt::sleep(Duration::from_micros(self.rng.below(900))).await;
                true
            }
        }
    }

    async fn append(&mut self, from: Option<u64>) -> bool {
        let first = from.unwrap_or_else(|| self.next_index());
        let count = 1 + self.rng.below(4);
        let id = self.replica.id();
        let mut entries = Vec::new();
        let mut number = 0;
        for index in first..first + count {
            let entry = entry(self.term, index, &mut self.rng);
            number = self.ask(Op::Append(entry.clone()));
            entries.push(entry);
        }
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let oracle = self.oracle.clone();
        self.replica.append(
            entries,
            Box::new(move |result| {
                if result.is_ok() {
                    oracle.acked(id, number);
                }
                let _ = sender.send(result.is_ok());
            }),
        );
        // Readable at once, whether durable or not.
        if self.rng.below(4) == 0 {
            let state = super::state_of(&self.log, id).await;
            assert_eq!(state.entries, self.state.entries);
        }
        if self.rng.below(2) == 0 { receiver.await.unwrap_or(false) } else { true }
    }

    async fn overwrite(&mut self) -> bool {
        let first = self.state.purged.map_or(1, |id| id.index.0 + 1);
        let last = self.next_index();
        self.term += 1;
        let from = first + self.rng.below(last - first + 1);
        self.append(Some(from)).await
    }

    async fn vote(&mut self) -> bool {
        self.term += self.rng.below(2);
        // Raft votes for one candidate a term; which one, differs from term to term.
        let term = self.term.max(4);
        let vote = Vote { term: Term(term), voted_for: ReplicaId(term % 3), committed: self.rng.below(2) == 0 };
        if self.state.vote.is_some_and(|old| (old.term, old.committed) > (vote.term, vote.committed)) {
            return true;
        }
        let number = self.ask(Op::Vote(vote));
        let saved = self.replica.save_vote(vote).await.is_ok();
        if saved {
            self.oracle.acked(self.replica.id(), number);
        }
        saved
    }

    async fn truncate(&mut self) -> bool {
        let first = self.state.purged.map_or(1, |id| id.index.0 + 1);
        let keep = first + self.rng.below(self.next_index() - first + 1);
        let last = self.state.entries.get(&keep).map(|entry| entry.log_id).or(self.state.purged);
        let number = self.ask(Op::Truncate(last));
        self.term += 1;
        let done = self.replica.truncate_after(last).await.is_ok();
        if done {
            self.oracle.acked(self.replica.id(), number);
        }
        done
    }

    async fn purge(&mut self) -> bool {
        // Raft purges what is applied and in a checkpoint, so it is durable.
        let synced = self.replica.last_synced().map_or(0, |id| id.index.0);
        let durable: Vec<_> = self.state.entries.range(..=synced).map(|(_, entry)| entry.log_id).collect();
        let skip = self.rng.below(durable.len() as u64 + 1) as usize;
        let upto = match durable.get(skip).copied() {
            Some(id) => id,
            // Now and then further than the log goes, as a snapshot does.
            None if self.rng.below(8) == 0 => log_id(self.term, self.next_index() + 5),
            None => return true,
        };
        if self.state.purged >= Some(upto) {
            return true;
        }
        let number = self.ask(Op::Purge(upto));
        let done = self.replica.purge(upto).await.is_ok();
        if done {
            self.oracle.acked(self.replica.id(), number);
        }
        done
    }

    async fn verdicts(&mut self) -> bool {
        let index = self.next_index();
        let verdicts: Vec<_> = (0..1 + self.rng.below(3)).map(|n| verdicts(index + n, &mut self.rng)).collect();
        let number = self.ask(Op::Verdicts(verdicts.clone()));
        let done = self.replica.write_verdicts(verdicts).await.is_ok();
        if done {
            self.oracle.acked(self.replica.id(), number);
        }
        done
    }
}

/// Drives one replica for so many steps; goes on from what the log says.
pub async fn drive(log: Log, oracle: Oracle, replica: ReplicaLog, steps: u64, seed: u64) -> bool {
    let state = super::state_of(&log, replica.id()).await;
    let known = state.last().map_or(0, |id| id.term.0).max(state.vote.map_or(0, |vote| vote.term.0));
    let mut driver = Driver { log, replica, oracle, state, term: known + 1, rng: Rng(seed) };
    for _ in 0..steps {
        if !driver.step().await {
            return false;
        }
    }
    true
}

/// Takes checkpoints (recovery points) and unlinks what they allow, until `stop`.
pub async fn checkpoint(log: Log, recovery_points: RecoveryPoints, rounds: u64, seed: u64) {
    let mut rng = Rng(seed);
    for _ in 0..rounds {
        rt::sleep(Duration::from_micros(500 + rng.below(3000))).await;
        let taken = log.recovery_points();
        // The checkpoint is durable before anything that it makes unnecessary goes.
        *recovery_points.lock() = taken.clone();
        for segment in log.segments() {
            if segment.sealed && rng.below(2) == 0 {
                let _ = log.unlink(segment.sequence).await;
            }
        }
    }
}

/// A whole history with `replicas` replicas, more being made and removed on the way.
pub async fn run(log: &Log, oracle: &Oracle, recovery_points: &RecoveryPoints, replicas: u64, steps: u64, seed: u64) {
    let mut rng = Rng(seed);
    let mut tasks = Vec::new();
    for id in 1..=replicas {
        let (log, oracle, seed) = (log.clone(), oracle.clone(), rng.next());
        tasks.push(rt::spawn(async move {
            rt::sleep(Duration::from_micros(seed % 4000)).await;
            let Some(replica) = create(&log, &oracle, id, seed % 3 == 0).await else { return };
            replica.set_priority(id % 4 == 0);
            let whole = drive(log.clone(), oracle.clone(), replica, steps, seed).await;
            if whole && seed % 4 == 1 {
                let number = oracle.asked(ReplicaId(id), Op::Remove);
                if log.remove_group(ReplicaId(id)).await.is_ok() {
                    oracle.acked(ReplicaId(id), number);
                }
            }
        }));
    }
    let checkpoints = rt::spawn(checkpoint(log.clone(), recovery_points.clone(), steps / 8, rng.next()));
    for task in tasks {
        task.await.unwrap();
    }
    checkpoints.abort();
}
