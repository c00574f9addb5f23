//! Tests of the manager: which replicas on the disk are opened, and which are removed.

#![allow(clippy::unwrap_used)]
use std::path::Path;

use ottla_env::disk::Disk;
use ottla_env::rt;
use ottla_env::sim;
use ottla_env::sim::disk::{SimDisk, SimDiskOptions};
use ottla_raft::{Creation, Directory, NoPeers, RaftOptions};
use ottla_storage::data_dir::{DataDirOptions, RecoveredReplica};
use ottla_storage::ids::RaftIndex;
use ottla_storage::log::GroupCreation;

use super::super::fake::{FakeMetadata, NODE, REPLICA, SHARD, image_with_topic};
use super::*;
use crate::config::TopicConfig;
use crate::metadata::{Levels, Liveness, NodeRecord, NodeState};

async fn opened(disk: &Arc<dyn Disk>) -> (Arc<DataDir>, Vec<RecoveredReplica>) {
    DataDir::open(disk.clone(), Path::new("/data"), DataDirOptions::default()).await.unwrap()
}

/// A disk with these replicas of the shard, none of them a voter.
async fn holding(replicas: &[ReplicaId], shard: &ShardRecord) -> Arc<dyn Disk> {
    let alone: Vec<_> = replicas.iter().map(|replica| (*replica, Vec::new())).collect();
    holding_beside(&alone, shard).await
}

/// The same, each with those beside which it was created.
async fn holding_beside(replicas: &[(ReplicaId, Vec<ReplicaId>)], shard: &ShardRecord) -> Arc<dyn Disk> {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1, SimDiskOptions::default()));
    let (directory, _) = opened(&disk).await;
    for (replica, beside) in replicas {
        let shard = ShardCreation { beside: beside.clone(), ..ShardCreation::from(shard) }.encode();
        let payload = Creation { members: Membership::default(), shard, seed: None }.encode();
        let group = GroupCreation { replica: *replica, payload, vote: None, purged: None };
        Directory::create_replica(&*directory, group).await.unwrap();
    }
    directory.close().await.unwrap();
    disk
}

/// The image when the node is to be unregistered and holds this shard only, as its replica of the metadata.
fn dismissing(shard: &ShardRecord) -> MetadataImage {
    let node = NodeRecord {
        id: NODE,
        rack: None,
        listeners: Vec::new(),
        directories: Vec::new(),
        version: String::new(),
        levels: Levels::FIRST,
        epoch: RaftIndex(1),
        state: NodeState::Leaving,
        liveness: Liveness::default(),
    };
    let metadata = ShardRecord { id: ShardId::METADATA, kind: ShardKind::Metadata, ..shard.clone() };
    MetadataImage {
        nodes: Arc::new([(NODE, node)].into()),
        shards: Arc::new([(ShardId::METADATA, Arc::new(metadata))].into()),
        ..MetadataImage::default()
    }
}

/// One that was given up lies on the disk until the shard has all that it is to have. Seeds 11017 and 11031 of the
/// simulation.
#[test]
fn of_two_replicas_of_a_shard_the_last_one_runs() {
    sim::run(1, || async {
        let image = image_with_topic(1, TopicConfig::default());
        let before = image.shard(SHARD).unwrap();
        let disk = holding(&[ReplicaId(5), ReplicaId(9), ReplicaId(7)], before).await;
        let (directory, mut recovered) = opened(&disk).await;
        for backwards in [false, true] {
            if backwards {
                recovered.reverse();
            }
            let host = RaftHost::new(Arc::new(NoPeers), RaftOptions::default());
            let metadata = Arc::new(FakeMetadata::new(image.clone()));
            let shards = Shards::new(NODE, host.clone(), BTreeMap::new(), metadata, LeaderTaskSettings::default());
            shards.open(recovered.iter().map(|replica| (&directory, replica))).await;
            assert_eq!(shards.get(SHARD).unwrap().replica, ReplicaId(9));
            assert!(host.group(ReplicaId(5)).is_none() && host.group(ReplicaId(7)).is_none());
            // Metadata from before it was created records another one.
            assert!(before.replicas.iter().all(|replica| replica.node == NODE && replica.id < ReplicaId(9)));
            shards.ensure(before).await;
            assert_eq!(shards.get(SHARD).unwrap().replica, ReplicaId(9));
            host.shutdown().await;
        }
    });
}

/// A replica that moves to another directory and the one that it comes from both run after a restart; one that was lost before does not.
/// Seed 166003 of the simulation.
#[test]
fn of_several_replicas_of_a_shard_those_run_beside_which_the_later_ones_were_made() {
    sim::run(1, || async {
        let image = image_with_topic(1, TopicConfig::default());
        let record = image.shard(SHARD).unwrap();
        let (lost, former, last) = (ReplicaId(5), ReplicaId(7), ReplicaId(9));
        let replicas = [(lost, Vec::new()), (former, vec![lost]), (last, vec![former])];
        let disk = holding_beside(&replicas, record).await;
        let (directory, recovered) = opened(&disk).await;
        let host = RaftHost::new(Arc::new(NoPeers), RaftOptions::default());
        let metadata = Arc::new(FakeMetadata::new(image.clone()));
        let shards = Shards::new(NODE, host.clone(), BTreeMap::new(), metadata, LeaderTaskSettings::default());
        shards.open(recovered.iter().map(|replica| (&directory, replica))).await;
        let here: Vec<_> = shards.replicas_of(SHARD).iter().map(|shard| shard.replica).collect();
        assert_eq!(here, [former, last]);
        assert_eq!(shards.get(SHARD).unwrap().replica, former, "none leads: the other one may lack what it has");
        assert_eq!((shards.all().len(), shards.replicas().len()), (1, 2));
        shards.close(former).await;
        assert_eq!(shards.get(SHARD).unwrap().replica, last);
        host.shutdown().await;
    });
}

/// A node that was unregistered stops as soon as its replica of the metadata has; what it finds again at the next start
/// would end it once more.
#[test]
fn what_is_being_removed_is_gone_before_the_log_closes() {
    for seed in 0..20 {
        sim::run(seed, move || async move {
            let image = image_with_topic(1, TopicConfig::default());
            let shard = image.shard(SHARD).unwrap();
            let disk = holding(&[REPLICA], shard).await;
            let (directory, recovered) = opened(&disk).await;
            let host = RaftHost::new(Arc::new(NoPeers), RaftOptions::default());
            let metadata = Arc::new(FakeMetadata::new(image.clone()));
            let directories = [(Uuid::nil(), directory.clone())].into();
            let shards = Shards::new(NODE, host.clone(), directories, metadata.clone(), LeaderTaskSettings::default());
            shards.open(recovered.iter().map(|replica| (&directory, replica))).await;
            let shard_here = Arc::downgrade(&shards.get(SHARD).unwrap());
            let mut role = shard_here.upgrade().unwrap().role_changes();
            shards.start();
            metadata.show(dismissing(shard));
            drop(role.wait_for(|role| role.stopped).await.unwrap());
            host.shutdown().await;
            let _removals = shards.end_removals().await;
            assert!(shards.get(SHARD).is_none());
            // Its tasks notice it within their longest pause.
            rt::sleep(Duration::from_secs(60)).await;
            assert!(shard_here.upgrade().is_none(), "seed {seed}: a task keeps the state of a replica that is gone");
            directory.close().await.unwrap();
            assert!(opened(&disk).await.1.is_empty(), "seed {seed}");
        });
    }
}

/// It was reported at every change of the metadata, 10,000 times in two minutes, and listed nowhere (tests/chaos, a topic
/// of one replica on a disk that was wiped).
#[test]
fn a_replica_whose_data_directory_is_not_here_is_listed_as_closed() {
    sim::run(1, || async {
        let image = image_with_topic(1, TopicConfig::default());
        let shard = image.shard(SHARD).unwrap();
        let host = RaftHost::new(Arc::new(NoPeers), RaftOptions::default());
        let metadata = Arc::new(FakeMetadata::new(image.clone()));
        let shards = Shards::new(NODE, host.clone(), BTreeMap::new(), metadata, LeaderTaskSettings::default());
        assert!(shards.ensure(shard).await, "nothing is to be tried again");
        let closed = shards.closed();
        assert_eq!(closed.len(), 1);
        assert_eq!((closed[0].0, closed[0].1.shard, closed[0].1.is_lost), (REPLICA, Some(SHARD), false));
        assert!(shards.is_closed(SHARD));
        let moved = MetadataImage { shards: Arc::default(), next_replica_id: REPLICA.0 + 1, ..image };
        assert!(shards.remove_left(&moved, None).await);
        assert_eq!(shards.closed().len(), 0, "it is no member any more");
        host.shutdown().await;
    });
}
