//! Tests of the simulated world: order, time, crashes, deadlocks, and that a seed repeats.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::disk::{Crash, SimDisk, SimDiskOptions};
use super::*;
use crate::critical::{Owner, process_failed};
use crate::disk::{Disk, OpenMode};
use crate::{rt, watch};

/// The order in which eight ready tasks run.
fn order(seed: u64) -> Vec<u32> {
    let report = run_twice(seed, || async {
        let order = Arc::new(parking_lot::Mutex::new(Vec::new()));
        let tasks: Vec<_> = (0..8)
            .map(|number| {
                let order = order.clone();
                rt::spawn(async move { order.lock().push(number) })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        Arc::try_unwrap(order).unwrap().into_inner()
    });
    report.output
}

#[test]
fn the_seed_chooses_among_ready_tasks_and_repeats() {
    let orders: BTreeSet<Vec<u32>> = (0..20).map(order).collect();
    assert!(orders.len() > 15, "{} orders of 20 seeds", orders.len());
}

#[test]
fn what_escapes_the_seed_is_found() {
    static ESCAPED: AtomicU64 = AtomicU64::new(0);
    let differs = std::panic::catch_unwind(|| {
        run_twice(1, || async { trace(&ESCAPED.fetch_add(1, Ordering::Relaxed).to_le_bytes()) });
    });
    assert!(differs.is_err());
}

#[test]
fn time_jumps_to_the_next_timer_and_is_virtual() {
    let report = run(1, || async {
        let before = rt::now();
        rt::sleep(Duration::from_secs(86_400)).await;
        rt::now().since(before)
    });
    assert!(report.output >= Duration::from_secs(86_400));
    assert!(report.output < Duration::from_secs(86_401));
}

#[test]
fn a_busy_loop_cannot_freeze_time() {
    run(1, || async {
        let timer = rt::spawn(rt::sleep(Duration::from_millis(1)));
        let busy = rt::spawn(async {
            loop {
                rt::yield_now().await;
            }
        });
        timer.await.unwrap();
        busy.abort();
        assert!(!busy.await.unwrap_err().is_panic());
    });
}

#[test]
fn a_deadlock_is_a_finding() {
    let found = std::panic::catch_unwind(|| {
        run(1, || async {
            let _stuck = rt::spawn(std::future::pending::<()>());
            std::future::pending::<()>().await;
        });
    });
    let message = rt::panic_message(&*found.unwrap_err());
    assert!(message.contains("deadlock"), "{message}");
    assert!(message.contains("tests.rs"), "it says who waits: {message}");
}

struct OnDrop(Arc<AtomicU64>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
        // What a dying node starts never runs.
        let counter = self.0.clone();
        rt::spawn(async move { counter.fetch_add(100, Ordering::Relaxed) });
    }
}

#[test]
fn a_crash_drops_the_node_s_tasks_and_nothing_runs_in_its_name() {
    run(1, || async {
        let node = SimNode(7);
        let counter = Arc::new(AtomicU64::new(0));
        for _ in 0..3 {
            let guard = OnDrop(counter.clone());
            spawn_on(node, async move {
                let _guard = guard;
                // Inherits the node.
                rt::spawn(rt::sleep(Duration::from_secs(9))).await.unwrap();
            });
        }
        rt::sleep(Duration::from_millis(1)).await;
        crash(node);
        let reborn = spawn_on(node, async { current_node() });
        assert_eq!(reborn.await.unwrap(), node);
        rt::sleep(Duration::from_millis(1)).await;
        assert_eq!(counter.load(Ordering::Relaxed), 3);
    });
}

#[test]
fn a_node_may_crash_itself() {
    run(1, || async {
        let handle = spawn_on(SimNode(1), async {
            crash(SimNode(1));
            rt::sleep(Duration::from_millis(1)).await;
        });
        assert!(handle.await.is_err());
    });
}

#[test]
fn clocks_drift_and_differ_by_node() {
    run(1, || async {
        set_clock(SimNode(1), NodeClock { offset_ns: 5_000_000_000, drift_ppm: 1_000, wall_offset_ms: -3_600_000 });
        let slept = spawn_on(SimNode(1), async {
            let before = rt::now();
            rt::sleep(Duration::from_secs(1_000)).await;
            (rt::now().since(before), rt::wall_clock_ms())
        });
        let before = elapsed();
        let (local, wall) = slept.await.unwrap();
        let true_time = elapsed() - before;
        assert!(local >= Duration::from_secs(1_000), "a sleep is never short by its own clock");
        assert!(true_time < Duration::from_millis(999_100), "a fast clock is early: {true_time:?}");
        assert!((rt::wall_clock_ms() - wall - 3_600_000).abs() < 2_000);
    });
}

#[test]
fn a_panic_reaches_the_handle_and_abort_stops_a_task() {
    run(1, || async {
        let error = rt::spawn(async { panic!("on purpose") }).await.unwrap_err();
        assert!(error.is_panic() && error.to_string() == "on purpose");
        let blocked = rt::spawn_blocking(|| 5).await.unwrap();
        assert_eq!(blocked, 5);
        let dedicated = rt::spawn_dedicated("writer", Owner::process(), async { current_node() }).unwrap();
        assert_eq!(dedicated.await.unwrap(), SimNode(0));
        assert!(rt::timeout(Duration::from_secs(1), std::future::pending::<()>()).await.is_err());
    });
}

#[test]
fn a_dropped_sleep_leaves_no_timer() {
    let report = run(1, || async {
        let _ = rt::timeout(Duration::from_secs(1_000), async {}).await;
    });
    assert!(report.elapsed < Duration::from_secs(1));
}

#[test]
fn watch_shows_the_newest_value_and_ends_with_its_sender() {
    run_twice(1, || async {
        let (sender, mut receiver) = watch::channel(0);
        let follower = rt::spawn(async move {
            let mut seen = vec![*receiver.borrow()];
            while receiver.changed().await.is_ok() {
                seen.push(*receiver.borrow_and_update());
            }
            seen
        });
        for value in 1..=3 {
            rt::sleep(Duration::from_millis(1)).await;
            sender.send(value).unwrap();
        }
        rt::sleep(Duration::from_millis(1)).await;
        drop(sender);
        assert_eq!(follower.await.unwrap(), [0, 1, 2, 3]);
    });
}

#[test]
fn watch_without_a_listener_says_so_and_a_late_one_sees_the_value() {
    run(1, || async {
        let sender = watch::Sender::new(1);
        assert_eq!(sender.send(2), Err(watch::SendError(2)));
        assert_eq!(sender.send_replace(3), 1);
        let mut late = sender.subscribe();
        assert_eq!(late.has_changed(), Ok(false));
        assert_eq!(*late.wait_for(|&value| value == 3).await.unwrap(), 3);
        sender.send_if_modified(|_| false);
        assert_eq!(late.has_changed(), Ok(false));
        drop(sender);
        assert_eq!(late.changed().await, Err(watch::RecvError));
    });
}

/// The same facade on real threads.
#[test]
fn production_runs_on_tokio_and_on_threads_of_its_own() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
    runtime.block_on(async {
        assert!(!is_active());
        let (sender, mut receiver) = watch::channel(0u64);
        let writer = rt::spawn_dedicated("writer", Owner::process(), async move {
            for value in 1..=100 {
                rt::sleep(Duration::from_micros(10)).await;
                sender.send_replace(value);
            }
            std::thread::current().name().map(str::to_owned)
        });
        let writer = writer.unwrap();
        assert_eq!(*receiver.wait_for(|&value| value == 100).await.unwrap(), 100);
        assert_eq!(writer.await.unwrap().as_deref(), Some("writer"));
        let stuck = rt::spawn_dedicated("stuck", Owner::process(), std::future::pending::<()>()).unwrap();
        stuck.abort();
        assert!(!stuck.await.unwrap_err().is_panic());
        // Its end is reported even if its own thread panicked.
        let broken = rt::spawn_dedicated("broken", Owner::process(), async { panic!("on its own thread") });
        assert!(broken.unwrap().await.unwrap_err().is_panic());
        assert_eq!(&*process_failed().await, "task broken panicked: on its own thread");
        let late = rt::timeout_at(rt::now() + Duration::from_millis(1), std::future::pending::<()>()).await;
        assert_eq!(late, Err(rt::Elapsed));
    });
}

#[test]
fn a_file_that_was_made_and_removed_may_be_there_again_after_a_loss_of_power() {
    for seed in 0..8 {
        let disk = SimDisk::new(seed, SimDiskOptions::default());
        let (dir, path) = (Path::new("/d"), Path::new("/d/a"));
        disk.create_dir_all(dir).unwrap();
        disk.open(path, OpenMode::CreateNew).unwrap();
        disk.unlink(path).unwrap();
        // The process dies first: its names are not on the disk yet, and may still reach it in part.
        disk.crash(Crash::Process);
        disk.crash(Crash::Power);
        for entry in disk.list(dir).unwrap() {
            let file = disk.open(&dir.join(&entry.name), OpenMode::Read).unwrap();
            assert_eq!(file.bytes().unwrap(), 0, "seed {seed}: it has a name and no content");
        }
    }
}

/// The process ends when a critical task of it does; the panic of one caller's task is counted, and nothing else happens.
#[test]
fn a_critical_task_of_the_process_ends_it_and_a_contained_one_does_not() {
    use crate::critical::panic_counts;
    use crate::sim;
    use std::time::Duration;
    sim::run(1, || async {
        let node = SimNode(3);
        let joined = sim::spawn_on(node, async {
            let contained = rt::spawn(async { panic!("one request") });
            let failed = contained.await.map_err(|error| error.is_panic());
            rt::spawn_critical("test-listener", Owner::process(), std::future::pending::<()>());
            failed
        });
        assert_eq!(joined.await.unwrap(), Err(true));
        rt::sleep(Duration::from_millis(1)).await;
        assert_eq!(sim::take_fatal(node), None);
        let told = sim::take_panics();
        assert!(matches!(&told[..], [(at, what)] if *at == node && what.contains("one request")), "{told:?}");
        let tasks = sim::critical_tasks(node);
        assert_eq!(tasks.iter().map(|(_, name)| *name).collect::<Vec<_>>(), ["test-listener"]);
        assert_eq!(panic_counts()["test-listener"], 0, "it is there before it counts");
        sim::make_panic(tasks[0].0);
        rt::sleep(Duration::from_millis(1)).await;
        assert!(sim::take_fatal(node).is_some_and(|why| why.contains("test-listener")));
        assert!(sim::has_panicked(tasks[0].0) && sim::take_panics().is_empty() && sim::critical_tasks(node).is_empty());
        assert_eq!(panic_counts()["test-listener"], 1);
    });
}

/// What a library starts within a critical task belongs to that task's owner.
#[test]
fn what_a_critical_task_starts_belongs_to_its_owner() {
    use crate::sim;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;
    sim::run(2, || async {
        let ended = std::sync::Arc::new(AtomicU32::new(0));
        let count = ended.clone();
        let owner = Owner::new(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
        });
        let inner = || rt::spawn_within("inner", async { panic!("deep down") });
        rt::spawn_critical("outer", owner.clone(), async move { drop(inner()) });
        rt::sleep(Duration::from_millis(1)).await;
        assert_eq!(ended.load(Ordering::SeqCst), 1);
        owner.scope(|| rt::spawn_within("inner", async { panic!("from a scope") }));
        rt::sleep(Duration::from_millis(1)).await;
        assert_eq!(ended.load(Ordering::SeqCst), 2);
        rt::spawn_within("inner", async { panic!("of nobody") });
        rt::sleep(Duration::from_millis(1)).await;
        assert_eq!(ended.load(Ordering::SeqCst), 2);
    });
}
