//! Real nodes in zones: whichever is killed, paused, stopped or comes back with an empty disk, clients go on, and nothing that
//! was acknowledged is lost.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::sync::Once;
use std::time::Duration;

use ottla_tests::cluster::{Cluster, Writers, check, until};
use ottla_tests::process::{Broker, free_address};
use ottla_tests::raw::Raw;

const TOPIC: &str = "kept";
const PARTITIONS: i32 = 6;

/// Writers end a connection by panicking; only other threads have something to say.
fn quiet_writers() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let told = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if std::thread::current().name() != Some("writer") {
                told(info);
            }
        }));
    });
}

/// Three nodes, a topic on all of them, and writers.
fn busy() -> (Cluster, Writers) {
    quiet_writers();
    let cluster = Cluster::start(3, &[]);
    cluster.create_topic(TOPIC, PARTITIONS, 3);
    let writers = Writers::start(&cluster.addresses(), TOPIC, PARTITIONS);
    writers.wait_for(300);
    (cluster, writers)
}

fn all_led(cluster: &Cluster) {
    until("every partition has a leader", || (0..PARTITIONS).all(|p| cluster.leader(TOPIC, p).is_some()));
}

#[test]
fn nothing_acknowledged_is_lost_whichever_node_is_killed() {
    let (mut cluster, writers) = busy();
    for round in 0..9 {
        let killed = round % 3;
        cluster.brokers[killed].kill();
        writers.wait_for(300);
        cluster.brokers[killed].run();
        writers.wait_for(100);
        all_led(&cluster);
    }
    let acknowledged = writers.stop();
    check(&cluster, TOPIC, PARTITIONS, &acknowledged);
    cluster.brokers.iter_mut().for_each(Broker::stop);
    cluster.brokers.iter_mut().for_each(Broker::spawn);
    cluster.brokers.iter_mut().for_each(Broker::wait_until_ready);
    check(&cluster, TOPIC, PARTITIONS, &acknowledged);
}

#[test]
fn nodes_are_restarted_one_by_one_and_stand_still_one_by_one() {
    let (mut cluster, writers) = busy();
    for node in 0..3 {
        cluster.brokers[node].stop();
        writers.wait_for(200);
        cluster.brokers[node].run();
        writers.wait_for(200);
    }
    for node in 0..3 {
        cluster.brokers[node].signal(libc::SIGSTOP);
        writers.wait_for(100);
        cluster.brokers[node].signal(libc::SIGCONT);
        writers.wait_for(100);
    }
    all_led(&cluster);
    let acknowledged = writers.stop();
    check(&cluster, TOPIC, PARTITIONS, &acknowledged);
}

/// Its replicas are rebuilt from the others, after which any other node may fail.
#[test]
fn a_node_with_an_empty_disk_becomes_whole_again() {
    let (mut cluster, writers) = busy();
    cluster.brokers[1].kill();
    std::fs::remove_dir_all(cluster.brokers[1].data()).unwrap();
    writers.wait_for(200);
    let replicas = |broker: &Broker, role: &str| broker.metric("ottla_raft_replicas", &format!("role=\"{role}\""));
    let voters = |broker: &Broker| replicas(broker, "leader") + replicas(broker, "follower");
    cluster.brokers[1].run();
    until("its replicas are voters again", || voters(&cluster.brokers[1]) == voters(&cluster.brokers[2]));
    cluster.brokers[0].kill();
    writers.wait_for(300);
    let acknowledged = writers.stop();
    cluster.brokers[0].run();
    all_led(&cluster);
    check(&cluster, TOPIC, PARTITIONS, &acknowledged);
}

/// Two of three are gone for good: nothing goes on before an operator says so, then the last one does, alone, with all that
/// it had acknowledged; and two empty nodes make it three again.
#[test]
fn one_node_of_three_is_recovered_by_hand() {
    let (mut cluster, writers) = busy();
    cluster.brokers[0].kill();
    // From now on whatever is acknowledged is on node 3, and so is all that came before.
    writers.wait_for(300);
    let acknowledged = writers.stop();
    cluster.brokers[1].kill();
    let running = cluster.brokers[2].command(&["unsafe-recover", "--lost", "1,2", "--execute"]);
    assert_eq!(running.0, Some(1), "the node runs: {}", running.1);
    cluster.brokers[2].kill();
    let (code, told) = cluster.brokers[2].command(&["unsafe-recover", "--lost", "1"]);
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("left alone") && !told.contains("becomes the only voter"), "{told}");
    let (code, told) = cluster.brokers[2].command(&["unsafe-recover", "--lost=1,2"]);
    assert!(code == Some(0) && told.contains("Nothing was changed"), "{told}");
    let (code, told) = cluster.brokers[2].command(&["unsafe-recover", "--lost", "1,2", "--execute"]);
    assert!(code == Some(0) && told.contains("becomes the only voter"), "{told}");
    cluster.brokers[2].run();
    all_led(&cluster);
    check(&cluster, TOPIC, PARTITIONS, &acknowledged);
    for lost in [0, 1] {
        std::fs::remove_dir_all(cluster.brokers[lost].data()).unwrap();
        cluster.brokers[lost].spawn();
    }
    cluster.brokers[..2].iter_mut().for_each(Broker::wait_until_ready);
    let counted = |broker: &Broker, role: &str| broker.metric("ottla_raft_replicas", &format!("role=\"{role}\""));
    let voters = |broker: &Broker| counted(broker, "leader") + counted(broker, "follower");
    until("all are voters again", || {
        let all = voters(&cluster.brokers[2]);
        all > 1.0 && cluster.brokers.iter().all(|broker| voters(broker) == all && counted(broker, "learner") == 0.0)
    });
    cluster.brokers[2].kill();
    all_led(&cluster);
    check(&cluster, TOPIC, PARTITIONS, &acknowledged);
}

#[test]
fn a_node_that_joins_later_tells_clients_who_leads() {
    let (mut cluster, writers) = busy();
    let place = free_address();
    cluster.add(place, &[]).run();
    let fourth = cluster.brokers[3].address();
    until("the fourth node knows every leader", || {
        let metadata = Raw::connect(fourth).metadata(&[TOPIC]);
        let parts = metadata.topics.first().map(|topic| topic.partitions.clone()).unwrap_or_default();
        parts.len() == usize::try_from(PARTITIONS).unwrap()
            && parts.iter().all(|part| part.leader_id.0 > 0)
            && metadata.brokers.len() == 4
    });
    let acknowledged = writers.stop();
    check(&cluster, TOPIC, PARTITIONS, &acknowledged);
}

#[test]
fn strangers_are_refused_and_say_why() {
    let mut cluster = Cluster::start(3, &[]);
    let log_says = |broker: &Broker, what: &str| broker.log().contains(what);
    let twin = cluster.add(free_address(), &[]);
    twin.set("KAFKA_NODE_ID", "2");
    twin.spawn();
    until("the twin says why", || log_says(&cluster.brokers[3], "node id 2 is in use"));
    cluster.brokers[3].kill();
    let stranger = cluster.add(free_address(), &[]);
    stranger.set("CLUSTER_ID", "AAAAAAAAAAAAAAAAAAAAAA");
    stranger.spawn();
    until("the stranger says why", || log_says(&cluster.brokers[4], "belongs to cluster"));
    std::thread::sleep(Duration::ZERO);
}
