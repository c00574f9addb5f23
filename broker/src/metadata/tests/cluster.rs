//! The metadata group over three nodes and a simulated network: requests to any node, images on every node.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use ottla_env::rt;
use ottla_env::sim::net::Conditions;
use ottla_env::sim::{self, SimNode};
use ottla_protocol::ids::NodeId;
use ottla_raft::{Directory, Faults, RaftHost, RaftOptions, Service, SimNetwork};
use ottla_storage::ids::ReplicaId;
use uuid::Uuid;

use crate::config::{Config, LivenessConfig};
use crate::metadata::bootstrap_service::{BootstrapResponse, ReplicaAssignment, bootstrap_address};
use crate::metadata::discovery::{FixedSeedNodes, discover, is_removed};
use crate::metadata::start::registration_of;
use crate::metadata::tests::live::Memory;
use crate::metadata::*;

pub(crate) const NODES: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Default)]
pub(crate) struct Cluster {
    pub(crate) network: SimNetwork,
    pub(crate) memories: BTreeMap<NodeId, Memory>,
    /// Disks that were lost for good.
    pub(crate) wiped: u128,
    /// Only the first of the nodes founds the cluster, alone; the others join it.
    pub(crate) founded_alone: bool,
    /// The configuration of all nodes, if it is not the default.
    pub(crate) session_timeout: Option<Duration>,
}

pub(crate) fn machine_of(node: NodeId) -> SimNode {
    SimNode(node.0.unsigned_abs())
}

impl Cluster {
    pub(crate) fn start(&mut self, node: NodeId) -> impl Future<Output = (MetadataHandle, RaftHost)> + use<> {
        let (network, memory) = (self.network.clone(), self.memories.entry(node).or_default().clone());
        let directory = u128::from(node.0.unsigned_abs()) + 100 * self.wiped;
        let founders = if self.founded_alone { &NODES[..1] } else { &NODES };
        let session_timeout = self.session_timeout;
        let founders: Vec<_> = founders.iter().map(|node| (*node, node.to_string())).collect();
        let begun = sim::spawn_on(machine_of(node), async move {
            let peer_table = Arc::new(PeerTable::default());
            let seeds = Seeds::of(node, &founders, peer_table.clone());
            let host = RaftHost::new(network.for_node(machine_of(node), peer_table), RaftOptions::default());
            network.attach(machine_of(node), host.clone());
            let mut config = Config::default();
            config.node_id = node;
            if let Some(session_timeout) = session_timeout {
                config.liveness = LivenessConfig { session_timeout, heartbeat_interval: session_timeout / 3 };
            }
            let directory = Uuid::from_u128(directory);
            let free = DirectoryRecord { id: directory, path: "/data".into(), free_bytes: 100 };
            let mut local = LocalNode::from_config(&config, vec![free]);
            local.listeners.push(ListenerEndpoint { name: CLUSTER_LISTENER.into(), host: node.to_string(), port: 1 });
            let home = (Arc::new(memory.clone()) as Arc<dyn Directory>, directory);
            let recovered = memory.recovered();
            let metadata = MetadataHandle::start(&host, home, recovered.as_ref(), local, Arc::new(config), seeds).await;
            (metadata.unwrap(), host)
        });
        async move { begun.await.unwrap() }
    }

    /// The first node, and a second one that joins it and leads.
    async fn start_two(&mut self) -> [(MetadataHandle, RaftHost); 2] {
        let (first, host) = self.start(NODES[0]).await;
        let second = self.start(NODES[1]).await;
        let both = BTreeSet::from([first.group().replica(), second.0.group().replica()]);
        let formed = async {
            while first.group().membership().voters != [both.clone()] {
                rt::sleep(PATIENCE / 50).await;
            }
        };
        rt::timeout(PATIENCE * 4, formed).await.unwrap();
        host.transfer_leaderships(PATIENCE).await;
        assert_eq!(second.0.controller_id(), Some(NODES[1]));
        [(first, host), second]
    }

    pub(crate) async fn start_all(&mut self) -> Vec<(MetadataHandle, RaftHost)> {
        // No start returns before all nodes are up.
        let all = NODES.map(|node| self.start(node));
        let all = join_all(all).await;
        for (metadata, _) in &all {
            let joined = |image: &Arc<MetadataImage>| image.nodes.len() == NODES.len();
            let mut images = metadata.watch();
            drop(rt::timeout(PATIENCE, images.wait_for(joined)).await.unwrap().unwrap());
        }
        all
    }
}

fn named(name: &str) -> NewTopic {
    NewTopic { name: name.to_owned(), partitions: Some(2), ..NewTopic::default() }
}

pub(crate) async fn shut_down(all: &[(MetadataHandle, RaftHost)]) {
    for (_, host) in all {
        host.shutdown().await;
    }
}

#[test]
fn every_node_takes_changes_and_every_node_knows_them_after_a_read_index() {
    sim::run_twice(1, || async {
        let all = Cluster::default().start_all().await;
        let image = all[0].0.image();
        // Shards are placed when all founders are registered: two for each node, each on three nodes in registered
        // directories.
        assert_eq!(image.shards.len(), 7);
        let metadata = image.shard(ShardId::METADATA).unwrap();
        let directories: BTreeSet<_> = metadata.replicas.iter().map(|replica| replica.directory.as_u128()).collect();
        assert_eq!(directories, BTreeSet::from([1, 2, 3]));
        let ids: BTreeSet<_> = image.shards.values().flat_map(|shard| &shard.replicas).map(|r| r.id).collect();
        assert_eq!(ids.len(), 21, "replica ids are never given twice");
        assert!(image.shards.values().all(|shard| shard.replicas.len() == 3));
        for (at, (metadata, _)) in all.iter().enumerate() {
            let name = format!("t{at}");
            let made = metadata.create_topics(vec![named(&name)], false, PATIENCE).await;
            let id = made[0].as_ref().unwrap().id;
            assert_eq!(metadata.image().topic(&name).map(|topic| topic.id), Some(id), "known where it was asked");
            for (other, _) in &all {
                other.read_index().await.unwrap();
                assert_eq!(other.image().topic(&name).map(|topic| topic.id), Some(id));
            }
            let again = metadata.create_topics(vec![named(&name)], false, PATIENCE).await;
            assert_eq!(again[0], Err(MetadataError::TopicExists(name)));
        }
        let given = join_all(all.iter().map(|(metadata, _)| metadata.allocate_producer_id())).await;
        let given: BTreeSet<_> = given.into_iter().map(|id| id.unwrap().0).collect();
        assert_eq!(given.len(), 3);
        let controllers: BTreeSet<_> = all.iter().map(|(metadata, _)| metadata.controller_id().unwrap()).collect();
        assert_eq!(controllers.len(), 1);
        shut_down(&all).await;
    });
}

#[test]
fn every_node_describes_the_quorum() {
    sim::run_twice(7, || async {
        let mut cluster = Cluster::default();
        let mut all = cluster.start_all().await;
        // Only the leader has the progress of the others.
        rt::sleep(PATIENCE).await;
        let leader = all[0].0.controller_id().unwrap();
        for (metadata, _) in &all {
            let quorum = metadata.describe_quorum().await.unwrap();
            assert_eq!(quorum.leader, leader);
            assert_eq!(quorum.voters.iter().map(|member| member.node).collect::<Vec<_>>(), NODES);
            assert_eq!(quorum.voters.iter().map(|member| member.directory.as_u128()).collect::<Vec<_>>(), [1, 2, 3]);
            assert!(quorum.observers.is_empty());
            let wall_ms = rt::wall_clock_ms();
            for member in &quorum.voters {
                assert!(member.log_end >= quorum.high_watermark && quorum.high_watermark > 0, "{quorum:?}");
                assert!(
                    wall_ms - member.last_fetch_ms < 1_000 && wall_ms - member.last_caught_up_ms < 1_500,
                    "{quorum:?}"
                );
            }
        }
        // One node stops: its times stay as they were.
        let gone = all.iter().position(|(metadata, _)| metadata.node_id() != leader).unwrap();
        let (stopped, host) = all.remove(gone);
        host.shutdown().await;
        all[0].0.create_topics(vec![named("t")], false, PATIENCE).await[0].as_ref().unwrap();
        rt::sleep(PATIENCE).await;
        let quorum = all[0].0.describe_quorum().await.unwrap();
        let is_behind = |member: &&QuorumMember| member.log_end < quorum.high_watermark;
        let behind: Vec<_> = quorum.voters.iter().filter(is_behind).collect();
        assert_eq!(behind.iter().map(|member| member.node).collect::<Vec<_>>(), [stopped.node_id()]);
        assert!(rt::wall_clock_ms() - behind[0].last_fetch_ms >= 4_000);
        assert!(rt::wall_clock_ms() - behind[0].last_caught_up_ms >= 4_000);
        // Without a majority no node responds.
        let (_, host) = all.pop().unwrap();
        host.shutdown().await;
        assert!(all[0].0.describe_quorum().await.is_err());
        shut_down(&all).await;
    });
}

#[test]
fn a_node_that_is_drained_does_not_lead_the_metadata_and_votes_where_there_are_only_three() {
    sim::run_twice(11, || async {
        let all = Cluster::default().start_all().await;
        for _ in 0..3 {
            let drained = all[0].0.controller_id().unwrap();
            let (own, _) = all.iter().find(|(metadata, _)| metadata.node_id() == drained).unwrap();
            own.drain(Nodes::One(drained), true).await.unwrap();
            let quorum = rt::timeout(PATIENCE * 4, async {
                loop {
                    rt::sleep(PATIENCE / 50).await;
                    match own.describe_quorum().await {
                        Ok(quorum) if quorum.leader != drained => return quorum,
                        _ => {}
                    }
                }
            });
            let quorum = quorum.await.unwrap();
            assert_eq!(quorum.voters.iter().map(|member| member.node).collect::<Vec<_>>(), NODES);
            // It still has the metadata, and accepts changes.
            own.drain(Nodes::One(drained), false).await.unwrap();
            assert!(own.image().takes_replicas(drained));
        }
        shut_down(&all).await;
    });
}

#[test]
fn lost_and_duplicate_requests_do_no_harm() {
    let mut made_again = 0;
    for seed in 0..8 {
        made_again += sim::run(seed, || async {
            let mut cluster = Cluster::default();
            let all = cluster.start_all().await;
            let mut ids = BTreeSet::new();
            let links = Conditions { delay_max: Duration::from_millis(60), ..Conditions::default() };
            let faults = Faults { links, loss_per_mille: 40, repeat_per_mille: 500 };
            cluster.network.set_faults(faults);
            let (mut made_again, mut names) = (0, 0);
            for turn in 0..30 {
                let (metadata, _) = &all[turn % 3];
                let made = metadata.create_topics(vec![named(&format!("t{names}"))], false, PATIENCE).await;
                let Ok(made) = &made[0] else {
                    // The topic may exist or not: the next one needs another name.
                    names += 1;
                    continue;
                };
                assert!(ids.insert(made.id), "an id is never given twice");
                made_again += 1;
                let gone = metadata.delete_topics(vec![TopicName::Id(made.id)], PATIENCE).await;
                if gone[0].is_err() {
                    names += 1;
                } else {
                    // A repeated creation or deletion that comes late is not handled again.
                    rt::sleep(links.delay_max * 4).await;
                    for (metadata, _) in &all {
                        if metadata.read_index().await.is_ok() {
                            assert!(metadata.image().topic_by_id(&made.id).is_none());
                        }
                    }
                }
            }
            shut_down(&all).await;
            made_again
        })
        .output;
    }
    assert!(made_again > 80, "{made_again} topics made");
}

#[test]
fn a_node_starts_without_a_quorum_and_registers_when_there_is_one() {
    sim::run_twice(3, || async {
        let mut cluster = Cluster::default();
        let all = cluster.start_all().await;
        let id = all[0].0.create_topics(vec![named("t")], false, PATIENCE).await[0].as_ref().unwrap().id;
        for (metadata, _) in &all {
            metadata.read_index().await.unwrap();
        }
        let epoch = all[0].0.image().nodes[&NODES[0]].epoch;
        shut_down(&all).await;
        let first = cluster.start(NODES[0]).await;
        rt::sleep(Duration::from_secs(60)).await;
        assert!(first.0.read_index().await.is_err());
        assert!(first.0.create_topics(vec![named("u")], false, PATIENCE).await[0].is_err());
        let second = cluster.start(NODES[1]).await;
        let registered = |image: &Arc<MetadataImage>| image.nodes.get(&NODES[0]).is_some_and(|node| node.epoch > epoch);
        let mut images = first.0.watch();
        drop(rt::timeout(PATIENCE * 4, images.wait_for(registered)).await.unwrap().unwrap());
        assert_eq!(first.0.image().topic("t").map(|topic| topic.id), Some(id));
        shut_down(&[first, second]).await;
    });
}

#[test]
fn a_node_that_founded_alone_starts_again_while_one_that_joined_it_leads() {
    sim::run_twice(17, || async {
        let mut cluster = Cluster { founded_alone: true, ..Cluster::default() };
        let [(first, host), (second, other_host)] = cluster.start_two().await;
        let epoch = first.image().nodes[&NODES[0]].epoch;
        host.shutdown().await;
        cluster.network.detach(machine_of(NODES[0]));
        let again = cluster.start(NODES[0]).await;
        let registered = |image: &Arc<MetadataImage>| image.nodes.get(&NODES[0]).is_some_and(|node| node.epoch > epoch);
        let mut images = again.0.watch();
        drop(rt::timeout(PATIENCE * 4, images.wait_for(registered)).await.unwrap().unwrap());
        shut_down(&[again, (second, other_host)]).await;
    });
}

#[test]
fn a_node_that_was_replaced_while_it_was_away_learns_that_it_is_no_member_any_more() {
    sim::run_twice(13, || async {
        let mut cluster = Cluster::default();
        let mut all = cluster.start_all().await;
        let (_, host) = all.pop().unwrap();
        host.shutdown().await;
        cluster.network.detach(machine_of(NODES[2]));
        let old = cluster.memories.remove(&NODES[2]).unwrap();
        cluster.wiped = 1;
        let (again, host) = cluster.start(NODES[2]).await;
        let joined =
            |image: &Arc<MetadataImage>| image.shard(ShardId::METADATA).is_some_and(|shard| !shard.is_moving());
        drop(rt::timeout(PATIENCE * 4, again.watch().wait_for(joined)).await.unwrap().unwrap());
        host.shutdown().await;
        cluster.network.detach(machine_of(NODES[2]));
        // Its old disk is attached again.
        (cluster.wiped, _) = (0, cluster.memories.insert(NODES[2], old));
        let (back, host) = cluster.start(NODES[2]).await;
        assert_eq!(back.group().replica(), ReplicaId(3));
        let mut removed = back.removed_from_cluster();
        let replica = rt::timeout(PATIENCE * 12, removed.wait_for(Option::is_some)).await.unwrap();
        assert_eq!(*replica.unwrap(), Some(ReplicaId(3)));
        host.shutdown().await;
        for (metadata, _) in &all {
            assert_eq!(*metadata.removed_from_cluster().borrow(), None);
        }
        shut_down(&all).await;
    });
}

/// Found by the simulation (seed 111015): a node without seeds asked no other node, and waited for a leader for ever.
#[test]
fn a_node_without_seeds_asks_those_that_joined_it_whether_it_was_forgotten() {
    sim::run_twice(23, || async {
        let mut cluster = Cluster { founded_alone: true, ..Cluster::default() };
        let [(first, host), (second, other_host)] = cluster.start_two().await;
        let known: BTreeSet<NodeId> = first.image().nodes.keys().copied().collect();
        let is = ReplicaRecord { id: first.group().replica(), node: NODES[0], directory: Uuid::from_u128(1) };
        let was = ReplicaRecord { id: ReplicaId(99), ..is };
        assert!(is_removed(&host, &was, None, known.clone()).await, "the other one knows better");
        assert!(!is_removed(&host, &is, None, known).await);
        assert!(!is_removed(&host, &was, None, BTreeSet::new()).await, "no answer is no proof");
        shut_down(&[(first, host), (second, other_host)]).await;
    });
}

#[test]
fn a_node_stays_a_member_whatever_a_node_without_metadata_says() {
    sim::run_twice(19, || async {
        let mut cluster = Cluster::default();
        let mut all = cluster.start_all().await;
        let joined = cluster.start(NodeId(4)).await;
        drop(rt::timeout(PATIENCE, joined.0.watch().wait_for(|image| image.nodes.len() == 4)).await.unwrap().unwrap());
        let (_, host) = all.pop().unwrap();
        host.shutdown().await;
        cluster.network.detach(machine_of(NODES[2]));
        cluster.memories.remove(&NODES[2]);
        cluster.wiped = 1;
        // The third node comes back without its disk, and no entry reaches the replica that it is given.
        let given = ReplicaId(all[0].0.image().next_replica_id);
        cluster.network.isolate(given);
        let empty = rt::spawn(cluster.start(NODES[2]));
        let is_given = |image: &Arc<MetadataImage>| {
            image.shard(ShardId::METADATA).is_some_and(|shard| shard.members().any(|member| member.id == given))
        };
        drop(rt::timeout(PATIENCE * 4, all[0].0.watch().wait_for(is_given)).await.unwrap().unwrap());
        // The fourth node gets no answer of the leader, and asks the seeds whether it was forgotten.
        cluster.network.isolate(joined.0.group().replica());
        rt::sleep(PATIENCE * 6).await;
        assert_eq!(*joined.0.removed_from_cluster().borrow(), None);
        cluster.network.heal();
        let (third, host) = rt::timeout(PATIENCE * 4, empty).await.unwrap().unwrap();
        let whole = |image: &Arc<MetadataImage>| image.shard(ShardId::METADATA).is_some_and(|shard| !shard.is_moving());
        drop(rt::timeout(PATIENCE * 4, third.watch().wait_for(whole)).await.unwrap().unwrap());
        all.extend([joined, (third, host)]);
        shut_down(&all).await;
    });
}

/// Found by the simulation (seed 125100): a node that had just joined, and had applied nothing, named the founders.
#[test]
fn a_node_that_has_left_takes_no_founders_replica_again() {
    sim::run_twice(29, || async {
        let network = SimNetwork::default();
        let host_of = |node: NodeId| {
            let peer_table = Arc::new(PeerTable::default());
            NODES.iter().for_each(|node| peer_table.set_address(*node, node.to_string()));
            let host = RaftHost::new(network.for_node(machine_of(node), peer_table), RaftOptions::default());
            network.attach(machine_of(node), host.clone());
            host
        };
        let (asks, answers) = (host_of(NODES[0]), host_of(NODES[1]));
        let own = ReplicaRecord { id: ReplicaId(1), node: NODES[0], directory: Uuid::from_u128(1) };
        let assignment = Some(ReplicaAssignment { replica: own, is_founder: true });
        let located = BootstrapResponse::Located { founders: vec![own], assignment }.encode();
        let service: Service = Arc::new(move |_, _| Box::pin(std::future::ready(Some(located.clone()))));
        answers.serve(bootstrap_address(NODES[1]), service);
        let local = LocalNode::from_config(&Config::default(), Vec::new());
        let registration = registration_of(local, &Config::default());
        let found = async |may_found| {
            let seeds = FixedSeedNodes(BTreeSet::from([NODES[0], NODES[1]]));
            let found = discover(&asks, NODES[0], &seeds, own.directory, &registration, may_found);
            rt::timeout(PATIENCE, found).await.ok().map(|(_, assignment)| assignment.replica)
        };
        assert_eq!(found(true).await, Some(own));
        assert_eq!(found(false).await, None, "an empty replica would vote in the place of one that has voted");
        asks.shutdown().await;
        answers.shutdown().await;
    });
}

#[test]
fn a_node_whose_disk_is_lost_takes_a_new_place_and_its_old_replica_is_no_member_any_more() {
    sim::run_twice(5, || async {
        let mut cluster = Cluster::default();
        let mut all = cluster.start_all().await;
        let id = all[0].0.create_topics(vec![named("t")], false, PATIENCE).await[0].as_ref().unwrap().id;
        let (_, host) = all.pop().unwrap();
        host.shutdown().await;
        cluster.network.detach(machine_of(NODES[2]));
        (cluster.memories, cluster.wiped) = (std::mem::take(&mut cluster.memories), 1);
        cluster.memories.remove(&NODES[2]);
        let again = cluster.start(NODES[2]).await;
        assert_eq!(again.0.group().replica(), ReplicaId(22), "a replica id is never used again");
        let rebuilt = |image: &Arc<MetadataImage>| {
            image.topic("t").is_some_and(|topic| topic.id == id)
                && image
                    .shard(ShardId::METADATA)
                    .is_some_and(|shard| shard.wanted().contains(&ReplicaId(22)) && shard.leaving.is_empty())
        };
        let mut images = again.0.watch();
        drop(rt::timeout(PATIENCE * 4, images.wait_for(rebuilt)).await.unwrap().unwrap());
        let voters = BTreeSet::from([1, 2, 22].map(ReplicaId));
        assert_eq!(again.0.group().membership().voters, [voters]);
        all.push(again);
        shut_down(&all).await;
    });
}
