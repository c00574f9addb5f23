//! The metric families of the shards that this node leads: their clocks, the producers that they remember, and their load.
//!
//! May not know: HTTP.

use super::families::Family;
use crate::handlers::context::Domain;

/// Writes the families.
pub(super) fn metrics(domain: &Domain, page: &mut String) {
    let mut ahead =
        Family::gauge("ottla_shard_clock_ahead_seconds", "How far a shard's clock is ahead of its leader's wall clock");
    let mut paused =
        Family::gauge("ottla_shard_expiry_paused", "1 if nothing expires in a shard because no time is certain");
    let mut producers =
        Family::gauge("ottla_shard_producers", "Idempotent producers that a shard remembers, one for each partition");
    let mut evicted = Family::counter(
        "ottla_shard_producers_evicted_total",
        "Producers that a shard forgot for lack of room: a repeated batch of theirs would be appended twice",
    );
    let mut bytes_in = Family::counter(
        "ottla_shard_bytes_in_total",
        "Bytes that producers have sent to a shard since this node opened it",
    );
    let mut bytes_out = Family::counter(
        "ottla_shard_bytes_out_total",
        "Bytes that were read for consumers from a shard since this node opened it",
    );
    for shard in domain.partitions.shards() {
        let Some(time) = shard.time() else { continue };
        let label = format!("shard=\"{}\"", shard.creation.shard.0);
        ahead.add(&label, time.ahead_ms / 1_000);
        paused.add(&label, u8::from(time.for_expiry_ms.is_none()));
        let (remembered, forgotten) = shard.state().lock().producer_counts();
        producers.add(&label, remembered);
        evicted.add(&label, forgotten);
        let totals = shard.traffic.totals();
        bytes_in.add(&label, totals.bytes_in);
        bytes_out.add(&label, totals.bytes_out);
    }
    for family in [ahead, paused, producers, evicted, bytes_in, bytes_out] {
        family.finish(page);
    }
}
