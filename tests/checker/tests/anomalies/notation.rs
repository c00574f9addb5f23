//! Histories as one line of text each: a bad one and its legal twin, which differ in what stands between braces.
//!
//!     a send x1@0; b send x2@{0|1}; r poll x1@0        bad: x2@0, twin: x2@1
//!
//! A statement is `process verb tokens`. It stands for an invocation and its completion at once: `send` ended well, `send!` failed, `send?` is
//! unknown. `a( send x1` is the invocation alone, `a) send x1@0`, `a)! send x1` and `a)? send x1` the completion.
//!
//! | verb | tokens |
//! |---|---|
//! | `send` | `x1@0`: value 1 to partition x, offset 0. Behind it may stand `#5` key, `#5-` tombstone of key 5, `$-10` amount, `/P0.3` producer P, epoch 0, sequence 3 |
//! | `poll` | `x1@0`; `~x` x was rebalanced; the verb with `%` reads at read_uncommitted |
//! | `txn`, `abort` | `x1@0` a send, `<x1@0` polled, `^g1x5` an offset committed, `~x` rebalanced |
//! | `assign`, `assign0`, `sub` | partitions; 0: from the beginning |
//! | `read` | `x1@0`, `x:2` read until offset 2 |
//! | `commit`, `fetch` | `g1x5`: group g, generation 1, partition x, offset 5; `gx-`: no member, nothing there |
//! | `init` | `P2`: producer P, epoch 2 |
//! | `start`, `seen` | `x3`: the log begins at 3, as asked for, as observed |
//! | `compact`, `crash` | a partition; nothing |

use ottla_checker::event::{
    Action, Event, FullRead, GroupOffset, Micro, Phase, Polled, Producer, Record, Sent, Transaction,
};
use ottla_checker::{History, Recorder};

/// The bad history and its twin.
pub(crate) fn both(row: &str) -> [String; 2] {
    let mut texts = [String::new(), String::new()];
    let mut rest = row;
    while let Some((before, after)) = rest.split_once('{') {
        let (choice, after) = after.split_once('}').expect("a brace that is not closed");
        let (bad, twin) = choice.split_once('|').expect("braces without a choice");
        texts[0] += &format!("{before}{bad}");
        texts[1] += &format!("{before}{twin}");
        rest = after;
    }
    texts.map(|text| text + rest)
}

pub(crate) fn history(text: &str) -> History {
    let mut recorder = Recorder::default();
    let mut crashes = [0; 26];
    for statement in text.split(';').map(str::trim).filter(|statement| !statement.is_empty()) {
        for (phase, action) in events(statement) {
            let process = letter(statement);
            let crash = action == Action::Crash;
            let client = process * 32 + crashes[process as usize];
            let event = Event { time: 0, process, client, phase, action };
            recorder.push(event).unwrap_or_else(|reason| panic!("{text}: {statement}: {reason}"));
            crashes[process as usize] += u32::from(crash);
        }
    }
    recorder.finish()
}

fn letter(text: &str) -> u32 {
    u32::from(text.as_bytes()[0] - b'a')
}

fn phase_of(mark: &str) -> Phase {
    match mark {
        "" => Phase::Ok,
        "!" => Phase::Fail,
        "?" => Phase::Info,
        _ => panic!("{mark} is no outcome"),
    }
}

fn events(statement: &str) -> Vec<(Phase, Action)> {
    let mut words = statement.split_whitespace();
    let head = &words.next().expect("a process")[1..];
    let verb = words.next().expect("a verb");
    let tokens: Vec<&str> = words.collect();
    if head == "(" {
        return vec![(Phase::Invoke, asked(action(verb, &tokens)))];
    }
    if let Some(mark) = head.strip_prefix(')') {
        return vec![(phase_of(mark), action(verb, &tokens))];
    }
    assert!(head.is_empty(), "{statement}");
    let plain = verb.trim_end_matches(['!', '?']);
    let told = action(plain, &tokens);
    if matches!(plain, "crash" | "seen" | "compact") {
        return vec![(Phase::Info, told)];
    }
    vec![(Phase::Invoke, asked(told.clone())), (phase_of(&verb[plain.len()..]), told)]
}

/// What was known of an action when it was invoked.
fn asked(told: Action) -> Action {
    match told {
        Action::Send(list) => Action::Send(list.into_iter().map(|sent| Sent { offset: None, ..sent }).collect()),
        Action::Poll(_) => Action::Poll(Polled::default()),
        Action::Txn(txn) => {
            let micro = txn.micro.into_iter().map(|micro| match micro {
                Micro::Send(sent) => Micro::Send(Sent { offset: None, ..sent }),
                Micro::Poll(_) => Micro::Poll(Vec::new()),
                commit => commit,
            });
            Action::Txn(Transaction { micro: micro.collect(), ..Transaction::default() })
        }
        Action::Fetch(of) => Action::Fetch(GroupOffset { offset: None, ..of }),
        Action::Read(read) => Action::Read(FullRead { records: Vec::new(), ..read }),
        same => same,
    }
}

fn action(verb: &str, tokens: &[&str]) -> Action {
    let (plain, uncommitted) = (verb.trim_end_matches('%'), verb.ends_with('%'));
    let partitions = || tokens.iter().map(|token| letter(token)).collect();
    let starting = |sign: char| tokens.iter().filter_map(move |token| token.strip_prefix(sign));
    let bare = || tokens.iter().filter(|token| !token.starts_with('~') && !token.contains(':'));
    let rebalanced = || starting('~').map(letter).collect();
    match plain {
        "send" => Action::Send(tokens.iter().map(|token| sent(token)).collect()),
        "poll" => Action::Poll(Polled {
            records: bare().map(|token| record(token)).collect(),
            rebalanced: rebalanced(),
            uncommitted,
        }),
        "txn" | "abort" => {
            let micro = micros(bare().copied());
            Action::Txn(Transaction { micro, abort: plain == "abort", rebalanced: rebalanced(), uncommitted })
        }
        "assign" | "assign0" => Action::Assign { partitions: partitions(), from_beginning: plain == "assign0" },
        "sub" => Action::Subscribe { partitions: partitions() },
        "crash" => Action::Crash,
        "read" => {
            let ends = tokens.iter().filter_map(|token| token.split_once(':'));
            let ends = ends.map(|(partition, offset)| (letter(partition), offset.parse().unwrap()));
            Action::Read(FullRead {
                records: bare().map(|token| record(token)).collect(),
                ends: ends.collect(),
                uncommitted,
            })
        }
        "commit" => Action::Commit(group_offset(tokens[0])),
        "fetch" => Action::Fetch(group_offset(tokens[0])),
        "init" => Action::InitProducer { id: producer_id(tokens[0]), epoch: tokens[0][1..].parse().unwrap() },
        "start" | "seen" => Action::LogStart { partition: letter(tokens[0]), offset: tokens[0][1..].parse().unwrap() },
        "compact" => Action::Compacted { partition: letter(tokens[0]) },
        _ => panic!("{verb} is no verb"),
    }
}

/// Polled records that follow each other are one poll.
fn micros<'a>(tokens: impl Iterator<Item = &'a str>) -> Vec<Micro> {
    let mut micros: Vec<Micro> = Vec::new();
    for token in tokens {
        if let Some(polled) = token.strip_prefix('<') {
            match micros.last_mut() {
                Some(Micro::Poll(records)) => records.push(record(polled)),
                _ => micros.push(Micro::Poll(vec![record(polled)])),
            }
        } else if let Some(committed) = token.strip_prefix('^') {
            micros.push(Micro::Commit(group_offset(committed)));
        } else {
            micros.push(Micro::Send(sent(token)));
        }
    }
    micros
}

fn record(token: &str) -> Record {
    let Sent { partition, value, offset, .. } = sent(token);
    Record { partition, value, offset: offset.unwrap_or_else(|| panic!("{token} has no offset")) }
}

fn sent(token: &str) -> Sent {
    let mut sent = Sent { partition: letter(token), ..Sent::default() };
    let mut rest = token[1..].split_inclusive(['@', '#', '$', '/']).peekable();
    let mut sign = None;
    while let Some(part) = rest.next() {
        let next = if rest.peek().is_some() { part.chars().last() } else { None };
        let text = part.trim_end_matches(['@', '#', '$', '/']);
        match sign {
            None => sent.value = text.parse().unwrap_or_else(|_| panic!("{token}")),
            Some('@') => sent.offset = Some(text.parse().unwrap_or_else(|_| panic!("{token}"))),
            Some('#') => {
                sent.tombstone = text.ends_with('-');
                sent.key = Some(text.trim_end_matches('-').parse().unwrap());
            }
            Some('$') => sent.amount = Some(text.parse().unwrap()),
            Some('/') => {
                let (epoch, sequence) = text[1..].split_once('.').unwrap_or_else(|| panic!("{token}"));
                let id = producer_id(text);
                sent.producer =
                    Some(Producer { id, epoch: epoch.parse().unwrap(), sequence: sequence.parse().unwrap() });
            }
            Some(other) => panic!("{other}"),
        }
        sign = next;
    }
    sent
}

fn producer_id(token: &str) -> u64 {
    u64::from(token.as_bytes()[0] - b'A')
}

fn group_offset(token: &str) -> GroupOffset {
    let rest = token[1..].trim_start_matches(|c: char| c.is_ascii_digit());
    let generation = &token[1..token.len() - rest.len()];
    let offset = if &rest[1..] == "-" { None } else { Some(rest[1..].parse().unwrap_or_else(|_| panic!("{token}"))) };
    GroupOffset { group: letter(token), generation: generation.parse().ok(), partition: letter(rest), offset }
}
