//! The history of a run in the words of `ottla-checker`: what clients invoked and what they were answered, checked when
//! the run is over.
//!
//! May not know: what clients do, and what makes a history wrong.

use std::collections::BTreeMap;

use ottla_checker::event::{Action, Event, FullRead, GroupOffset, Phase, Polled, Record, Sent};
use ottla_checker::{BadEvent, Recorder, Verdict, check};
use ottla_env::sim;

use crate::laws::Violation;
use crate::registry::PARTITIONS;

const LAW: &str = "the checker of histories";
/// The checker's numbers of groups: committed offsets are numbered by group, then by partition, apart from records.
type Groups = BTreeMap<String, u32>;

/// A history while it is recorded.
#[derive(Default)]
pub(crate) struct History {
    recorder: Recorder,
    processes: u32,
    /// Processes (in Jepsen's sense) without an open operation.
    idle: Vec<u32>,
    /// Batches whose producers have no answer yet, by partition and first value, and the processes that send them.
    open: BTreeMap<(i32, u64), u32>,
    groups: Groups,
    bad: Option<BadEvent>,
}

/// Partitions as the checker numbers them.
fn partition(index: i32) -> u32 {
    u32::try_from(index).unwrap_or(0)
}

fn sent(index: i32, values: &[u64], base_offset: Option<i64>) -> Action {
    let one = |(at, value): (u64, &u64)| Sent {
        partition: partition(index),
        value: *value,
        offset: base_offset.map(|base| base.unsigned_abs() + at),
        ..Sent::default()
    };
    Action::Send((0..).zip(values).map(one).collect())
}

fn records(index: i32, records: impl Iterator<Item = (i64, u64)>) -> Vec<Record> {
    let one =
        |(offset, value): (i64, u64)| Record { partition: partition(index), offset: offset.unsigned_abs(), value };
    records.map(one).collect()
}

impl History {
    /// A new process.
    pub(crate) fn process(&mut self) -> u32 {
        self.processes += 1;
        self.processes - 1
    }

    /// Adds an event; each process is a client of its own, with the same number.
    fn push(&mut self, process: u32, phase: Phase, action: Action) {
        let time = u64::try_from(sim::elapsed().as_nanos()).unwrap_or(u64::MAX);
        if let Err(bad) = self.recorder.push(Event { time, process, client: process, phase, action }) {
            self.bad.get_or_insert(bad);
        }
    }

    /// A batch is sent for the first time; a retry with the same sequence is the same operation.
    pub(crate) fn sends(&mut self, index: i32, values: &[u64]) {
        let Some(first) = values.first().copied() else { return };
        let process = self.idle.pop().unwrap_or_else(|| self.process());
        self.open.insert((index, first), process);
        self.push(process, Phase::Invoke, sent(index, values, None));
    }

    /// The producer of a batch got its offset.
    pub(crate) fn was_sent(&mut self, index: i32, values: &[u64], base_offset: i64) {
        let Some(process) = values.first().and_then(|first| self.open.remove(&(index, *first))) else { return };
        self.push(process, Phase::Ok, sent(index, values, Some(base_offset)));
        self.idle.push(process);
    }

    /// A consumer that continues at its position is given these records.
    pub(crate) fn polled(&mut self, process: u32, index: i32, given: &[(i64, u64)]) {
        let records = records(index, given.iter().copied());
        self.push(process, Phase::Invoke, Action::Poll(Polled::default()));
        self.push(process, Phase::Ok, Action::Poll(Polled { records, ..Polled::default() }));
    }

    /// The final read of a whole partition, from its log start to its end.
    pub(crate) fn read(&mut self, index: i32, held: &BTreeMap<i64, u64>, (start, end): (i64, i64)) {
        let process = self.process();
        let begins = Action::LogStart { partition: partition(index), offset: start.unsigned_abs() };
        self.push(process, Phase::Ok, begins);
        let records = records(index, held.iter().map(|(offset, value)| (*offset, *value)));
        let read = FullRead { records, ends: vec![(partition(index), end.unsigned_abs())], ..FullRead::default() };
        self.push(process, Phase::Invoke, Action::Read(FullRead::default()));
        self.push(process, Phase::Ok, Action::Read(read));
    }

    fn of_group(&mut self, group: &str, index: i32, generation: Option<i32>, offset: Option<i64>) -> GroupOffset {
        let next = u32::try_from(self.groups.len()).unwrap_or(0);
        let group = *self.groups.entry(group.to_owned()).or_insert(next);
        let generation = generation.map(|generation| u32::try_from(generation).unwrap_or(0));
        GroupOffset { group, generation, partition: partition(index), offset: offset.map(i64::unsigned_abs) }
    }

    /// A member commits an offset (`Invoke`), or gets the outcome.
    pub(crate) fn commits(&mut self, process: u32, phase: Phase, (group, generation): (&str, i32), at: (i32, i64)) {
        let of = self.of_group(group, at.0, Some(generation), Some(at.1));
        self.push(process, phase, Action::Commit(of));
    }

    /// A member fetches a committed offset (`Invoke`), or gets it, or gets that there is none.
    pub(crate) fn fetches(&mut self, process: u32, phase: Phase, group: &str, at: (i32, Option<i64>)) {
        let of = self.of_group(group, at.0, None, at.1);
        self.push(process, phase, Action::Fetch(of));
    }
}

/// Has the history checked.
pub(crate) fn judge(history: History) -> Result<(), Violation> {
    let History { recorder, bad, .. } = history;
    if let Some(bad) = bad {
        return Err(Violation::new(LAW, None, format!("what was written down is no history: {bad}")));
    }
    let report = check(&recorder.finish());
    if report.verdict != Verdict::Invalid {
        return Ok(());
    }
    let first = report.findings.first();
    let concerned = first.and_then(|finding| i32::try_from(finding.partition?).ok());
    let partition = concerned.filter(|index| *index < PARTITIONS);
    let what = first.map_or(String::new(), |finding| format!("{:?}: {}", finding.law, finding.sentence));
    Err(Violation::new(LAW, partition, format!("{what} (broken: {:?})", report.broken)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The verdict on a history that is recorded in a simulation of its own.
    fn judged(make: impl FnOnce(&mut History) + Send + 'static) -> Result<(), Violation> {
        let run = async move {
            let mut history = History::default();
            make(&mut history);
            judge(history)
        };
        sim::run(1, move || run).output
    }

    #[test]
    fn a_sound_history_is_sound() {
        let sound = judged(|history| {
            history.sends(0, &[7, 8]);
            history.was_sent(0, &[7, 8], 0);
            history.sends(0, &[9]);
            let reader = history.process();
            history.polled(reader, 0, &[(0, 7), (1, 8)]);
            history.polled(reader, 0, &[(2, 9)]);
            history.read(0, &[(1, 8), (2, 9)].into(), (1, 3));
        });
        assert!(sound.is_ok(), "{sound:?}");
    }

    #[test]
    fn a_record_that_is_gone_is_found() {
        let lost = judged(|history| {
            history.sends(0, &[7]);
            history.was_sent(0, &[7], 0);
            history.read(0, &BTreeMap::new(), (0, 0));
        });
        assert!(lost.is_err());
    }

    #[test]
    fn a_commit_that_is_forgotten_and_one_of_an_old_generation_are_found() {
        let commit = |history: &mut History, process, generation, offset| {
            history.commits(process, Phase::Invoke, ("group", generation), (0, offset));
            history.commits(process, Phase::Ok, ("group", generation), (0, offset));
        };
        let forgotten = judged(move |history| {
            let member = history.process();
            commit(history, member, 1, 5);
            history.fetches(member, Phase::Invoke, "group", (0, None));
            history.fetches(member, Phase::Ok, "group", (0, None));
        });
        assert!(forgotten.is_err());
        let zombie = judged(move |history| {
            let (member, zombie) = (history.process(), history.process());
            commit(history, zombie, 1, 5);
            commit(history, member, 2, 6);
            commit(history, zombie, 1, 7);
        });
        assert!(zombie.is_err());
    }
}
