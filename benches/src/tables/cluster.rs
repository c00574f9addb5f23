//! Three nodes beside three nodes: what a replicated record costs, and what thousands of replicated partitions do.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::latency::clients_latency;
use super::life::{quiet, row_of};
use super::produce::counted;
use crate::bench::{Bench, of_client};
use crate::loads::librdkafka;
use crate::machine;
use crate::peers::Peer;
use crate::table::{BROKER_CORES, IDLE, SCRAPE, SCRAPE_KIB, SECONDS, Sample};
use crate::wire::Topic;

/// One client produces to, and reads from, a cluster that keeps three copies.
pub(crate) fn cluster(bench: &mut Bench) {
    bench.begin(
        "cluster",
        "Three nodes beside three nodes",
        "Three Ottla nodes, three Kafka nodes, in three racks; replication factor 3, acks=all; librdkafka with its defaults. \
         **All nodes share this machine, its processors and its one disk**: each record is written there three times, and \
         what one node takes the others lack. Broker CPU is that of all three nodes, for each GB of payload that the client \
         moved. Kafka acknowledges when all replicas in sync have it in memory, Ottla when a majority has synced it. \
         Latency is that at half of Kafka's maximum with the same client.",
    );
    let program = bench.librdkafka();
    bench.begin_clusters();
    let seconds = bench.seconds(1.5, 3.0);
    for (partitions, size, size_name) in [(1, 1024, "1 KiB"), (16, 1024, "1 KiB"), (16, 100, "100 B")] {
        if !bench.have_room() {
            bench.begin_anew();
        }
        let topic = Topic { name: format!("cluster-{partitions}-{size}"), partitions };
        bench.create(&topic);
        let what = format!("{size_name}, {}", counted(partitions as usize, "partition"));
        let mut options = librdkafka::options(&topic, size, seconds);
        bench.row(&format!("librdkafka produces {what}"), |peer| {
            of_client(&librdkafka::run(&program, peer, "produce", &options))
        });
        if size == 1024 {
            options.retain(|option| !option.starts_with("set."));
            let least = bench.peers().iter().map(|peer| peer.records(&topic)).min().expect("a peer");
            options.push(format!("records={}", least.min(1_000_000)));
            bench.row(&format!("librdkafka consumes {what}"), |peer| {
                of_client(&librdkafka::run(&program, peer, "consume", &options))
            });
        }
    }
    if !bench.have_room() {
        bench.begin_anew();
    }
    clients_latency(bench, &["5"]);
}

/// Many partitions with three replicas each.
pub(crate) fn partitions(bench: &mut Bench) {
    bench.begin(
        "partitions",
        "Thousands of partitions on three nodes",
        "Replication factor 3. Seconds: until every node knows a leader and three replicas in sync of every partition. MiB: \
         resident memory of the three nodes together, a few seconds later; idle cores: what they use then. One GET /metrics \
         of each Ottla node: the slowest, and its size.",
    );
    let partitions = if bench.setup.scale < 1.0 { 1_000 } else { 10_000 };
    let many = Topic { name: "many".to_owned(), partitions };
    let mut peers = bench.prepare_clusters();
    let mut row = row_of(&counted(partitions as usize, "partition"), &peers);
    for round in 0..bench.rounds() {
        if round > 0 {
            drop(peers);
            peers = bench.prepare_clusters();
        }
        for (at, peer) in peers.iter_mut().enumerate() {
            machine::settle();
            peer.start();
            let began = Instant::now();
            peer.create_topic(&many);
            let took = began.elapsed();
            std::thread::sleep(Duration::from_secs_f64(bench.seconds(8.0, 15.0)));
            let mut sample = quiet(peer);
            sample.insert(SECONDS, took.as_secs_f64());
            sample.extend(sample.get(BROKER_CORES).map(|cores| (IDLE, *cores)));
            scrape(peer, &mut sample);
            row.peers[at].1.push(sample);
            peer.kill();
            // Thousands of files that nobody needs are not synced.
            machine::remove(&peer.directory);
        }
    }
    bench.add(row);
}

/// What one look at each node costs a monitoring system; nothing where a peer has no such page.
pub(super) fn scrape(peer: &Peer, sample: &mut Sample) {
    for admin in peer.nodes.iter().filter_map(|node| node.admin) {
        let began = Instant::now();
        let answer = get(admin, "/metrics").unwrap_or_else(|e| panic!("GET /metrics: {e}"));
        for (name, value) in [(SCRAPE, began.elapsed().as_secs_f64() * 1e3), (SCRAPE_KIB, answer.len() as f64 / 1024.0)]
        {
            let most = sample.entry(name).or_insert(0.0);
            *most = most.max(value);
        }
    }
}

/// The answer to a GET, its head included.
pub(super) fn get(to: SocketAddr, path: &str) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    if !answer.starts_with(b"HTTP/1.1 200") {
        return Err(std::io::Error::other(String::from_utf8_lossy(&answer[..answer.len().min(80)]).into_owned()));
    }
    Ok(answer)
}
