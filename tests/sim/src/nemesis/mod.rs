//! The nemesis: draws a schedule of faults from the seed and runs it.
//!
//! The schedule is drawn before the run, so that it can be read, cut short and shrunk. Every fault ends by itself after
//! its time.
//!
//! May not know: clients, laws.

mod injection;
mod schedule;

use ottla_env::sim::SimNode;
use ottla_env::sim::disk::Crash;

use crate::corruption::Corruption;
use crate::durability_tracker::CrashPoint;
use crate::targeting::Target;

pub(crate) use injection::{heal, run_faults};
pub(crate) use schedule::{
    draw_schedule, with_changed_releases, with_early_unregistrations, with_interrupted_merges, with_lost_leavers,
    with_lost_seed_node, with_lost_voters, with_outlived_leadership, with_stalled_followers, with_task_panics,
    with_unapplied_markers, wrong_clock_at_start,
};

/// The kinds of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A process is killed or its machine loses power; it is started again.
    Crash(Target, Crash),
    /// A process is killed and started again, and so many milliseconds later its machine loses power.
    CrashTwice(Target, u64),
    /// The first node to reach this point goes down there.
    CrashAt(CrashPoint, Crash),
    /// A leader is isolated and deposed; it goes down once the truncation of its conflicting entries is durable, and
    /// before any entry replaces them.
    CrashDuringTruncation(Crash),
    /// A process is stopped gracefully; if a time is given, its machine loses power so many milliseconds later.
    Stop(Target, Option<u64>),
    /// A rolling restart: one process after the other is stopped and started again.
    RollingRestart,
    /// A node is unregistered, and comes back as a new one.
    Unregister(SimNode),
    /// As [`Fault::Unregister`], while its disk hangs.
    UnregisterWithSlowDisk(SimNode),
    /// As [`Fault::Unregister`]; the node is killed and started again as soon as it is forgotten.
    UnregisterAndRestart(SimNode),
    /// As [`Fault::Unregister`]; the node loses its disk meanwhile.
    UnregisterWithLostDisk(SimNode),
    /// A further node joins, is killed as soon as it is registered, unregistered, and comes back as a new one.
    UnregisterJoining,
    /// As [`Fault::CrashAt`] for a vote, and all machines lose power with it.
    PowerLossAtVote,
    /// A disk is corrupted; `down`: after a crash, so that the next start finds it.
    Corrupt { node: SimNode, kind: Corruption, down: bool },
    /// A follower is cut off, and the records that it lacks meanwhile are corrupted on the leader's disk. It is always
    /// the same disk that is corrupted.
    LaggingFollower,
    /// All machines lose power, and are started one after the other.
    PowerLoss,
    /// The network drops all messages to and from the node.
    Isolate(Target),
    /// The network drops all messages from the node.
    DropOutgoing(Target),
    /// The network drops all messages to the node.
    DropIncoming(Target),
    /// Syncs do not return.
    HangSyncs(Target),
    /// Syncs do not return on any node but one that leads a shard.
    StallFollowers,
    /// The sync after so many more fails; the process is restarted later, and some time after that its machine loses
    /// power.
    SyncError(Target, u64),
    /// The write after so many more fails; the process is restarted later.
    WriteError(Target, u64),
    /// The disk is full.
    DiskFull(Target),
    /// The process is paused and resumed (SIGSTOP, SIGCONT).
    Pause(Target),
    /// All connections between the node and the others are reset, though its process lives.
    ResetConnections(Target),
    /// The wall clock jumps by so many milliseconds.
    Clock(Target, i64),
    /// A disk is lost for good, and the node comes back with an empty one; not before every shard has all its replicas.
    Wipe(Target),
    /// One follower of a shard lags behind; another one loses its disk and comes back while the leader cannot reach it.
    WipeVoter,
    /// A node gets no metadata, and asks the seed nodes whether it was removed; one of them has lost its disk.
    LostSeedNode,
    /// A node gets no metadata while others join, one of which then leads it.
    UnknownLeader(SimNode),
    /// A shard is being merged into another one, and its leader is isolated and deposed.
    IsolateMerging,
    /// Markers of transactions get lost while their coordinator loses its leadership and wins it back.
    OutliveLeadership,
    /// Replicas are elected whose logs have markers of transactions that they have not applied.
    LeadBehindMarkers,
    /// A critical task panics; the process is restarted later.
    Panic(Target),
    /// A further node joins.
    Join,
    /// A node is stopped and started with the other release.
    ChangeRelease(SimNode),
    /// An operator raises the feature level.
    RaiseLevel,
    /// A node receives no metadata while its shards go on, and late in that time their leaders fail.
    StaleMetadata(SimNode),
    /// The network loses, repeats and delays messages.
    BadNetwork { loss_per_mille: u64, repeat_per_mille: u64, delay_max_ms: u64 },
    /// The links between nodes are long and narrow: a round trip takes at least twice this, and a link carries so many
    /// bytes a second.
    SlowLinks { delay_min_ms: u64, bytes_per_second: u64 },
}

/// A fault, when it begins, and how long it lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Event {
    /// Milliseconds after the start.
    pub(crate) at_ms: u64,
    pub(crate) lasts_ms: u64,
    pub(crate) fault: Fault,
}

impl std::fmt::Display for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:>6} ms, for {} ms: {:?}", self.at_ms, self.lasts_ms, self.fault)
    }
}
