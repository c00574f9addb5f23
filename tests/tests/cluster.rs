//! A cluster of real nodes in zones: whichever node is killed, paused, stopped or loses its disk, clients continue, and
//! no acknowledged record is lost.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::sync::Once;
use std::time::Duration;

use kafka_protocol::messages::alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic};
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::describe_quorum_response::{Listener, ReplicaState};
use kafka_protocol::messages::{
    AlterPartitionReassignmentsRequest, BrokerId, CreatePartitionsRequest, DescribeQuorumRequest, ElectLeadersRequest,
    ListPartitionReassignmentsRequest, MetadataRequest, UnregisterBrokerRequest, describe_quorum_request,
};
use ottla_tests::cluster::{Cluster, Writers, check, try_at, until};
use ottla_tests::process::{Broker, free_address};
use ottla_tests::raw::{Raw, topic_name};

const TOPIC: &str = "kept";
const PARTITIONS: i32 = 6;
const TOPIC_ALREADY_EXISTS: i16 = 36;

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

/// Replicas stay where a test has put them: a node that joins gets none by itself (tests/tests/balance.rs).
const PLACED_BY_HAND: &[(&str, &str)] = &[("OTTLA_BALANCE_ENABLE", "false")];

/// Three nodes, a topic on all of them, and writers.
fn busy() -> (Cluster, Writers) {
    quiet_writers();
    let cluster = Cluster::start(3, PLACED_BY_HAND);
    cluster.create_topic(TOPIC, PARTITIONS, 3);
    let writers = Writers::start(&cluster.addresses(), TOPIC, PARTITIONS);
    writers.wait_for(300);
    (cluster, writers)
}

/// True if each shard has three voters as this node knows it, and no change of them is under way: in the middle of a
/// joint change those of before have to agree as well.
fn has_three_voters_everywhere(broker: &Broker) -> bool {
    let page = |path: &str| -> serde_json::Value { serde_json::from_str(&broker.http(path).unwrap().1).unwrap() };
    let shards = page("/v1/shards")["shards"].as_array().cloned().unwrap_or_default();
    let is_whole = |shard: &serde_json::Value| {
        let voters = page(&format!("/v1/shards/{}", shard["id"]))["here"]["voters"].clone();
        let sets = voters.as_array().cloned().unwrap_or_default();
        sets.len() == 1 && sets[0].as_array().is_some_and(|voters| voters.len() == 3)
    };
    !shards.is_empty() && shards.iter().all(is_whole)
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

/// A client that is sent to the dead once more asks again much later.
#[test]
fn a_dead_leader_is_named_to_nobody() {
    let (mut cluster, writers) = busy();
    for _ in 0..4 {
        let killed = cluster.leader(TOPIC, 0).unwrap();
        cluster.brokers[killed - 1].kill();
        for (node, broker) in (1..).zip(&cluster.brokers).filter(|(node, _)| *node != killed) {
            let told = Raw::connect(broker.address()).metadata(&[TOPIC]);
            let leaders = told.topics[0].partitions.iter().map(|partition| partition.leader_id.0);
            assert!(leaders.clone().all(|leader| usize::try_from(leader) != Ok(killed)), "node {node}: {leaders:?}");
        }
        writers.wait_for(100);
        cluster.brokers[killed - 1].run();
        writers.wait_for(100);
        all_led(&cluster);
    }
    let acknowledged = writers.stop();
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
    until("all are voters again", || cluster.brokers.iter().all(has_three_voters_everywhere));
    cluster.brokers[2].kill();
    all_led(&cluster);
    check(&cluster, TOPIC, PARTITIONS, &acknowledged);
}

#[test]
fn a_node_that_joins_later_tells_clients_who_leads() {
    let (mut cluster, writers) = busy();
    let place = free_address();
    cluster.add(place, PLACED_BY_HAND).run();
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
fn the_leaders_of_what_was_created_are_known_where_it_was_asked_for() {
    let cluster = Cluster::start(3, &[]);
    let mut client = Raw::connect(cluster.brokers[0].address());
    let leaderless = |client: &mut Raw, name: &str| {
        let parts = client.metadata(&[name]).topics[0].partitions.clone();
        parts.iter().filter(|part| part.leader_id.0 < 0).map(|part| part.partition_index).collect::<Vec<_>>()
    };
    for (name, factor) in [("alone", 1), ("everywhere", 3)] {
        assert_eq!(client.try_create_topic(name, 12, factor, &[]), 0);
        assert_eq!(leaderless(&mut client, name), Vec::<i32>::new(), "partitions of {name:?}");
    }
    let more = CreatePartitionsTopic::default().with_name(topic_name("alone")).with_count(18).with_assignments(None);
    let request = CreatePartitionsRequest::default().with_topics(vec![more]).with_timeout_ms(30_000);
    assert_eq!(client.call(3, &request).results[0].error_code, 0);
    assert_eq!(leaderless(&mut client, "alone"), Vec::<i32>::new());
}

#[test]
fn a_node_that_was_away_knows_in_its_first_answer_what_was_created_meanwhile() {
    let mut cluster = Cluster::start(3, &[]);
    let addresses = cluster.addresses();
    for round in 0..6 {
        let (away, name) = (round % 3, format!("created-{round}"));
        cluster.brokers[away].kill();
        // The first request may get no answer from a leader that has just died, and have worked.
        until("the topic is created", || {
            let mut other = Raw::connect(addresses[(away + 1) % 3]);
            matches!(other.try_create_topic(&name, 3, 1, &[]), 0 | TOPIC_ALREADY_EXISTS)
        });
        cluster.brokers[away].spawn();
        // Its port is open before it serves; a client is not answered by then.
        let mut listed = None;
        until("the node answers", || {
            listed = try_at(addresses[away], |raw| raw.call(9, &MetadataRequest::default().with_topics(None)).topics);
            listed.is_some()
        });
        let names: Vec<_> = listed.unwrap().into_iter().filter_map(|topic| topic.name).collect();
        assert!(names.contains(&topic_name(&name)), "round {round}: {names:?}");
        cluster.brokers[away].wait_until_ready();
    }
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

/// The nodes of one partition's replicas, as the first node answers: all, and those in sync.
fn replicas(cluster: &Cluster, partition: i32) -> (Vec<i32>, Vec<i32>) {
    let metadata = Raw::connect(cluster.brokers[0].address()).metadata(&[TOPIC]);
    let part = metadata.topics[0].partitions.iter().find(|part| part.partition_index == partition).unwrap().clone();
    let ids = |nodes: Vec<BrokerId>| nodes.into_iter().map(|node| node.0).collect::<Vec<_>>();
    (ids(part.replica_nodes), ids(part.isr_nodes))
}

/// Holds elections for all partitions; the errors.
fn elect(cluster: &Cluster, kind: i8) -> Vec<i16> {
    let request = ElectLeadersRequest::default().with_election_type(kind).with_topic_partitions(None);
    let answer = Raw::connect(cluster.brokers[0].address()).call(2, &request.with_timeout_ms(30_000));
    assert_eq!(answer.error_code, 0);
    let results = answer.replica_election_results.into_iter().flat_map(|topic| topic.partition_result);
    results.map(|result| result.error_code).filter(|code| *code != 0).collect()
}

#[test]
fn operators_see_the_quorum_and_have_preferred_leaders_lead_again() {
    let (mut cluster, writers) = busy();
    let voters = |to: &Broker| {
        let one = describe_quorum_request::PartitionData::default().with_partition_index(0);
        let topic = describe_quorum_request::TopicData::default().with_topic_name(topic_name("__cluster_metadata"));
        let request = DescribeQuorumRequest::default().with_topics(vec![topic.with_partitions(vec![one])]);
        let answer = Raw::connect(to.address()).call(2, &request);
        let part = answer.topics[0].partitions[0].clone();
        assert_eq!(part.error_code, 0);
        let reached = |listener: &Listener| listener.name.as_str() == "CONTROLLER" && listener.port > 0;
        assert!(answer.nodes.iter().all(|node| node.listeners.len() == 1 && reached(&node.listeners[0])));
        let caught_up = |voter: &&ReplicaState| voter.log_end_offset >= part.high_watermark;
        (part.leader_id.0, part.current_voters.len(), part.current_voters.iter().filter(caught_up).count())
    };
    until("all voters have everything", || {
        cluster.brokers.iter().all(|broker| voters(broker).1 == 3 && voters(broker).2 == 3)
    });
    let all_preferred =
        || (0..PARTITIONS).all(|p| cluster.leader(TOPIC, p) == usize::try_from(replicas(&cluster, p).0[0]).ok());
    until("preferred leaders lead", || elect(&cluster, 0).is_empty() && all_preferred());
    assert!(elect(&cluster, 1).is_empty(), "nothing is to be done where there are leaders");
    cluster.brokers[1].stop();
    writers.wait_for(100);
    assert!((0..PARTITIONS).all(|p| cluster.leader(TOPIC, p) != Some(2)));
    cluster.brokers[1].run();
    let leads = |node: usize| (0..PARTITIONS).filter(|p| cluster.leader(TOPIC, *p) == Some(node)).count();
    until("node 2 leads again", || elect(&cluster, 0).is_empty() && leads(2) > 0);
    let acknowledged = writers.stop();
    check(&cluster, TOPIC, PARTITIONS, &acknowledged);
}

#[test]
fn shards_are_reassigned_whole() {
    let (mut cluster, writers) = busy();
    cluster.add(free_address(), PLACED_BY_HAND).run();
    let named = |partitions: &[(i32, Option<&[i32]>)]| {
        let one = |(index, nodes): &(i32, Option<&[i32]>)| {
            let nodes = nodes.map(|nodes| nodes.iter().copied().map(BrokerId).collect());
            ReassignablePartition::default().with_partition_index(*index).with_replicas(nodes)
        };
        let topic = ReassignableTopic::default().with_name(topic_name(TOPIC));
        let topic = topic.with_partitions(partitions.iter().map(one).collect());
        let request = AlterPartitionReassignmentsRequest::default().with_timeout_ms(30_000).with_topics(vec![topic]);
        let answer = Raw::connect(cluster.brokers[2].address()).call(1, &request);
        assert_eq!(answer.error_code, 0);
        let parts = answer.responses.into_iter().flat_map(|topic| topic.partitions);
        parts.map(|part| part.error_code).collect::<Vec<_>>()
    };
    until("the fourth node is registered", || {
        Raw::connect(cluster.brokers[2].address()).metadata(&[TOPIC]).brokers.len() == 4
    });
    // As many partitions as shards: each has one of its own.
    assert_eq!(named(&[(0, None)]), [85], "nothing is under way");
    assert_eq!(named(&[(0, Some(&[1, 2, 9]))]), [39], "no such node");
    assert_eq!(named(&[(0, Some(&[4, 2, 3])), (1, Some(&[4, 1]))]), [0, 0]);
    until("they are moved", || {
        let (zero, one) = (replicas(&cluster, 0), replicas(&cluster, 1));
        (zero.0, zero.1.len(), one.0, one.1.len()) == (vec![4, 2, 3], 3, vec![4, 1], 2)
    });
    let listed = || {
        let request = ListPartitionReassignmentsRequest::default().with_topics(None);
        Raw::connect(cluster.brokers[0].address()).call(0, &request).topics.len()
    };
    until("nothing is under way", || listed() == 0);
    writers.wait_for(300);
    let acknowledged = writers.stop();
    check(&cluster, TOPIC, PARTITIONS, &acknowledged);
}

#[test]
fn a_node_that_is_forgotten_before_it_has_kept_anything_is_told_so() {
    let mut cluster = Cluster::start(3, &[]);
    cluster.add(free_address(), &[]).run();
    let nodes = |cluster: &Cluster| Raw::connect(cluster.brokers[0].address()).metadata(&[]).brokers.len();
    until("the fourth node is registered", || nodes(&cluster) == 4);
    // Before its first checkpoint: when it starts again it knows of no cluster, but that it is in one.
    cluster.brokers[3].kill();
    let request = UnregisterBrokerRequest::default().with_broker_id(BrokerId(4));
    let unregister = |cluster: &Cluster| {
        assert_eq!(Raw::connect(cluster.brokers[0].address()).call(0, &request).error_code, 0);
    };
    unregister(&cluster);
    until("it is forgotten", || nodes(&cluster) == 3);
    cluster.brokers[3].spawn();
    until("node 4 ends by itself", || !cluster.brokers[3].is_alive());
    assert!(cluster.brokers[3].log().contains("this node was unregistered"));
    cluster.brokers[3].kill();
    cluster.brokers[3].run();
    until("it is there again", || nodes(&cluster) == 4);
    // Back while that is under way, when it has lost its place but not its record.
    cluster.brokers[3].kill();
    unregister(&cluster);
    let metadata = |cluster: &Cluster| {
        let answer = cluster.brokers[0].http("/v1/shards/0").unwrap().1;
        serde_json::from_str::<serde_json::Value>(&answer).unwrap()["replicas"].as_array().unwrap().len()
    };
    until("it has given up the metadata", || metadata(&cluster) == 3);
    cluster.brokers[3].spawn();
    until("node 4 ends by itself again", || !cluster.brokers[3].is_alive());
    assert_eq!(cluster.brokers[3].log().matches("this node was unregistered").count(), 2);
    cluster.brokers[3].kill();
    cluster.brokers[3].run();
    until("it is there once more", || nodes(&cluster) == 4);
}

#[test]
fn a_node_is_drained_then_unregistered_and_comes_back_as_a_new_one() {
    let (mut cluster, writers) = busy();
    cluster.add(free_address(), &[]).run();
    let drain = |cluster: &Cluster, path: &str| cluster.brokers[1].http_post(path).map(|(status, _)| status);
    let holds = |cluster: &Cluster, node: &str| {
        let answer = cluster.brokers[1].http_post(&format!("/api/nodes/{node}/drain")).unwrap().1;
        serde_json::from_str::<serde_json::Value>(&answer).unwrap()["nodes"][0]["shards"].as_u64().unwrap()
    };
    assert_eq!(drain(&cluster, "/api/nodes/9/drain"), Some(404));
    assert_eq!(drain(&cluster, "/api/zones/zone-1/drain"), Some(200));
    until("node 1 holds nothing", || holds(&cluster, "1") == 0);
    let on_one = |cluster: &Cluster| (0..PARTITIONS).filter(|p| replicas(cluster, *p).0.contains(&1)).count();
    until("clients are told", || on_one(&cluster) == 0);
    writers.wait_for(200);
    let unregister = |cluster: &Cluster, node: i32| {
        let request = UnregisterBrokerRequest::default().with_broker_id(BrokerId(node));
        Raw::connect(cluster.brokers[1].address()).call(0, &request).error_code
    };
    assert_eq!(unregister(&cluster, 9), 102);
    assert_eq!(unregister(&cluster, 1), 0);
    until("node 1 ends by itself", || !cluster.brokers[0].is_alive());
    assert!(cluster.brokers[0].log().contains("this node was unregistered"));
    let nodes = |cluster: &Cluster| Raw::connect(cluster.brokers[1].address()).metadata(&[TOPIC]).brokers.len();
    until("it is forgotten", || nodes(&cluster) == 3);
    assert_eq!(unregister(&cluster, 2), 44, "three replicas do not fit on two nodes");
    cluster.brokers[0].kill();
    cluster.brokers[0].run();
    until("it is there again", || nodes(&cluster) == 4);
    // Unregistered while it is dead, it learns that at its next start.
    cluster.brokers[0].kill();
    assert_eq!(unregister(&cluster, 1), 0);
    until("it is forgotten once more", || nodes(&cluster) == 3);
    cluster.brokers[0].spawn();
    until("node 1 ends by itself once more", || !cluster.brokers[0].is_alive());
    assert_eq!(cluster.brokers[0].log().matches("this node was unregistered").count(), 2);
    cluster.brokers[0].kill();
    cluster.brokers[0].run();
    until("it is there once more", || nodes(&cluster) == 4);
    writers.wait_for(200);
    let acknowledged = writers.stop();
    check(&cluster, TOPIC, PARTITIONS, &acknowledged);
}
