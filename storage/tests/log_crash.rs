//! The log and every crash: the simulated disk is stopped at every write and every sync of long random histories, by a
//! kill and by a loss of power, and what recovery finds is compared with what was requested and acknowledged (I8).

#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::sync::Arc;

use ottla_env::disk::Disk;
use ottla_env::sim;
use ottla_env::sim::disk::{Crash, DiskImage, SimDisk, SimDiskOptions, Tear};
use ottla_model::lives_from;
use ottla_storage::log::{Log, RecoveredReplica, RecoveryPoint};
use parking_lot::Mutex;
use support::history::{RecoveryPoints, create, drive, run, small_options};
use support::{Moment, Oracle, Rng, Seen, check};

const DIR: &str = "/data/log";

/// The disk at one write or sync, and what was known then.
struct Point {
    image: DiskImage,
    moment: Moment,
    recovery_points: Vec<RecoveryPoint>,
}

/// Runs a history; returns the disk at each of its writes and syncs.
fn record(seed: u64, tear: Tear, fresh: Option<bool>, replicas: u64, steps: u64) -> (Vec<Point>, Oracle, u64) {
    let oracle = Oracle::default();
    let points = Arc::new(Mutex::new(Vec::new()));
    let (kept, noted) = (points.clone(), oracle.clone());
    let report = sim::run(seed, move || async move {
        let disk = SimDisk::new(seed, SimDiskOptions { tear, ..SimDiskOptions::default() });
        let recovery_points = RecoveryPoints::default();
        let (oracle, at) = (noted.clone(), recovery_points.clone());
        disk.observe(move |_, image| {
            kept.lock().push(Point { image, moment: oracle.moment(), recovery_points: at.lock().clone() });
        });
        let handle: Arc<dyn Disk> = Arc::new(disk.clone());
        let opened = Log::open(handle, Path::new(DIR), small_options(fresh), Vec::new(), &mut Seen::default()).await;
        let (log, _) = opened.unwrap();
        run(&log, &noted, &recovery_points, replicas, steps, seed).await;
        log.close().await.unwrap();
        disk.stop_observing();
        let (writes, syncs) = disk.operations();
        writes + syncs
    });
    let points = std::mem::take(&mut *points.lock());
    (points, oracle, report.output)
}

async fn open(
    disk: &SimDisk,
    recovery_points: Vec<RecoveryPoint>,
    fresh: Option<bool>,
) -> (Log, Vec<RecoveredReplica>) {
    let handle: Arc<dyn Disk> = Arc::new(disk.clone());
    Log::open(handle, Path::new(DIR), small_options(fresh), recovery_points, &mut Seen::default()).await.unwrap()
}

/// A history that goes on where `recovered` ended: what was not recovered never happened.
fn forked(oracle: &Oracle, recovered: &[RecoveredReplica]) -> Oracle {
    let fork = Oracle::default();
    for replica in recovered {
        let ops = oracle.ops(replica.id)[..replica.sequence as usize].to_vec();
        let acked = ops.len();
        fork.0.lock().insert(replica.id, support::ReplicaHistory { ops, acked });
    }
    fork
}

/// Crash, recover, check; write on, lose power, recover, check again.
async fn try_point(point: &Point, oracle: &Oracle, crash: Crash, seed: u64, fresh: Option<bool>, what: &str) {
    let mut rng = Rng(seed);
    let disk = point.image.crash(crash, rng.next());
    let recovery_points = if rng.below(2) == 0 { point.recovery_points.clone() } else { Vec::new() };
    let (log, recovered) = open(&disk, recovery_points.clone(), fresh).await;
    check(&log, &recovered, &recovery_points, oracle, &point.moment, what).await;
    let second = forked(oracle, &recovered);
    let mut crash = Crash::Power;
    if rng.below(3) != 0 {
        for replica in &recovered {
            let handle = log.replica(replica.id).unwrap();
            drive(log.clone(), second.clone(), handle, 1 + rng.below(3), rng.next()).await;
        }
        create(&log, &second, 900, false).await;
        crash = if rng.below(2) == 0 { Crash::Power } else { Crash::Process };
    }
    // A copy: what the first life still does reaches only its own disk.
    let disk = disk.image().crash(crash, rng.next());
    drop(log);
    let moment = second.moment();
    let (log, recovered) = open(&disk, recovery_points.clone(), fresh).await;
    check(&log, &recovered, &recovery_points, &second, &moment, &format!("{what}, second life")).await;
    drop(log);
}

fn every_point(seed: u64, tear: Tear, fresh: Option<bool>, replicas: u64, steps: u64) -> u64 {
    let (points, oracle, operations) = record(seed, tear, fresh, replicas, steps);
    let tested = points.len() as u64;
    sim::run(seed, move || async move {
        for (number, point) in points.iter().enumerate() {
            for crash in [Crash::Power, Crash::Process] {
                let what = format!("seed {seed}, {tear:?}, fresh {fresh:?}, point {number}, {crash:?}");
                try_point(point, &oracle, crash, seed ^ (number as u64) << 20, fresh, &what).await;
            }
        }
    });
    println!(
        "seed {seed}, {tear:?}, fresh {fresh:?}: {tested} crash points tested = {operations} simulated writes + syncs"
    );
    assert_eq!(tested, operations, "every write and sync is a crash point");
    tested
}

/// Crashes within recovery: at each write and sync that opening a crashed disk makes.
fn every_point_of_recovery(seed: u64, tear: Tear, fresh: Option<bool>, every: usize) -> u64 {
    let (points, oracle, _) = record(seed, tear, fresh, 5, 40);
    let report = sim::run(seed, move || async move {
        let mut tested = 0;
        for (number, point) in points.iter().enumerate().step_by(every) {
            let mut rng = Rng(seed ^ (number as u64) << 20);
            let disk = point.image.crash(if rng.below(2) == 0 { Crash::Power } else { Crash::Process }, rng.next());
            let images = Arc::new(Mutex::new(Vec::new()));
            let kept = images.clone();
            disk.observe(move |_, image| kept.lock().push(image));
            let (log, first) = open(&disk, point.recovery_points.clone(), fresh).await;
            disk.stop_observing();
            drop(log);
            let images = std::mem::take(&mut *images.lock());
            for (within, image) in images.iter().enumerate() {
                let crash = if rng.below(2) == 0 { Crash::Power } else { Crash::Process };
                let disk = image.crash(crash, rng.next());
                let (log, recovered) = open(&disk, point.recovery_points.clone(), fresh).await;
                let what = format!("seed {seed}, {tear:?}, point {number}, recovery's {within}, {crash:?}");
                check(&log, &recovered, &point.recovery_points, &oracle, &point.moment, &what).await;
                tested += 1;
            }
            // What recovery believed it must have made durable.
            let disk = disk.image().crash(Crash::Power, rng.next());
            let (log, again) = open(&disk, point.recovery_points.clone(), fresh).await;
            drop(log);
            assert_eq!(again, first, "seed {seed}, {tear:?}, point {number}: recovery was believed and then lost");
        }
        tested
    });
    println!("seed {seed}, {tear:?}: {} crash points tested within recovery", report.output);
    report.output
}

#[test]
fn sectors_that_are_written_whole() {
    lives_from(1, 100, 100, |random, steps| {
        every_point(random.seed(), Tear::Sectors, Some(false), 7, steps);
    });
}

#[test]
fn pages_that_hold_anything_after_a_tear() {
    lives_from(101, 100, 100, |random, steps| {
        every_point(random.seed(), Tear::Garbage, None, 7, steps);
    });
}

#[test]
fn pages_that_are_written_whole() {
    lives_from(201, 100, 100, |random, steps| {
        every_point(random.seed(), Tear::Pages, None, 7, steps);
    });
}

#[test]
fn recovery_may_be_stopped_anywhere() {
    let sectors = every_point_of_recovery(301, Tear::Sectors, Some(false), 9);
    let garbage = every_point_of_recovery(302, Tear::Garbage, None, 9);
    assert!(sectors + garbage > 200, "{sectors} and {garbage} points");
}
