//! A producer at a fixed rate that goes on whatever happens. For each line on its input it prints what happened since the
//! last one; when the input ends it waits for what is under way, prints the rest and ends.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rdkafka::producer::Producer;

use crate::counts::{Counts, say};
use crate::{Load, Options};

/// How long the last acknowledgements are waited for.
const DRAIN: Duration = Duration::from_secs(60);

/// `watched=0,7,...`: a record to each of these partitions in turn, and the gaps of each are told. Without it librdkafka
/// chooses partitions, and there are no gaps.
pub(crate) fn watch(options: &Options) {
    let watched: Vec<i32> = options.list("watched");
    let last = (!watched.is_empty()).then(|| Mutex::new(BTreeMap::new()));
    let counts = Counts::watching(last);
    let load = Load::new(options, &counts);
    assert!(load.rate > 0.0, "rate=... is missing");
    let partition_of = |number: u64| watched.get(number as usize % watched.len().max(1)).copied();
    let mut sent = 0_u64;
    let step = || {
        while load.time_of(sent) <= counts.now() {
            if load.send(load.time_of(sent), partition_of(sent)).is_err() {
                counts.errors.fetch_add(1, Ordering::Relaxed);
            }
            sent += 1;
        }
        load.poll_until(sent, &counts);
    };
    counts.counting.store(true, Ordering::Relaxed);
    let ended = go_on(&counts, watched.len(), step);
    if load.producer.flush(DRAIN).is_err() {
        counts.errors.fetch_add(load.producer.in_flight_count() as u64, Ordering::Relaxed);
    }
    say(&format!("end {}", counts.take(ended)));
}

/// Takes steps until something of so many partitions has moved, says so, and answers each question until the input ends; the time
/// since the last answer.
pub(crate) fn go_on(counts: &Arc<Counts>, partitions: usize, mut step: impl FnMut()) -> Duration {
    while !is_under_way(counts, partitions) {
        step();
    }
    counts.take(Duration::ZERO);
    let looks = looks();
    say("begin");
    let mut since = Instant::now();
    loop {
        match looks.try_recv() {
            Ok(()) => {
                say(&counts.take(since.elapsed()));
                since = Instant::now();
            }
            Err(TryRecvError::Empty) => step(),
            Err(TryRecvError::Disconnected) => return since.elapsed(),
        }
    }
}

/// True once something of each partition has moved.
fn is_under_way(counts: &Arc<Counts>, watched: usize) -> bool {
    counts.records.load(Ordering::Relaxed) > 0
        && counts.last.as_ref().is_none_or(|last| last.lock().expect("times").len() >= watched)
}

/// A message for each line of the input; ends with it.
fn looks() -> Receiver<()> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let lines = std::io::stdin().lock().lines().map_while(Result::ok);
        lines.take_while(|_| sender.send(()).is_ok()).for_each(drop);
    });
    receiver
}
