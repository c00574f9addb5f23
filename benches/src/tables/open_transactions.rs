//! Transactions that are open when their coordinator is killed: how long until they can be committed.

use std::thread;
use std::time::Instant;

use super::life::row_of;
use super::produce::counted;
use crate::bench::Bench;
use crate::machine;
use crate::peers::Peer;
use crate::peers::wires::{Wires, leaders, retried};
use crate::table::{MS, Sample};
use crate::wire::Topic;
use crate::wire::transactions::Transaction;

const MANY: usize = 10_000;
const PARTITIONS: i32 = 16;
/// Connections over which they are opened.
const OPENERS: usize = 16;
/// Of the open ones so many are committed, spread over all that are there.
const COMMITTED_MAX: usize = 64;

/// After kill -9 of the only node, and of the one of three that coordinates.
pub(crate) fn open_transactions(bench: &mut Bench) {
    bench.begin(
        "open",
        "Open transactions when their coordinator is killed",
        "Transactions with one record each in one of 16 partitions, all open. The only node is killed with kill -9 and \
         started again; or of three nodes the one that coordinates most of them is killed. From the start of the process, \
         or from the kill, until 64 of them (those of the killed node) are committed. With one open transaction it is the \
         time that the restart or the failover takes anyway. Kafka waits 9 s (broker.session.timeout.ms) before it takes a node for gone.",
    );
    bench.end_peers();
    for is_cluster in [false, true] {
        for open in [1, MANY] {
            let fault = if is_cluster { "the coordinator of three is killed" } else { "restart after kill -9" };
            let mut row = None;
            for _ in 0..bench.rounds() {
                let peers = if is_cluster { bench.prepare_clusters() } else { bench.prepare() };
                let row = row
                    .get_or_insert_with(|| row_of(&format!("{fault}, {} open", counted(open, "transaction")), &peers));
                for (at, mut peer) in peers.into_iter().enumerate() {
                    machine::settle();
                    row.peers[at].1.push(measured(&mut peer, open));
                }
            }
            row.into_iter().for_each(|row| bench.add(row));
        }
    }
}

fn measured(peer: &mut Peer, open: usize) -> Sample {
    let topic = Topic { name: "open".to_owned(), partitions: PARTITIONS };
    peer.start();
    peer.create_topic(&topic);
    let mut transactions = opened(peer, &topic, open);
    let began = if peer.nodes.len() == 1 {
        peer.kill();
        let began = Instant::now();
        peer.nodes[0].spawn();
        began
    } else {
        let mut nodes = Wires::of(peer);
        let victim = nodes.coordinator(&transactions[0].0);
        transactions.retain(|(id, _)| nodes.coordinator(id) == victim);
        let began = Instant::now();
        peer.nodes[victim].kill();
        began
    };
    let step = transactions.len().div_ceil(COMMITTED_MAX);
    for (id, transaction) in transactions.iter().step_by(step) {
        commit(peer, id, transaction);
    }
    Sample::from([(MS, began.elapsed().as_secs_f64() * 1e3)])
}

/// So many open transactions, by their transactional ids.
fn opened(peer: &Peer, topic: &Topic, count: usize) -> Vec<(String, Transaction)> {
    let leaders = leaders(peer, topic);
    let open = |number: usize, nodes: &mut Wires| {
        let (id, partition) = (format!("open-{number}"), number % topic.partitions as usize);
        let index = i32::try_from(partition).unwrap();
        let coordinator = nodes.coordinator(&id);
        let transaction = retried(|| nodes.to[coordinator].as_mut()?.try_begin(&id));
        retried(|| nodes.to[coordinator].as_mut()?.try_add(&transaction, topic, index).then_some(()));
        retried(|| nodes.to[leaders[partition]].as_mut()?.try_produce_in(&transaction, topic, index).then_some(()));
        (id, transaction)
    };
    thread::scope(|scope| {
        let opener = |first: usize| {
            let open = &open;
            scope.spawn(move || {
                let mut nodes = Wires::of(peer);
                (first..count).step_by(OPENERS).map(|number| open(number, &mut nodes)).collect::<Vec<_>>()
            })
        };
        let openers: Vec<_> = (0..OPENERS).map(opener).collect();
        openers.into_iter().flat_map(|opener| opener.join().unwrap()).collect()
    })
}

/// Commits one, however often it takes.
fn commit(peer: &Peer, id: &str, transaction: &Transaction) {
    retried(|| {
        let mut nodes = Wires::of(peer);
        let coordinator = nodes.try_coordinator(id)?;
        nodes.to[coordinator].as_mut()?.try_commit(transaction).then_some(())
    });
}
