//! Many groups: responses that cover all groups at once are complete, and their latency is printed.
//!
//! 10,000 groups, a tenth of them with a member, 100,000 committed offsets on 100,000 partitions, one node and three.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    DescribeGroupsRequest, FindCoordinatorRequest, GroupId, JoinGroupRequest, ListGroupsRequest, OffsetCommitRequest,
    OffsetFetchRequest, SyncGroupRequest,
};
use kafka_protocol::protocol::Request;
use ottla_tests::cluster::{Cluster, until};
use ottla_tests::process::Broker;
use ottla_tests::raw::{Raw, text, topic_name};

const GROUPS: usize = 10_000;
const MEMBER_EVERY: usize = 10;
const TOPICS: usize = 10;
const PARTITIONS_PER_TOPIC: usize = 10_000;
const OFFSETS_PER_GROUP: usize = TOPICS * PARTITIONS_PER_TOPIC / GROUPS;
const IN_FLIGHT_MAX: usize = 500;
const CONNECTIONS: usize = 16;

fn group(number: usize) -> String {
    format!("group-{number:05}")
}

/// Commits to the group's own ten partitions.
fn commit(number: usize) -> OffsetCommitRequest {
    let first = number * OFFSETS_PER_GROUP;
    let topic = topic_name(&format!("topic-{}", first / PARTITIONS_PER_TOPIC));
    let part = |at: usize| {
        OffsetCommitRequestPartition::default()
            .with_partition_index(i32::try_from(at % PARTITIONS_PER_TOPIC).unwrap())
            .with_committed_offset(i64::try_from(at).unwrap())
    };
    let partitions = (first..first + OFFSETS_PER_GROUP).map(part).collect();
    OffsetCommitRequest::default()
        .with_group_id(GroupId(text(&group(number))))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![OffsetCommitRequestTopic::default().with_name(topic).with_partitions(partitions)])
}

/// Sends many requests at a time; their answers in order.
fn pipelined<R: Request>(raw: &mut Raw, version: i16, requests: &[R], mut each: impl FnMut(usize, R::Response)) {
    for (round, some) in requests.chunks(IN_FLIGHT_MAX).enumerate() {
        let asked: Vec<i32> = some.iter().map(|request| raw.ask(version, request)).collect();
        for (place, correlation) in asked.into_iter().enumerate() {
            each(round * IN_FLIGHT_MAX + place, raw.answer::<R>(version, correlation).unwrap());
        }
    }
}

/// The groups of each node.
fn coordinators(to: SocketAddr) -> BTreeMap<i32, Vec<usize>> {
    let keys = (0..GROUPS).map(|number| text(&group(number))).collect();
    let request = FindCoordinatorRequest::default().with_key_type(0).with_coordinator_keys(keys);
    let mut found = BTreeMap::new();
    until("every group has a coordinator", || {
        let answer = timed("FindCoordinator", GROUPS, || Raw::connect(to).call(4, &request));
        found = BTreeMap::<i32, Vec<usize>>::new();
        for (number, coordinator) in answer.coordinators.iter().enumerate() {
            if coordinator.error_code != 0 {
                std::thread::sleep(Duration::from_millis(200));
                return false;
            }
            found.entry(coordinator.node_id.0).or_default().push(number);
        }
        true
    });
    found
}

/// Fills a node's groups over many connections: the requests of one wait for each other's sync.
fn fill_all(to: SocketAddr, numbers: &[usize]) {
    std::thread::scope(|scope| {
        for some in numbers.chunks(numbers.len().div_ceil(CONNECTIONS)) {
            scope.spawn(move || fill(to, some));
        }
    });
}

/// Commits for these groups, then lets every tenth have a member.
fn fill(to: SocketAddr, numbers: &[usize]) {
    let mut raw = Raw::connect(to);
    let commits: Vec<_> = numbers.iter().map(|number| commit(*number)).collect();
    pipelined(&mut raw, 7, &commits, |_, answer| {
        assert!(answer.topics[0].partitions.iter().all(|part| part.error_code == 0));
    });
    let with_member: Vec<usize> = numbers.iter().copied().filter(|number| number % MEMBER_EVERY == 0).collect();
    let protocol = JoinGroupRequestProtocol::default()
        .with_name(text("range"))
        .with_metadata(Bytes::from_static(b"\0\0\0\0\0\x01\0\x07topic-0\xff\xff\xff\xff"));
    let join = |number: &usize| {
        JoinGroupRequest::default()
            .with_group_id(GroupId(text(&group(*number))))
            .with_session_timeout_ms(600_000)
            .with_rebalance_timeout_ms(600_000)
            .with_protocol_type(text("consumer"))
            .with_protocols(vec![protocol.clone()])
    };
    let mut members = Vec::new();
    pipelined(&mut raw, 3, &with_member.iter().map(join).collect::<Vec<_>>(), |_, answer| {
        assert_eq!(answer.error_code, 0);
        members.push((answer.member_id, answer.generation_id));
    });
    let sync = |(number, (member, generation)): (&usize, &(_, i32))| {
        let share = SyncGroupRequestAssignment::default().with_member_id(Clone::clone(member));
        SyncGroupRequest::default()
            .with_group_id(GroupId(text(&group(*number))))
            .with_generation_id(*generation)
            .with_member_id(Clone::clone(member))
            .with_assignments(vec![share.with_assignment(Bytes::from_static(b"share"))])
    };
    let syncs: Vec<_> = with_member.iter().zip(&members).map(sync).collect();
    pipelined(&mut raw, 2, &syncs, |_, answer| assert_eq!(answer.error_code, 0));
}

fn timed<T>(what: &str, count: usize, work: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let done = work();
    println!("{what} of {count}: {:?}", began.elapsed());
    done
}

/// Asks a node for all of its groups at once, as tools do, and checks that the answers are whole.
fn ask_for_all(to: SocketAddr, numbers: &[usize]) {
    let mut raw = Raw::connect(to);
    let listed = timed("ListGroups", numbers.len(), || raw.call(5, &ListGroupsRequest::default()));
    assert_eq!((listed.error_code, listed.groups.len()), (0, numbers.len()));

    let ids: Vec<GroupId> = numbers.iter().map(|number| GroupId(text(&group(*number)))).collect();
    let describe = DescribeGroupsRequest::default().with_groups(ids.clone());
    let described = timed("DescribeGroups", numbers.len(), || raw.call(6, &describe));
    assert!(described.groups.iter().map(|found| &found.group_id).eq(&ids), "in the order that was asked for");
    for (found, number) in described.groups.iter().zip(numbers) {
        let members = usize::from(number % MEMBER_EVERY == 0);
        assert_eq!((found.error_code, found.members.len()), (0, members), "{}", found.group_id.as_str());
    }

    let wanted = |id: &GroupId| OffsetFetchRequestGroup::default().with_group_id(id.clone()).with_topics(None);
    let fetch = OffsetFetchRequest::default().with_groups(ids.iter().map(wanted).collect());
    let fetched = timed("OffsetFetch", numbers.len(), || raw.call(8, &fetch));
    assert!(fetched.groups.iter().map(|found| &found.group_id).eq(&ids), "in the order that was asked for");
    for (found, number) in fetched.groups.iter().zip(numbers) {
        assert_eq!((found.error_code, found.topics[0].partitions.len()), (0, OFFSETS_PER_GROUP));
        let first = i64::try_from(number * OFFSETS_PER_GROUP).unwrap();
        assert_eq!(found.topics[0].partitions[0].committed_offset, first);
    }
}

const SETTINGS: [(&str, &str); 2] =
    [("KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS", "0"), ("KAFKA_GROUP_MAX_SESSION_TIMEOUT_MS", "1800000")];

#[test]
fn ten_thousand_groups_are_listed_and_described_at_once() {
    let mut broker = Broker::start(&SETTINGS);
    let to = broker.address();
    let mut raw = Raw::connect(to);
    for topic in 0..TOPICS {
        raw.create_topic(&format!("topic-{topic}"), i32::try_from(PARTITIONS_PER_TOPIC).unwrap(), &[]);
    }
    let found = coordinators(to);
    timed("commits and joins", GROUPS, || fill_all(to, &found[&1]));
    for _ in 0..3 {
        ask_for_all(to, &found[&1]);
    }
    broker.stop();
}

#[test]
fn ten_thousand_groups_of_three_nodes_are_listed_and_described_at_once() {
    let mut cluster = Cluster::start(3, &SETTINGS);
    for topic in 0..TOPICS {
        cluster.create_topic(&format!("topic-{topic}"), i32::try_from(PARTITIONS_PER_TOPIC).unwrap(), 3);
    }
    let addresses = cluster.addresses();
    let at = |node: i32| addresses[usize::try_from(node).unwrap() - 1];
    let found = coordinators(addresses[0]);
    assert_eq!(found.values().map(Vec::len).sum::<usize>(), GROUPS);
    for (node, numbers) in &found {
        timed("commits and joins", numbers.len(), || fill_all(at(*node), numbers));
    }
    for (node, numbers) in &found {
        ask_for_all(at(*node), numbers);
    }
    cluster.brokers.iter_mut().for_each(Broker::stop);
}
