//! DeleteRecords beside transactions.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use ottla_env::rt;
use ottla_env::sim;
use ottla_env::sim::disk::{SimDisk, SimDiskOptions};
use ottla_protocol::ids::Offset;

use super::restart::{NAME, enter, mark, start};
use crate::config::TopicConfig;
use crate::shard::LeaderTaskSettings;

/// A client that was told of a commit deletes the records of it before their marker is written: librdkafka's test of it has three nodes.
#[test]
fn the_marker_of_a_transaction_that_has_ended_is_awaited_and_an_open_one_keeps_its_records() {
    sim::run_twice(14, || async {
        let disk = SimDisk::new(14, SimDiskOptions::default());
        let node = start(disk, TopicConfig::default(), LeaderTaskSettings::default()).await;
        let partition = node.partitions.find(NAME, 0).await.unwrap();
        assert_eq!(enter(&partition, 1, 0, &[1, 2]).await.unwrap().base_offset, Offset(0));
        let commit = async {
            rt::sleep(Duration::from_millis(300)).await;
            mark(&partition, 1, true).await
        };
        let (deleted, marker) = futures_util::join!(partition.delete_records(2), commit);
        assert_eq!((deleted.unwrap(), marker.base_offset), (Offset(2), Offset(2)));
        assert_eq!(enter(&partition, 1, 2, &[3]).await.unwrap().base_offset, Offset(3));
        let began = rt::now();
        assert_eq!(partition.delete_records(-1).await.unwrap(), Offset(3), "up to the open transaction");
        assert!(rt::now().since(began) < Duration::from_secs(5), "and nobody waits for its end");
    });
}
