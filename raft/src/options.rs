//! Settings of all groups of a node, with their defaults.
//!
//! May not know: where they are configured.

use std::time::Duration;

/// The leader's heartbeat interval.
pub(crate) const HEARTBEAT: Duration = Duration::from_millis(250);
/// The election timeouts, where nothing else is set.
pub(crate) const ELECTION_MIN: Duration = Duration::from_millis(750);
pub(crate) const ELECTION_MAX: Duration = Duration::from_millis(1500);

// A lost heartbeat, or two, is no reason to campaign; and the timeouts of two replicas must be able to differ.
const _: () = assert!(ELECTION_MIN.as_millis() >= 3 * HEARTBEAT.as_millis());
const _: () = assert!(ELECTION_MAX.as_millis() >= 2 * ELECTION_MIN.as_millis());

/// Settings of all groups of a node.
#[derive(Debug, Clone)]
pub struct RaftOptions {
    /// The leader's heartbeat interval.
    pub heartbeat: Duration,
    /// Shortest election timeout: the time without a leader before a replica campaigns.
    pub election_min: Duration,
    /// Longest election timeout; also the lease.
    pub election_max: Duration,
    /// Bytes of proposals in flight per group.
    pub in_flight_bytes_max: usize,
    /// Bytes of entries read from the log at once, for replication and apply.
    pub read_bytes_max: usize,
    /// The purge horizon: a member that lacks entries older than so many bytes of the node's log, of all replicas
    /// together, gets a snapshot.
    pub purge_horizon_bytes: u64,
    /// Bytes of keys and values in one part of a state that is sent to another member, except for a single longer key.
    pub state_part_bytes: usize,
    /// How often a replica compares its state with those of the other voters.
    pub state_check_interval: Duration,
    /// The checksum of the state is kept after every so many entries.
    pub state_check_entries: u64,
    /// A voter that was caught up within this time counts as in sync.
    pub in_sync_lag: Duration,
    /// A group of one member hibernates after so long without a request. `None`: never.
    pub idle_after: Option<Duration>,
}

impl RaftOptions {
    /// How long a follower has to answer a heartbeat: nearly as long as it waits for the next one before it campaigns, so that
    /// a leader has followers half a second of round trip away.
    pub(crate) fn heartbeat_timeout(&self) -> Duration {
        self.election_min * 14 / 15
    }
}

impl Default for RaftOptions {
    fn default() -> Self {
        RaftOptions {
            heartbeat: HEARTBEAT,
            election_min: ELECTION_MIN,
            election_max: ELECTION_MAX,
            in_flight_bytes_max: 32 << 20,
            read_bytes_max: 4 << 20,
            purge_horizon_bytes: 4 << 30,
            state_part_bytes: 256 << 10,
            state_check_interval: Duration::from_secs(30),
            state_check_entries: 256,
            in_sync_lag: Duration::from_secs(30),
            idle_after: Some(Duration::from_secs(10)),
        }
    }
}
