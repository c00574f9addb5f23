//! Producers that commit one transaction after the other, in the versions of the requests since KIP-890: a record to each
//! partition, all of them acknowledged, then the commit. One thread each, which waits for every answer.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::engine::Span;
use super::{Done, Window};
use crate::peers::Peer;
use crate::peers::wires::{Wires, leaders, retried};
use crate::wire::Topic;
use crate::wire::transactions::Transaction;

struct Producer<'a> {
    topic: &'a Topic,
    wires: Wires,
    coordinator: usize,
    transaction: Transaction,
    /// The partitions that each node leads, by its index.
    led: Vec<Vec<i32>>,
    value: Bytes,
}

impl<'a> Producer<'a> {
    fn new(peer: &Peer, topic: &'a Topic, number: usize, size: usize) -> Self {
        let (id, mut wires) = (format!("{}-{number}", topic.name), Wires::of(peer));
        let coordinator = wires.coordinator(&id);
        let transaction = retried(|| wires.to[coordinator].as_mut()?.try_begin(&id));
        let mut led = vec![Vec::new(); peer.nodes.len()];
        for (partition, leader) in (0..).zip(leaders(peer, topic)) {
            led[leader].push(partition);
        }
        Self { topic, wires, coordinator, transaction, led, value: vec![b'x'; size].into() }
    }

    /// One transaction; how long its commit took. What is refused is asked again: the one before may not be complete yet.
    fn transact(&mut self) -> Duration {
        let mut left = self.led.clone();
        retried(|| {
            self.produce(&mut left)?;
            left.iter().all(Vec::is_empty).then_some(())
        });
        let began = Instant::now();
        let coordinator = &mut self.wires.to[self.coordinator];
        self.transaction = retried(|| coordinator.as_mut()?.try_commit_for_next(&self.transaction));
        began.elapsed()
    }

    /// Sends to all leaders and waits for them; what was taken is removed.
    fn produce(&mut self, left: &mut [Vec<i32>]) -> Option<()> {
        for (wire, partitions) in self.wires.to.iter_mut().zip(&*left).filter(|(_, left)| !left.is_empty()) {
            let request = self.transaction.produce_request(self.topic, partitions, self.value.clone());
            wire.as_mut()?.try_send_adding(&request)?;
        }
        for (wire, partitions) in self.wires.to.iter_mut().zip(left).filter(|(_, left)| !left.is_empty()) {
            let taken = wire.as_mut()?.try_receive_added()?;
            partitions.retain(|partition| !taken.contains(partition));
        }
        Some(())
    }
}

/// Runs ramp and window; `edge` is called at both ends of the window. Requests are transactions, latency is that of commits.
pub(crate) fn run(
    peer: &Peer,
    topic: &Topic,
    producers: usize,
    size: usize,
    span: Span,
    edge: &mut dyn FnMut(),
) -> (Done, Duration) {
    let mut ready: Vec<Producer<'_>> = (0..producers).map(|number| Producer::new(peer, topic, number, size)).collect();
    let window = Window::after(span);
    let commits = |producer: &mut Producer<'_>| {
        let mut latencies = Vec::new();
        while Instant::now() < window.end {
            let took = producer.transact();
            if (window.from..window.end).contains(&Instant::now()) {
                latencies.push(took);
            }
        }
        latencies
    };
    let commits = &commits;
    let threads = ready.iter_mut().map(|producer| move || commits(producer));
    let mut done = Done::new();
    for took in window.threads(threads, edge).into_iter().flatten() {
        done.record(took.as_nanos() as u64);
        done.requests += 1;
    }
    (done, span.window)
}
