//! Clusters of which a node fails: how long clients wait, and what it takes until everything is there three times again.

use std::path::Path;
use std::time::{Duration, Instant};

use super::life::{row_of, size};
use super::produce::counted;
use crate::bench::Bench;
use crate::loads::librdkafka::{self, Figures, Watch};
use crate::machine;
use crate::peers::Peer;
use crate::peers::node::Node;
use crate::table::{
    ALONE, ERRORS, GAP, GAP_BACK, GAP_MEDIAN, OF_BEFORE, OF_DISK, OFFERED, P99, RATE, SECONDS, Sample, median,
};
use crate::wire::Topic;

/// Records are acknowledged again once the oldest of the last ones is younger, in milliseconds.
const FLOWS_MS: f64 = 200.0;
/// How long a fault is followed at most. Ottla takes a silent follower for in sync for 30 s, as Kafka's setting says.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy)]
pub(super) enum Fault {
    Stop,
    Kill,
    Pause,
}

impl Fault {
    fn strike(self, node: &mut Node) {
        match self {
            Self::Stop => node.stop(),
            Self::Kill => node.kill(),
            Self::Pause => node.pause(),
        }
    }

    fn mend(self, node: &mut Node) {
        match self {
            Self::Stop | Self::Kill => node.spawn(),
            Self::Pause => node.resume(),
        }
    }
}

/// The longest time without an acknowledgement when a leader's node goes.
pub(crate) fn gaps(bench: &mut Bench) {
    bench.begin(
        "gaps",
        "A node of three goes",
        "An idempotent librdkafka producer with acks=all and its other defaults sends a record of 100 B every 5 ms (to \
         50 partitions: every 20 ms to each) to partitions that one node leads; that node is stopped with SIGTERM, \
         killed with kill -9, or made silent with SIGSTOP (there \
         with socket.timeout.ms=1000: by default librdkafka waits a minute for an answer, whoever leads). A gap is the time between two acknowledgements of a partition, the \
         producer's own waiting included. Several faults a turn: the worst, their median, and the worst while the node comes \
         back. The leader is asked for anew before each, and a fault comes when all replicas are in sync. The 10,000 are \
         a topic of their own, to which nobody writes: they have to be led anew, too.",
    );
    let program = bench.librdkafka();
    bench.begin_clusters();
    let times = if bench.setup.scale < 1.0 { 1 } else { bench.pick(2, 5) };
    let faults = [("SIGTERM", Fault::Stop), ("kill -9", Fault::Kill), ("SIGSTOP", Fault::Pause)];
    let topic = |partitions| Topic { name: format!("gaps-{partitions}"), partitions };
    let (one, some, many) = (topic(1), topic(50), topic(10_000));
    let rows = faults.map(|(name, fault)| (name, fault, &one, None));
    let rows = rows.into_iter().chain((!bench.setup.quick).then_some(("kill -9", Fault::Kill, &some, Some(&many))));
    for (name, fault, topic, beside) in rows {
        for topic in beside.into_iter().chain([topic]) {
            if bench.peers().iter().all(|peer| peer.try_layout(0, topic).is_none()) {
                bench.create(topic);
            }
        }
        let mut name = format!("{name}, {}", counted(topic.partitions as usize, "partition"));
        if let Some(beside) = beside {
            name = format!("{name} beside {}", counted(beside.partitions as usize, "other"));
        }
        // A Kafka node takes minutes to come back to thousands of partitions.
        let times = if beside.is_some() { times.min(2) } else { times };
        bench.row(&name, |peer| {
            let all: Vec<Gap> = (0..times).map(|_| gap(&program, peer, topic, fault)).collect();
            let worst = |of: fn(&Gap) -> f64| all.iter().map(of).fold(0.0, f64::max);
            Sample::from([
                (GAP, worst(|gap| gap.fault)),
                (GAP_MEDIAN, median(all.iter().map(|gap| gap.fault).collect())),
                (GAP_BACK, worst(|gap| gap.back)),
                (ERRORS, all.iter().map(|gap| gap.errors).sum()),
            ])
        });
    }
}

/// The longest times without an acknowledgement around one fault, in milliseconds, and what the producer was refused.
pub(super) struct Gap {
    pub(super) fault: f64,
    pub(super) back: f64,
    pub(super) errors: f64,
}

pub(super) fn gap(program: &Path, peer: &mut Peer, topic: &Topic, fault: Fault) -> Gap {
    peer.wait_until_whole(topic);
    let partitions = peer.layout(topic).partitions;
    let leader = partitions[0].leader;
    let victim = peer.nodes.iter().position(|node| node.id == leader).expect("the leader is one of the nodes");
    let asked = (victim + 1) % peer.nodes.len();
    let led = partitions.iter().enumerate().filter(|(_, p)| p.leader == leader);
    let led: Vec<usize> = led.map(|(at, _)| at).collect();
    let every_ms = if led.len() > 1 { 20.0 } else { 5.0 };
    let mut options = vec![
        format!("topic={}", topic.name),
        format!("watched={}", led.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")),
        format!("rate={}", led.len() as f64 * 1e3 / every_ms),
        "size=100".to_owned(),
        "set.acks=all".to_owned(),
        "set.enable.idempotence=true".to_owned(),
    ];
    if let Fault::Pause = fault {
        // By default librdkafka waits a minute for an answer, whoever leads meanwhile.
        options.push("set.socket.timeout.ms=1000".to_owned());
    }
    let mut watch = Watch::start(program, peer, &options);
    std::thread::sleep(Duration::from_secs(1));
    let mut errors = watch.look().of("errors");
    fault.strike(&mut peer.nodes[victim]);
    let is_out = || {
        let layout = peer.try_layout(asked, topic);
        layout.is_some_and(|layout| led.iter().all(|at| !layout.partitions[*at].in_sync.contains(&leader)))
    };
    let gone = follow(&mut watch, &mut errors, is_out);
    fault.mend(&mut peer.nodes[victim]);
    let back = follow(&mut watch, &mut errors, || peer.is_whole(topic));
    std::thread::sleep(Duration::from_secs(1));
    let last = watch.end();
    Gap { fault: gone, back: back.max(last.of("longest")), errors: errors + last.of("errors") }
}

/// The longest gap until everything flows and `is_over`.
fn follow(watch: &mut Watch, errors: &mut f64, is_over: impl Fn() -> bool) -> f64 {
    let (began, mut longest) = (Instant::now(), 0.0_f64);
    loop {
        std::thread::sleep(Duration::from_millis(100));
        let figures = watch.look();
        let oldest = figures.of("oldest");
        longest = longest.max(figures.of("longest"));
        *errors += figures.of("errors");
        if oldest < FLOWS_MS && is_over() {
            return longest;
        }
        if began.elapsed() > PATIENCE {
            println!("  not over after {PATIENCE:?}; nothing acknowledged for {oldest:.0} ms");
            return longest.max(oldest);
        }
    }
}

/// A node comes back with an empty disk while a producer goes on.
pub(crate) fn rebuild(bench: &mut Bench) {
    bench.begin(
        "rebuild",
        "A node comes back with an empty disk",
        "16 partitions with three replicas, records of 1 KiB by librdkafka. One node is killed with kill -9, its data removed, \
         and when the others have noticed, it is started again while a producer goes on at half of Kafka's maximum. Seconds: \
         from its start (Kafka's takes some itself) until all replicas are in sync again. MB/s: payload that the node has \
         then, by those seconds. The disk's speed: one file, written and synced in the same turn with nothing beside it; **here it \
         is the disk of all three nodes**, and the producer's own records go to it, too. Rate and p99 of the producer are \
         those while the node is rebuilt, beside those before with three nodes.",
    );
    let program = bench.librdkafka();
    let topic = Topic { name: "rebuilt".to_owned(), partitions: 16 };
    let base = |seconds: f64| {
        vec![
            format!("topic={}", topic.name),
            "size=1024".to_owned(),
            format!("seconds={seconds}"),
            "set.acks=all".to_owned(),
        ]
    };
    let seconds = bench.seconds(3.0, 10.0);
    let bytes =
        bench.bytes(f64::from(1 << 30), f64::from(1_u32 << 31)).min(machine::free_bytes(&bench.setup.data) / 16);
    let mut peers = bench.prepare_clusters();
    let mut row = row_of(&format!("{}, {}", size(bytes), counted(16, "partition")), &peers);
    let mut rate = None;
    for round in 0..bench.rounds() {
        if round > 0 {
            // What is there three times does not fit twice.
            drop(peers);
            peers = bench.prepare_clusters();
        }
        for peer in &mut peers {
            peer.start();
            peer.create_topic(&topic);
            let mut fill = base(600.0);
            fill.extend([format!("bytes={bytes}"), "ramp=0".to_owned()]);
            librdkafka::run(&program, peer, "produce", &fill);
        }
        machine::settle();
        let rate = *rate.get_or_insert_with(|| {
            let last = peers.last().expect("a peer");
            let run = librdkafka::run(&program, last, "produce", &base(seconds));
            run.records / run.seconds / 2.0
        });
        let mut paced = base(seconds);
        paced.push(format!("rate={rate}"));
        for (at, peer) in peers.iter_mut().enumerate() {
            machine::settle();
            let mut sample = rebuilt(&program, peer, &topic, &paced, seconds);
            let disk = machine::write_speed(&peer.directory.join("written"), bytes / 2);
            sample.insert(OF_DISK, sample[RATE] / disk);
            sample.insert(OFFERED, rate);
            row.peers[at].1.push(sample);
        }
    }
    bench.add(row);
}

fn rebuilt(program: &Path, peer: &mut Peer, topic: &Topic, paced: &[String], seconds: f64) -> Sample {
    let mut watch = Watch::start(program, peer, paced);
    std::thread::sleep(Duration::from_secs_f64(seconds / 4.0));
    let mut errors = watch.look().of("errors");
    std::thread::sleep(Duration::from_secs_f64(seconds));
    let before = watch.look();
    errors += before.of("errors") + watch.end().of("errors");
    let last = peer.nodes.len() - 1;
    peer.nodes[last].kill();
    peer.nodes[last].wipe();
    let lost = peer.nodes[last].id;
    peer.wait_until("the others notice that one is gone", |peer| {
        let layout = peer.try_layout(0, topic);
        layout.is_some_and(|l| l.partitions.iter().all(|p| p.leader >= 0 && !p.in_sync.contains(&lost)))
    });
    let mut watch = Watch::start(program, peer, paced);
    std::thread::sleep(Duration::from_secs_f64(seconds / 4.0));
    errors += watch.look().of("errors");
    let began = Instant::now();
    peer.nodes[last].spawn();
    peer.wait_until_whole(topic);
    let took = began.elapsed().as_secs_f64();
    let during = watch.look();
    let bytes = peer.records(topic) as f64 * 1024.0;
    errors += during.of("errors") + watch.end().of("errors");
    let rate = |figures: &Figures| figures.of("records") / figures.of("seconds");
    Sample::from([
        (SECONDS, took),
        (RATE, bytes / 1e6 / took),
        (P99, during.of("p99")),
        (ALONE, during.of("p99") / before.of("p99").max(1e-3)),
        (OF_BEFORE, rate(&during) / rate(&before).max(1e-9)),
        (ERRORS, errors),
    ])
}
