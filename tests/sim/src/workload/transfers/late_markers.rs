//! Markers that arrive when their transaction is over and the producer's next one may be open: what is left in the network of
//! a request between nodes that was sent again, by the same coordinator or by the next one.
//!
//! What a partition withstands (design section 7.3), and no more:
//!
//!     version 2   the same marker again, however late
//!     version 1   that of an older coordinator, which was deposed after it had prepared the transaction
//!
//! Under version 1 a second marker of the same coordinator does end the next transaction, which has the same epoch (the
//! reason for KIP-890), so none is sent. May not know: how markers are sent, what an answer has to be.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::messages::fetch_response::PartitionData;
use ottla_broker::partition::marker::append_of;
use ottla_broker::partition::{AppendError, TopicRef};
use ottla_broker::replicated::transactions::Marker;
use ottla_env::{rt, sim};
use ottla_protocol::batch::{BatchView, ControlRecord, split_batches};

use super::reader::{UNCOMMITTED, fetch_from};
use super::{PARTITIONS, TOPIC, target};
use crate::sim_node::RunningNode;
use crate::wire::Client;
use crate::workload::pause;
use crate::world::World;

/// The next transaction of most producers is open by then.
const SOON_MS: u64 = 300;
const LATE_MS: u64 = 3_000;
const APPEND_WAIT: Duration = Duration::from_secs(2);
const BYTES_MAX: i32 = 20_000;

/// A marker that comes late.
#[derive(Debug, Clone, Copy)]
struct LateMarker {
    index: i32,
    producer: (i64, i16),
    marker: Marker,
}

/// What was read of a partition.
#[derive(Debug, Default)]
struct Position {
    next: i64,
    /// The epoch of each producer's last batch.
    epochs: BTreeMap<i64, i16>,
}

/// Reads the markers of all partitions until the workload ends, and lets each of them come once more.
pub(crate) async fn late_markers(world: World) {
    let mut client = Client::new(world.clone(), "late-markers");
    let Some(topic) = super::topic(&world, &mut client).await else { return };
    let mut positions = BTreeMap::<i32, Position>::new();
    while world.workload_runs() {
        let index = i32::try_from(sim::random_below(PARTITIONS.unsigned_abs().into())).unwrap_or(0);
        let position = positions.entry(index).or_default();
        let from = (index, position.next);
        // Transactions of other producers may be open for long.
        let read = fetch_from(&world, &mut client, topic, from, (UNCOMMITTED, BYTES_MAX)).await;
        for late in read.iter().flat_map(|told| position.read(index, told)) {
            arrives(&world, late);
        }
        pause(20).await;
    }
}

impl Position {
    /// The markers in an answer, as they come late.
    fn read(&mut self, index: i32, told: &PartitionData) -> Vec<LateMarker> {
        let (mut late, bytes) = (Vec::new(), told.records.clone().unwrap_or_default());
        // What cannot be read is the finding of other readers.
        for view in split_batches(&bytes).map_while(Result::ok) {
            let header = &view.header;
            self.next = self.next.max(header.next_offset().0);
            match header.attributes.is_control() {
                true => late.extend(self.late(index, &view)),
                false => drop(self.epochs.insert(header.producer_id, header.producer_epoch)),
            }
        }
        late
    }

    fn late(&self, index: i32, view: &BatchView) -> Option<LateMarker> {
        let header = &view.header;
        let records = ottla_protocol::records::open(header, &view.bytes, 1 << 20).ok()?;
        let record = records.into_iter().next()?.ok()?;
        let (commits, coordinator_epoch) = match ControlRecord::parse(record.key?, record.value?)? {
            ControlRecord::Commit { coordinator_epoch } => (true, coordinator_epoch),
            ControlRecord::Abort { coordinator_epoch } => (false, coordinator_epoch),
        };
        let has_bumped = *self.epochs.get(&header.producer_id)? < header.producer_epoch;
        let marker = match has_bumped {
            true => Marker { commits, coordinator_epoch, version: 2 },
            false => {
                let before = sim::random_below(u64::try_from(coordinator_epoch).ok().filter(|epoch| *epoch > 0)?);
                Marker { commits, coordinator_epoch: i32::try_from(before).ok()?, version: 1 }
            }
        };
        Some(LateMarker { index, producer: (header.producer_id, header.producer_epoch), marker })
    }
}

/// Lets a marker arrive some time from now, whatever else is sent meanwhile.
fn arrives(world: &World, late: LateMarker) {
    let at = world.clone();
    world.run_client("late marker", None, async move {
        pause(if sim::random_below(4) == 0 { LATE_MS } else { SOON_MS }).await;
        let node = target(&at, late.index);
        let outcome = at.request(node, move |running| append(running, late)).await;
        at.trace(None, format!("node {} is told once more: {late:?}: {outcome:?}", node.0));
    });
}

/// What a node does with the request of another one; `None` where it does not have the partition.
async fn append(running: Arc<RunningNode>, late: LateMarker) -> Option<Result<(), AppendError>> {
    let partition = running.partitions.find_now(TopicRef::Name(TOPIC), late.index).ok().flatten()?;
    let now_ms = rt::wall_clock_ms();
    let (batch, options) = append_of(late.marker, late.producer, now_ms, APPEND_WAIT);
    Some(partition.append(batch, &options).await.map(drop))
}
