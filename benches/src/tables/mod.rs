//! The tables, in the order in which they are run: the most important first.

mod clients;
mod cluster;
mod compaction;
mod consume;
mod failover;
mod latency;
mod life;
mod nats;
mod open_transactions;
mod pool;
mod produce;
mod resizes;
mod transactions;
mod zones;

use crate::bench::Bench;

/// Each table by name.
pub(crate) const ALL: &[(&str, fn(&mut Bench))] = &[
    ("requests", produce::requests),
    ("produce", produce::produce),
    ("latency", latency::latency),
    ("clients", clients::clients),
    ("fetch", consume::fetch),
    ("recovery", life::recovery),
    ("start", life::start),
    ("memory", life::memory),
    ("fanout", consume::fanout),
    ("catchup", consume::catchup),
    ("beside", latency::beside),
    ("written", life::written),
    ("sustained", life::sustained),
    ("nats", nats::nats),
    ("cluster", cluster::cluster),
    ("zones", zones::zones),
    ("transactions", transactions::transactions),
    ("open", open_transactions::open_transactions),
    ("compaction", compaction::compaction),
    ("gaps", failover::gaps),
    ("partitions", cluster::partitions),
    ("pool", pool::pool),
    ("resizes", resizes::resizes),
    ("rebuild", failover::rebuild),
];
