//! First figures of a broker process on this machine, loads on loopback. One run, one table; compare runs as A B A B.
//!
//! `cargo run --release -p ottla-benches` (build the broker first: `cargo build --release`). The load is pre-encoded, so
//! that the generator, which shares the machine, costs little.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod load;

use std::time::{Duration, Instant};

use clap::Parser;
use kafka_protocol::messages::ApiVersionsRequest;
use ottla_tests::process::Broker;
use ottla_tests::raw::Raw;

use crate::load::Load;

/// Measures a broker that it starts itself.
#[derive(Parser)]
struct Arguments {
    /// Seconds per load.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Partitions of the topic that the many-partitions load writes to.
    #[arg(long, default_value_t = 10_000)]
    partitions: i32,
}

fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks / 100.0
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// From the start of the process to the first answer that a client gets.
fn start_to_first_answer(broker: &mut Broker) -> Duration {
    let started = Instant::now();
    broker.spawn();
    loop {
        if std::net::TcpStream::connect(broker.address()).is_ok() {
            let mut raw = Raw::connect(broker.address());
            let asked = raw.ask(0, &ApiVersionsRequest::default());
            if raw.answer::<ApiVersionsRequest>(0, asked).is_some() {
                return started.elapsed();
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn row(name: &str, broker: &Broker, load: &Load) {
    let before = cpu_seconds(broker.pid());
    let outcome = load.run(broker.address());
    let cpu = cpu_seconds(broker.pid()) - before;
    let seconds = outcome.elapsed.as_secs_f64();
    let gigabytes = outcome.bytes as f64 / 1e9;
    println!(
        "| {name} | {:.0} | {:.1} | {:.2} | {:.1} | {} | {} |",
        outcome.requests as f64 / seconds,
        mib(outcome.bytes) / seconds,
        cpu / gigabytes,
        cpu * 1e6 / outcome.requests as f64,
        outcome.percentile_us(50.0),
        outcome.percentile_us(99.0),
    );
}

fn main() {
    let arguments = Arguments::parse();
    let mut broker = Broker::prepare(&[]);
    println!(
        "start to first answer, empty directory: {:.0} ms",
        start_to_first_answer(&mut broker).as_secs_f64() * 1e3
    );
    broker.wait_until_ready();
    std::thread::sleep(Duration::from_secs(1));
    println!("memory, idle: {:.1} MiB", mib(broker.resident_bytes()));
    let mut raw = Raw::connect(broker.address());
    raw.create_topic("one", 1, &[]);
    raw.create_topic("sixteen", 16, &[]);
    let duration = Duration::from_secs(arguments.seconds);
    let produce = |topic, partitions, size, connections, depth| {
        Load::produce(topic, partitions, size, connections, depth, duration)
    };
    // Memory is touched for the first time here, which costs more than anything that is measured.
    produce("sixteen", 16, 16 << 10, 8, 4).run(broker.address());
    println!("\n| produce, acks=all | requests/s | MiB/s | broker CPU s/GB | CPU us/request | p50 us | p99 us |");
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    row("1 KiB, 1 partition, 1 connection, depth 1", &broker, &produce("one", 1, 1 << 10, 1, 1));
    row("1 KiB, 16 partitions, 64 connections, depth 1", &broker, &produce("sixteen", 16, 1 << 10, 64, 1));
    row("1 KiB, 16 partitions, 64 connections, depth 8", &broker, &produce("sixteen", 16, 1 << 10, 64, 8));
    row("16 KiB, 16 partitions, 64 connections, depth 8", &broker, &produce("sixteen", 16, 16 << 10, 64, 8));
    row("1 MiB, 16 partitions, 8 connections, depth 2", &broker, &produce("sixteen", 16, 1_000_000, 8, 2));
    println!("\n| fetch | requests/s | MiB/s | broker CPU s/GB | CPU us/request | p50 us | p99 us |");
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    row("1 MiB answers, 4 connections", &broker, &Load::fetch("sixteen", 16, 1 << 20, 4, duration));
    let before = broker.resident_bytes();
    for n in 0..10 {
        raw.create_topic(&format!("many-{n}"), arguments.partitions / 10, &[]);
    }
    println!(
        "\nmemory for {} more partitions: {:.1} MiB",
        arguments.partitions,
        mib(broker.resident_bytes().saturating_sub(before))
    );
    broker.kill();
    println!("start to first answer after kill -9: {:.0} ms", start_to_first_answer(&mut broker).as_secs_f64() * 1e3);
    let began = Instant::now();
    broker.wait_until_ready();
    println!(
        "ready after a further {:.0} ms; memory: {:.1} MiB",
        began.elapsed().as_secs_f64() * 1e3,
        mib(broker.resident_bytes())
    );
    broker.stop();
}
