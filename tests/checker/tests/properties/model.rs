//! A correct broker in its simplest form, and clients that use it; their history must be found sound.
//!
//! A script of bytes decides which process acts and how. It does one of: begin an operation (invoke), carry out its
//! next part, end it (ok, fail, info). So operations overlap in every way, and each part takes effect at one moment.
//!
//! Partitions 0 and 1 take plain sends, 2 and 3 transactions, 4 is compacted by key. Processes 0 to 2 produce, 3 to 5 consume.

use std::collections::BTreeMap;

use ottla_checker::event::{
    Action, Event, FullRead, GroupOffset, Micro, Phase, Polled, Producer, Record, Sent, Transaction,
};

pub(crate) const PARTITIONS: usize = 5;
pub(crate) const COMPACTED: usize = 4;
const PRODUCERS: usize = 3;
const PROCESSES: usize = 6;
const KEYS: u64 = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open(usize),
    Committed,
    Aborted,
    Marker,
    Gone,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    value: u64,
    key: Option<u64>,
    state: State,
}

#[derive(Debug, Default)]
struct Log {
    entries: Vec<Entry>,
    start: u64,
}

impl Log {
    /// Where readers at read_committed must stop.
    fn stable(&self) -> u64 {
        let open = |entry: &Entry| matches!(entry.state, State::Open(_));
        self.entries.iter().position(open).unwrap_or(self.entries.len()) as u64
    }

    fn read(&self, partition: usize, from: u64, count: usize) -> (Vec<Record>, u64) {
        let (mut at, mut records) = (from.max(self.start), Vec::new());
        while at < self.stable() && records.len() < count {
            let entry = &self.entries[at as usize];
            if entry.state == State::Committed {
                records.push(Record { partition: partition as u32, offset: at, value: entry.value });
            }
            at += 1;
        }
        (records, at)
    }

    /// Compaction up to the last stable offset.
    fn clean(&mut self) {
        for at in 0..self.entries.len() {
            let key = self.entries[at].key;
            let later = self.entries[at + 1..].iter().any(|entry| entry.key == key && entry.state == State::Committed);
            if key.is_some() && later {
                self.entries[at].state = State::Gone;
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Ok,
    Fail,
    /// The outcome is unknown, and it was carried out.
    Done,
    /// The outcome is unknown, and it was not carried out.
    Undone,
}

#[derive(Debug, Default)]
struct Process {
    client: u32,
    /// Its invocation, its answer, how many of its parts are done.
    open: Option<(Action, usize, Fate)>,
    positions: BTreeMap<usize, u64>,
    /// Where the positions would be if the transaction succeeds.
    moved: BTreeMap<usize, u64>,
    assigned: bool,
    sequences: BTreeMap<usize, u32>,
    epoch: u32,
}

#[derive(Debug, Default)]
pub(crate) struct Model {
    pub events: Vec<Event>,
    logs: Vec<Log>,
    processes: Vec<Process>,
    committed: BTreeMap<(u32, u32), u64>,
    value: u64,
}

/// Runs a script, then lets everything end and reads everything.
pub(crate) fn run(script: &[(u8, u8)]) -> Vec<Event> {
    let mut model = Model::default();
    model.logs.resize_with(PARTITIONS, Log::default);
    model.processes.resize_with(PROCESSES, Process::default);
    (0..PROCESSES).for_each(|process| model.processes[process].client = process as u32);
    model.event(0, Phase::Info, Action::Compacted { partition: COMPACTED as u32 });
    for &(who, what) in script {
        model.turn(who as usize % PROCESSES, what);
    }
    for process in 0..PROCESSES {
        while model.processes[process].open.is_some() {
            model.turn(process, 0);
        }
    }
    model.read_everything();
    model.events
}

impl Model {
    fn event(&mut self, process: usize, phase: Phase, action: Action) {
        let client = self.processes.get(process).map_or(1000, |process| process.client);
        let time = self.events.len() as u64;
        self.events.push(Event { time, process: process as u32, client, phase, action });
    }

    fn turn(&mut self, process: usize, what: u8) {
        match self.processes[process].open.take() {
            None => {
                let action =
                    if process < PRODUCERS { self.produce(process, what) } else { self.consume(process, what) };
                self.event(process, Phase::Invoke, asked(&action));
                // A producer's outcome may get lost; consumers keep theirs, but for transactions.
                let fate = match what >> 5 {
                    0 if process < PRODUCERS => Fate::Fail,
                    1 if process < PRODUCERS => Fate::Done,
                    2 if process < PRODUCERS => Fate::Undone,
                    _ => Fate::Ok,
                };
                self.processes[process].open = Some((action, 0, fate));
            }
            Some((mut action, done, fate)) => {
                let parts = if let Action::Txn(txn) = &action { txn.micro.len() + 1 } else { 1 };
                if done == parts {
                    self.end(process, action, fate);
                } else {
                    if matches!(fate, Fate::Ok | Fate::Done) || parts > 1 {
                        self.part(process, &mut action, done, done + 1 == parts, fate);
                    }
                    self.processes[process].open = Some((action, done + 1, fate));
                }
            }
        }
    }

    fn produce(&mut self, process: usize, what: u8) -> Action {
        let partition = if what & 1 == 0 { usize::from(what >> 1 & 1) } else { COMPACTED };
        match what & 7 {
            7 => Action::LogStart { partition: u32::from(what >> 3 & 1), offset: 0 },
            6 => Action::Send(vec![self.sent(process, 0), self.sent(process, 0)]),
            3 | 5 => {
                let mut pay = [
                    self.sent(process, 2 + usize::from(what >> 3 & 1)),
                    self.sent(process, 2 + usize::from(what >> 4 & 1)),
                ];
                (pay[0].amount, pay[1].amount) = (Some(-7), Some(7));
                let micro = pay.into_iter().map(Micro::Send).collect();
                Action::Txn(Transaction { micro, abort: what & 7 == 5, ..Transaction::default() })
            }
            _ => Action::Send(vec![self.sent(process, partition)]),
        }
    }

    fn sent(&mut self, process: usize, partition: usize) -> Sent {
        self.value += 1;
        let process_state = &mut self.processes[process];
        let next = process_state.sequences.entry(partition).or_default();
        let producer = Producer { id: process as u64, epoch: process_state.epoch, sequence: *next };
        *next += 1;
        let key = (partition == COMPACTED).then_some(self.value % KEYS);
        let producer = Some(producer);
        Sent { partition: partition as u32, value: self.value, key, producer, ..Sent::default() }
    }

    fn consume(&mut self, process: usize, what: u8) -> Action {
        let group = process as u32;
        if !self.processes[process].assigned {
            return Action::Assign { partitions: (0..PARTITIONS as u32).collect(), from_beginning: true };
        }
        match what & 7 {
            0 => Action::Commit(GroupOffset {
                group,
                generation: Some(1),
                partition: u32::from(what >> 3) % 4,
                offset: None,
            }),
            1 => Action::Fetch(GroupOffset {
                group,
                generation: None,
                partition: u32::from(what >> 3) % 4,
                offset: None,
            }),
            2 => {
                let send = self.sent(process, 3);
                let micro = vec![Micro::Poll(Vec::new()), Micro::Send(send), Micro::Poll(Vec::new())];
                Action::Txn(Transaction { micro, abort: what & 8 == 8, ..Transaction::default() })
            }
            3 if what & 16 == 16 => Action::Assign { partitions: vec![0, 2, 4], from_beginning: false },
            4 => Action::Read(FullRead { ends: vec![(0, 0), (3, 0), (4, 0)], ..FullRead::default() }),
            _ => Action::Poll(Polled::default()),
        }
    }

    /// Carries out one part of an operation.
    fn part(&mut self, process: usize, action: &mut Action, at: usize, last: bool, fate: Fate) {
        match action {
            Action::Send(list) => list.iter_mut().for_each(|sent| self.append(sent, State::Committed)),
            Action::Txn(txn) if last => {
                let commit = !txn.abort && matches!(fate, Fate::Ok | Fate::Done);
                self.finish(process, commit);
            }
            Action::Txn(txn) => match &mut txn.micro[at] {
                Micro::Send(sent) => self.append(sent, State::Open(process)),
                Micro::Poll(records) => *records = self.poll(process),
                Micro::Commit(_) => {}
            },
            Action::Poll(polled) => polled.records = self.poll(process),
            Action::Assign { partitions, from_beginning } => {
                let kept = |&partition: &usize| partitions.contains(&(partition as u32));
                let start = |partition: usize| self.logs[partition].start;
                let old = self.processes[process].positions.clone();
                let position = |partition| {
                    if *from_beginning {
                        start(partition)
                    } else {
                        old.get(&partition).copied().unwrap_or_else(|| start(partition))
                    }
                };
                let positions =
                    (0..PARTITIONS).filter(kept).map(|partition| (partition, position(partition))).collect();
                self.processes[process].positions = positions;
                self.processes[process].moved = self.processes[process].positions.clone();
                self.processes[process].assigned = true;
            }
            Action::Read(read) => {
                for (partition, end) in &mut read.ends {
                    let log = &self.logs[*partition as usize];
                    let (records, at) = log.read(*partition as usize, 0, usize::MAX);
                    read.records.extend(records);
                    *end = at;
                }
            }
            Action::Commit(of) => {
                let at = self.processes[process].positions.get(&(of.partition as usize)).copied();
                of.offset = Some(
                    at.unwrap_or_default()
                        .max(self.committed.get(&(of.group, of.partition)).copied().unwrap_or_default()),
                );
                self.committed.insert((of.group, of.partition), of.offset.unwrap_or_default());
            }
            Action::Fetch(of) => of.offset = self.committed.get(&(of.group, of.partition)).copied(),
            Action::LogStart { partition, offset } => {
                let log = &mut self.logs[*partition as usize];
                log.start = (log.start + 1).min(log.entries.len() as u64);
                *offset = log.start;
            }
            Action::Subscribe { .. } | Action::Crash | Action::InitProducer { .. } | Action::Compacted { .. } => {}
        }
        self.logs[COMPACTED].clean();
    }

    fn append(&mut self, sent: &mut Sent, state: State) {
        let log = &mut self.logs[sent.partition as usize];
        sent.offset = Some(log.entries.len() as u64);
        log.entries.push(Entry { value: sent.value, key: sent.key, state });
    }

    fn finish(&mut self, process: usize, commit: bool) {
        for log in &mut self.logs {
            let mut touched = false;
            for entry in log.entries.iter_mut().filter(|entry| entry.state == State::Open(process)) {
                entry.state = if commit { State::Committed } else { State::Aborted };
                touched = true;
            }
            if touched {
                log.entries.push(Entry { value: 0, key: None, state: State::Marker });
            }
        }
    }

    fn poll(&mut self, process: usize) -> Vec<Record> {
        let mut all = Vec::new();
        for (&partition, position) in &mut self.processes[process].moved {
            let (records, at) = self.logs[partition].read(partition, *position, 3);
            *position = at;
            all.extend(records);
        }
        all
    }

    fn end(&mut self, process: usize, action: Action, fate: Fate) {
        let aborted = matches!(&action, Action::Txn(txn) if txn.abort);
        let phase = match fate {
            Fate::Ok => Phase::Ok,
            Fate::Fail => Phase::Fail,
            Fate::Done | Fate::Undone => Phase::Info,
        };
        let told = if phase == Phase::Ok { action } else { asked(&action) };
        self.event(process, phase, told);
        let state = &mut self.processes[process];
        if phase == Phase::Ok && !aborted {
            state.positions = state.moved.clone();
        } else {
            state.moved = state.positions.clone();
        }
        if phase == Phase::Info {
            self.event(process, Phase::Info, Action::Crash);
            let state = &mut self.processes[process];
            (state.client, state.epoch) = (state.client + PROCESSES as u32, state.epoch + 1);
            state.sequences.clear();
        }
    }

    fn read_everything(&mut self) {
        let reader = PROCESSES;
        let ends = (0..PARTITIONS as u32).map(|partition| (partition, 0)).collect();
        let mut read = FullRead { ends, ..FullRead::default() };
        self.event(reader, Phase::Invoke, Action::Read(read.clone()));
        for (partition, end) in &mut read.ends {
            let (records, at) = self.logs[*partition as usize].read(*partition as usize, 0, usize::MAX);
            read.records.extend(records);
            *end = at;
        }
        self.event(reader, Phase::Ok, Action::Read(read));
    }
}

/// Without what only the answer contains.
fn asked(action: &Action) -> Action {
    match action.clone() {
        Action::Send(list) => Action::Send(list.into_iter().map(|sent| Sent { offset: None, ..sent }).collect()),
        Action::Txn(txn) => {
            let micro = txn.micro.into_iter().map(|micro| match micro {
                Micro::Send(sent) => Micro::Send(Sent { offset: None, ..sent }),
                Micro::Poll(_) => Micro::Poll(Vec::new()),
                commit => commit,
            });
            Action::Txn(Transaction { micro: micro.collect(), ..txn })
        }
        Action::Poll(_) => Action::Poll(Polled::default()),
        same => same,
    }
}
