//! How fast the checker is: makes a sound history of ten million operations in memory, judges it, and prints both times.
//!
//!     cargo run --release -p ottla-checker --example ten_million [operations]
//!
//! Half of the operations send, plain or in transactions, half poll; 64 processes, 100 partitions, many operations open at once. Each
//! record is polled by one of 32 consumers.

#![allow(clippy::disallowed_methods)]

use std::collections::VecDeque;
use std::time::Instant;

use ottla_checker::event::{Action, Event, Micro, Phase, Polled, Record, Sent, Transaction};
use ottla_checker::{History, Recorder, Verdict, check};

const PROCESSES: u32 = 64;
const PARTITIONS: u32 = 100;

/// xorshift: the same history each time.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as u32 % bound
    }
}

struct Log {
    next: u64,
    unread: VecDeque<Record>,
}

fn main() {
    let operations = std::env::args().nth(1).map_or(10_000_000, |text| text.parse().unwrap_or(10_000_000));
    let began = Instant::now();
    let history = history(operations);
    let made = began.elapsed().as_secs_f64();
    let began = Instant::now();
    let report = check(&history);
    let seconds = began.elapsed().as_secs_f64();
    println!("{} operations, {} events, made in {made:.1} s", history.operations(), history.events());
    println!("{} records sent, {} read", report.records_sent, report.records_read);
    println!("{:?} in {seconds:.1} s: {:.0} operations/s", report.verdict, report.operations as f64 / seconds);
    assert_eq!(report.verdict, Verdict::Valid, "{:?}", report.findings.first());
}

fn history(operations: u64) -> History {
    let mut recorder = Recorder::default();
    let mut random = Random(88_172_645_463_325_252);
    let mut logs: Vec<Log> = (0..PARTITIONS).map(|_| Log { next: 0, unread: VecDeque::new() }).collect();
    let mut value = 0;
    // By process: the answer that it will get.
    let mut open: Vec<Option<Action>> = vec![None; PROCESSES as usize];
    let mut begun = 0;
    while begun < operations || open.iter().any(Option::is_some) {
        let process = random.below(PROCESSES);
        let (phase, action) = match open[process as usize].take() {
            Some(told) => (Phase::Ok, told),
            None if begun >= operations => continue,
            None => {
                let (asked, told) = if process < PROCESSES / 2 {
                    send(&mut random, &mut logs, &mut value)
                } else {
                    poll(process, &mut logs)
                };
                open[process as usize] = Some(told);
                begun += 1;
                (Phase::Invoke, asked)
            }
        };
        push(&mut recorder, process, phase, action);
    }
    read_the_rest(&mut recorder, logs);
    recorder.finish()
}

fn push(recorder: &mut Recorder, process: u32, phase: Phase, action: Action) {
    if let Err(reason) = recorder.push(Event { time: 0, process, client: process, phase, action }) {
        panic!("{reason}");
    }
}

/// One plain send, or in one of sixteen cases a transaction of two.
fn send(random: &mut Random, logs: &mut [Log], value: &mut u64) -> (Action, Action) {
    let transaction = random.below(16) == 0;
    let mut put = |partition: u32| {
        let log = &mut logs[partition as usize];
        *value += 1;
        let sent = Sent { partition, value: *value, offset: Some(log.next), ..Sent::default() };
        log.unread.push_back(Record { partition, offset: log.next, value: *value });
        log.next += 1;
        sent
    };
    // Transactions have the first tenth of the partitions to themselves.
    let told = if transaction {
        vec![put(random.below(PARTITIONS / 10)), put(random.below(PARTITIONS / 10))]
    } else {
        vec![put(PARTITIONS / 10 + random.below(PARTITIONS - PARTITIONS / 10))]
    };
    let asked: Vec<Sent> = told.iter().map(|sent| Sent { offset: None, ..*sent }).collect();
    if transaction {
        let of = |list: Vec<Sent>| {
            let micro = list.into_iter().map(Micro::Send).collect();
            Action::Txn(Transaction { micro, ..Transaction::default() })
        };
        (of(asked), of(told))
    } else {
        (Action::Send(asked), Action::Send(told))
    }
}

/// A consumer owns every 32nd partition, and takes what is there, up to 16 records each.
fn poll(process: u32, logs: &mut [Log]) -> (Action, Action) {
    let consumers = PROCESSES / 2;
    let mut records = Vec::new();
    for log in logs.iter_mut().skip((process - consumers) as usize).step_by(consumers as usize) {
        let take = log.unread.len().min(16);
        records.extend(log.unread.drain(..take));
    }
    (Action::Poll(Polled::default()), Action::Poll(Polled { records, ..Polled::default() }))
}

fn read_the_rest(recorder: &mut Recorder, logs: Vec<Log>) {
    let records: Vec<Record> = logs.into_iter().flat_map(|log| log.unread).collect();
    push(recorder, PROCESSES, Phase::Invoke, Action::Poll(Polled::default()));
    push(recorder, PROCESSES, Phase::Ok, Action::Poll(Polled { records, ..Polled::default() }));
}
