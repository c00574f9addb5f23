//! Measures the log on the real disk: `cargo run --release -p ottla-storage --example log_commit -- <dir>`.
//! One writer at a time, then many: commits per second, p50 of an append, bytes per second.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::sync::Arc;

use bytes::Bytes;
use ottla_env::real::RealDisk;
use ottla_env::rt;
use ottla_protocol::batch::{CRC_FROM, crc32c};
use ottla_storage::entry::{Entry, EntryBatch, EntryKind};
use ottla_storage::ids::{LogId, RaftIndex, ReplicaId, Term};
use ottla_storage::log::{GroupCreation, Log, LogOptions, NoSink, ReplicaLog};

fn batch(bytes: usize) -> Bytes {
    let mut data = vec![7; bytes.max(61)];
    let length = (data.len() - 12) as u32;
    data[8..12].copy_from_slice(&length.to_be_bytes());
    let crc = crc32c(&data[CRC_FROM..]);
    data[17..21].copy_from_slice(&crc.to_be_bytes());
    Bytes::from(data)
}

async fn append(replica: &ReplicaLog, index: u64, data: &Bytes) {
    let topic = uuid::Uuid::from_u128(1);
    let partition = ottla_protocol::ids::PartitionId { topic, index: 0 };
    let entry = Entry {
        log_id: LogId { term: Term(1), index: RaftIndex(index) },
        kind: EntryKind::Normal,
        clock_ms: 0,
        payload: Bytes::new(),
        batches: vec![EntryBatch { partition, data: data.clone() }].into(),
    };
    let (sender, receiver) = tokio::sync::oneshot::channel();
    replica.append(vec![entry], Box::new(move |result| _ = sender.send(result.is_ok())));
    assert!(receiver.await.unwrap());
}

async fn measure(log: &Log, first_replica: u64, writers: u64, bytes: usize, appends: u64) {
    let before = log.stats();
    let begun = rt::now();
    let mut tasks = Vec::new();
    for id in first_replica..first_replica + writers {
        let creation = GroupCreation { replica: ReplicaId(id), payload: Bytes::new(), vote: None, purged: None };
        let replica = log.create_group(creation).await.unwrap();
        let data = batch(bytes);
        tasks.push(rt::spawn(async move {
            let mut nanos = Vec::new();
            for index in 1..=appends {
                let begun = rt::now();
                append(&replica, index, &data).await;
                nanos.push(rt::now().since(begun).as_nanos());
            }
            nanos
        }));
    }
    let mut nanos = Vec::new();
    for task in tasks {
        nanos.extend(task.await.unwrap());
    }
    nanos.sort_unstable();
    let seconds = rt::now().since(begun).as_secs_f64();
    let after = log.stats();
    let commits = after.commits - before.commits;
    println!(
        "{writers} writers of {bytes} B: {:.0} appends/s, p50 {} us, {commits} commits of {:.1} frames, sync {} us, {:.0} MiB/s",
        (writers * appends) as f64 / seconds,
        nanos[nanos.len() / 2] / 1000,
        (after.frames - before.frames) as f64 / commits as f64,
        (after.sync_nanos - before.sync_nanos) / commits / 1000,
        (writers * appends * bytes as u64) as f64 / seconds / f64::from(1 << 20),
    );
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let dir = std::env::args().nth(1).unwrap();
    let options = LogOptions::default();
    let opened = Log::open(Arc::new(RealDisk), std::path::Path::new(&dir), options, Vec::new(), &mut NoSink).await;
    let (log, _) = opened.unwrap();
    measure(&log, 100, 1, 1 << 10, 4000).await;
    measure(&log, 200, 1, 16 << 10, 2000).await;
    measure(&log, 300, 64, 1 << 10, 500).await;
    measure(&log, 400, 16, 16 << 10, 500).await;
    measure(&log, 500, 8, 1 << 20, 100).await;
    log.close().await.unwrap();
}
