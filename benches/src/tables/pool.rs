//! A hundred thousand partitions on three nodes: what they cost the nodes while idle, and a client that uses one of them.
//!
//! Ottla alone: Kafka needs half a minute and 2 GiB for a tenth of them, see the table before.

use std::time::{Duration, Instant};

use super::cluster::scrape;
use super::failover::{Fault, gap};
use super::life::{quiet, row_of};
use super::produce::counted;
use crate::bench::{Bench, of_client};
use crate::loads::librdkafka;
use crate::machine;
use crate::process::Memory;
use crate::table::{BROKER_CORES, ERRORS, GAP, GAP_BACK, IDLE, KIB_EACH, MIB, OF_ONE, RATE, SECONDS, Sample};
use crate::wire::Topic;

const TOPICS: i32 = 10;

/// Created, idle, written to, and led anew after kill -9.
pub(crate) fn pool(bench: &mut Bench) {
    bench.begin(
        "pool",
        "A hundred thousand partitions in the pool",
        "Ottla alone, replication factor 3, ten topics of 10,000 partitions each. Seconds: until every node knows a leader and \
         three replicas in sync of every partition, and each leader answers for its end. KiB: what the three nodes' resident memory grew by, \
         for each of their replicas. Then librdkafka with its defaults and acks=all writes records of 1 KiB to a topic of one \
         partition, before there were the others and beside them, and to all partitions of one of the others; and a \
         node that leads one partition, to which a record goes every 5 ms, is killed with kill -9.",
    );
    let program = bench.librdkafka();
    let each = if bench.setup.scale < 1.0 { 100 } else { 10_000 };
    let many: Vec<Topic> = (0..TOPICS).map(|at| Topic { name: format!("pool-{at}"), partitions: each }).collect();
    let one = Topic { name: "one".to_owned(), partitions: 1 };
    let seconds = bench.seconds(3.0, 8.0);
    let mut peers = bench.prepare_clusters();
    peers.truncate(1);
    let count = counted((TOPICS * each) as usize, "partition");
    let beside = format!("1 partition beside {count}");
    let some = format!("to {} of them", counted(each as usize, "partition"));
    let names = [count.as_str(), "librdkafka produces to 1 partition", &beside, &some, "kill -9"];
    let mut rows = names.map(|name| row_of(name, &peers));
    let peer = peers.first_mut().expect("Ottla");
    peer.start();
    peer.create_topic(&one);
    let produce = |peer: &_, topic: &Topic| {
        machine::settle();
        of_client(&librdkafka::run(&program, peer, "produce", &librdkafka::options(topic, 1024, seconds)))
    };
    let alone = produce(peer, &one);
    let before = peer.memory_mib(Memory::Resident);
    let began = Instant::now();
    many.iter().for_each(|topic| peer.create(topic));
    many.iter().for_each(|topic| peer.wait_until_whole(topic));
    let took = began.elapsed();
    std::thread::sleep(Duration::from_secs_f64(bench.seconds(8.0, 15.0)));
    let mut idle = quiet(peer);
    idle.insert(SECONDS, took.as_secs_f64());
    idle.insert(KIB_EACH, (idle[MIB] - before) * 1024.0 / f64::from(TOPICS * each * 3));
    idle.extend(idle.get(BROKER_CORES).map(|cores| (IDLE, *cores)));
    scrape(peer, &mut idle);
    let of_alone = |mut sample: Sample| {
        sample.insert(OF_ONE, sample[RATE] / alone[RATE]);
        sample
    };
    let (beside, spread) = (of_alone(produce(peer, &one)), of_alone(produce(peer, &many[0])));
    let gaps = gap(&program, peer, &one, Fault::Kill);
    let killed = Sample::from([(GAP, gaps.fault), (GAP_BACK, gaps.back), (ERRORS, gaps.errors)]);
    for (row, sample) in rows.iter_mut().zip([idle, alone, beside, spread, killed]) {
        row.peers[0].1.push(sample);
    }
    rows.into_iter().for_each(|row| bench.add(row));
    peer.kill();
    machine::remove(&peer.directory);
}
