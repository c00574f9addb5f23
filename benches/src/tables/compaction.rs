//! Compacted topics: what their cleaning costs producers, and what they take on the disk.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::life::row_of;
use crate::bench::{Bench, metered};
use crate::loads::engine::Span;
use crate::loads::keyed::{self, Load};
use crate::machine;
use crate::peers::Peer;
use crate::process::{Memory, disk_bytes};
use crate::table::{ALONE, GROWN, MIB, OF_LIVE, OFFERED, P99, REQUESTS, SECONDS, Sample, WRITTEN};
use crate::wire::Topic;

const PRODUCERS: usize = 64;
/// How often each key is written where the space is measured.
const TIMES: u64 = 3;
const KEY_BYTES: usize = 8;
/// Nothing more is cleaned once the disk has held no less for so long: cleaners look every 15 s and go through all of a partition, Ottla's three
/// times at 64 MiB/s, and files go later.
const SETTLED: Duration = Duration::from_secs(300);
const SETTLED_MAX: Duration = Duration::from_secs(900);

/// p99 of produce at half of what a peer reaches, beside compaction and without; space, memory and bytes written of many keys.
pub(crate) fn compaction(bench: &mut Bench) {
    bench.begin(
        "compaction",
        "Compacted topics",
        "Records with keys, 64 producers, 16 partitions, segment.bytes=16 MiB (the last so many bytes are not cleaned), all else at \
         its default. Half of its own maximum is offered to each: first to a topic that is not compacted, then to a compacted one. \
         Then each of many keys is written three times; from the last acknowledgement until the disk holds no less for 300 s. That \
         topic is compacted from the last acknowledgement on; memory is what the broker has allocated at the most from then on, beyond \
         what it had then.",
    );
    beside(bench);
    space(bench);
}

fn create(peer: &mut Peer, name: &str, policy: &str) -> Topic {
    let topic = Topic { name: name.to_owned(), partitions: 16 };
    peer.create_topic(&topic);
    peer.wire().set_config(&topic, "segment.bytes", "16777216");
    peer.wire().set_config(&topic, "cleanup.policy", policy);
    topic
}

fn beside(bench: &mut Bench) {
    bench.begin_peers();
    let load = |name: &str| Load {
        topic: Topic { name: name.to_owned(), partitions: 16 },
        producers: PRODUCERS,
        records: 16,
        size: 1024,
        keys: 100_000,
    };
    let (short, span) = (bench.span(3.0, 5.0), bench.span(120.0, 120.0));
    let mut rates = BTreeMap::new();
    let row = bench.measure("a topic that is not compacted", |peer| {
        if !rates.contains_key(peer.name) {
            create(peer, "kept", "delete");
            let (done, cost) = metered(peer, |edge| keyed::run(peer.address(), &load("kept"), None, short, edge));
            rates.insert(peer.name, done.requests as f64 / cost.seconds / 2.0);
        }
        paced(peer, &load("kept"), rates[peer.name], span)
    });
    let alone: BTreeMap<String, f64> =
        row.peers.iter().map(|(peer, _)| (peer.clone(), row.medians(peer)[P99])).collect();
    bench.add(row);
    bench.row("a compacted topic", |peer| {
        create(peer, "latest", "compact");
        let (mut sample, held) = held_while(peer, || paced(peer, &load("latest"), rates[peer.name], span));
        sample.insert(ALONE, sample[P99] / alone[peer.name]);
        sample.insert(GROWN, grown(&held));
        sample
    });
}

fn paced(peer: &Peer, load: &Load, rate: f64, span: Span) -> Sample {
    let (done, cost) = metered(peer, |edge| keyed::run(peer.address(), load, Some(rate), span, edge));
    let mut sample = cost.throughput(&done);
    sample.remove(REQUESTS);
    sample.insert(OFFERED, rate);
    sample
}

/// What the disk holds, each second while something is done.
fn held_while(peer: &Peer, done: impl FnOnce() -> Sample) -> (Sample, Vec<u64>) {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut held = Vec::new();
            while !is_over.load(Ordering::Relaxed) {
                held.push(disk_bytes(&peer.directory));
                thread::sleep(Duration::from_secs(1));
            }
            held
        });
        let sample = done();
        is_over.store(true, Ordering::Relaxed);
        (sample, watch.join().expect("a watch"))
    })
}

/// The most of the last third, as a part of the most of the third before.
fn grown(held: &[u64]) -> f64 {
    let third = held.len() / 3;
    let most = |part: &[u64]| part.iter().max().copied().unwrap_or(0) as f64;
    most(&held[2 * third..]) / most(&held[third..2 * third]).max(1.0)
}

fn space(bench: &mut Bench) {
    let keys = (bench.bytes(1e6, 1e7)).max(10_000);
    let mut peers = bench.prepare();
    let mut row = row_of(&format!("{keys} keys of 100 B, each written three times"), &peers);
    for (at, peer) in peers.iter_mut().enumerate() {
        peer.start();
        let topic = create(peer, "many", "delete");
        let before = peer.usage();
        let load = Load { topic, producers: PRODUCERS, records: 100, size: 100, keys };
        keyed::fill(peer.address(), &load, TIMES);
        let memory = peer.memory_mib(Memory::Anonymous);
        peer.wire().set_config(&load.topic, "cleanup.policy", "compact");
        let (took, most) = settled(peer);
        machine::sync();
        let live = keys as f64 * (load.size + KEY_BYTES) as f64;
        let written = peer.usage().since(before).write_bytes as f64;
        row.peers[at].1.push(Sample::from([
            (SECONDS, took.as_secs_f64()),
            (OF_LIVE, disk_bytes(&peer.directory) as f64 / live),
            (WRITTEN, written / live / TIMES as f64),
            (MIB, most - memory),
        ]));
        peer.kill();
        machine::remove(&peer.directory);
    }
    bench.add(row);
}

/// Waits until the disk holds no less any more; how long that took, and the most memory that was allocated meanwhile, in MiB.
fn settled(peer: &Peer) -> (Duration, f64) {
    let (began, mut most) = (Instant::now(), 0.0_f64);
    let (mut least, mut fell) = (u64::MAX, Duration::ZERO);
    while began.elapsed() < fell + SETTLED && began.elapsed() < SETTLED_MAX {
        let bytes = disk_bytes(&peer.directory);
        // What is written beside it, checkpoints for example, is not what is waited for.
        if bytes < least - least / 100 {
            (least, fell) = (bytes, began.elapsed());
        }
        most = most.max(peer.memory_mib(Memory::Anonymous));
        thread::sleep(Duration::from_secs(1));
    }
    (fell, most)
}
