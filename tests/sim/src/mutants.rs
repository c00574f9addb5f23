//! Mutation testing: switches each seeded bug on and counts the seeds until a law is broken. A bug that is never caught
//! fails the command: either the laws are too weak, or the nemesis never reaches it. So does one that has become three times
//! harder to catch than it was.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use ottla_env::mutants::Bug;

use crate::profile::{
    ALWAYS_TRANSACTIONS_FROM, COMPACTED_TRANSFERS_FROM, COMPACTION_FROM, DAMAGED_HEADS_FROM, DIRECTORY_MOVES_FROM,
    ExtraClients, GRACEFUL_STOPS_FROM, LATE_FOUNDERS_FROM, LOST_SEED_NODES_FROM, LOST_VOTERS_FROM, MERGES_FROM,
    MERGES_INTERRUPTED_FROM, MIXED_RELEASES_FROM, OUTLIVED_LEADERSHIP_FROM, Profile, SENDS_ON_FROM, SPLITS_FROM,
    UNAPPLIED_MARKERS_FROM, UNKNOWN_LEVEL_FROM, UNSENT_ABORTED_FROM, WIDENED_AGAIN_FROM, WIDENED_FROM,
};
use crate::run::{Plan, run};
use crate::{WorldArguments, in_order};

/// Where a bug is hunted unless the command says otherwise: most bugs in any seed, some only where they can do harm.
struct Ground {
    first_seed: u64,
    /// Nodes of the cluster, 0 for those that the seed has.
    nodes: u32,
    /// At least so long are the faults.
    storm: Duration,
    /// Only seeds of these profiles; none: any.
    profiles: &'static [Profile],
    /// Only seeds that have these clients.
    clients: Option<ExtraClients>,
}

/// The bugs of splits.
const OF_SPLITS: &[Bug] = &[
    Bug::SplitLosesProducers,
    Bug::SplitTwice,
    Bug::SplitReportedEarly,
    Bug::SplitDropForgotten,
    Bug::ChildTermBegunAnew,
    Bug::ChildCreatedEarly,
    Bug::ChildSeedNotAwaited,
    Bug::SplitCutTwice,
];

/// The bugs of merges.
const OF_MERGES: &[Bug] = &[
    Bug::MergeLosesProducers,
    Bug::MergeEpochFalls,
    Bug::SealedAppends,
    Bug::SealedLogPurged,
    Bug::SealReportedEarly,
    Bug::AbsorbReportedEarly,
    Bug::MergeCutTwice,
];

/// The bugs of transactions.
const OF_TRANSACTIONS: &[Bug] = &[
    Bug::LateBatchOpens,
    Bug::OldCoordinatorMarker,
    Bug::MarkerEndsNextTransaction,
    Bug::AbortedNotListed,
    Bug::ReadAboveLastStable,
    Bug::OffsetsVisibleBeforeMarker,
    Bug::AbortedOffsetsCommitted,
    Bug::UnstableOffsetsAnswered,
    Bug::TransactionNotAskedAgain,
    Bug::LevelNotConfirmed,
    Bug::EndAnsweredEarly,
    Bug::PreparedNotCompleted,
    Bug::AnyPreparedCompleted,
    Bug::EarlyProducerFenced,
    Bug::MarkersNotRetried,
];

/// Seeds among which some were seen to find it begin here.
const SEALED_LOGS_PURGED: u64 = 127_000;

impl Ground {
    const ANY: Self = Self { first_seed: 0, nodes: 0, storm: Duration::ZERO, profiles: &[], clients: None };
    /// Nodes lose their disks and are asked whether others were removed.
    const LOST_SEED_NODES: Self = Self {
        first_seed: LOST_SEED_NODES_FROM,
        nodes: 3,
        storm: Duration::from_secs(24),
        profiles: &[Profile::Members],
        ..Self::ANY
    };
    /// Nodes have racks, and producers compress.
    const WIDENED: Self = Self { first_seed: WIDENED_FROM, ..Self::ANY };
    /// Consumers read from the replicas in their racks.
    const WITH_RACKS: Self = Self { nodes: 3, clients: Some(ExtraClients::Readers), ..Self::WIDENED };
    const GENERATIONS_WITH_RACKS: Self =
        Self { storm: Duration::from_secs(30), profiles: &[Profile::Generations], ..Self::WITH_RACKS };
    /// Nodes have several data directories, and groups static members.
    const WIDENED_AGAIN: Self = Self { first_seed: WIDENED_AGAIN_FROM, ..Self::ANY };
    /// A founder may be late, and nodes are unregistered as soon as they have joined.
    const LATE_FOUNDERS: Self = Self { first_seed: LATE_FOUNDERS_FROM, nodes: 3, ..Self::ANY };
    /// Producers have several batches in flight when the leader changes.
    const SENDING_ON: Self = Self { first_seed: SENDS_ON_FROM, clients: Some(ExtraClients::Producers), ..Self::ANY };
    /// Shards are split.
    const SPLITTING: Self = Self { first_seed: SPLITS_FROM, ..Self::ANY };
    /// Shards are merged.
    const MERGING: Self = Self { first_seed: MERGES_FROM, ..Self::ANY };
    /// Only a leader that is elected while its shard is sealed appends anything to it.
    const INTERRUPTED_MERGES: Self = Self { first_seed: MERGES_INTERRUPTED_FROM, nodes: 3, ..Self::ANY };
    /// A replica has to be away while its shard is merged, and the log to be short: about one seed in a hundred.
    const LONG_MERGES: Self = Self { first_seed: SEALED_LOGS_PURGED, ..Self::INTERRUPTED_MERGES };
    /// Producers run transactions.
    const TRANSACTIONS: Self = Self { first_seed: ALWAYS_TRANSACTIONS_FROM, ..Self::ANY };
    /// Producers abort at once what they have not sent.
    const ABORTING_UNSENT: Self = Self { first_seed: UNSENT_ABORTED_FROM, ..Self::ANY };
    /// A coordinator loses its leadership and wins it back under the same epoch while markers get lost.
    const OUTLIVED_LEADERSHIP: Self = Self {
        first_seed: OUTLIVED_LEADERSHIP_FROM,
        nodes: 3,
        storm: Duration::from_secs(20),
        profiles: &[Profile::Crashes, Profile::Churn],
        ..Self::ANY
    };
    /// Replicas are elected that have not applied markers.
    const UNAPPLIED_MARKERS: Self = Self {
        first_seed: UNAPPLIED_MARKERS_FROM,
        nodes: 3,
        storm: Duration::from_secs(20),
        profiles: &[Profile::GracefulStops],
        ..Self::ANY
    };
    /// There is a compacted topic.
    const COMPACTING: Self = Self { first_seed: COMPACTION_FROM, ..Self::ANY };
    /// Transactions lie in a compacted topic.
    const COMPACTING_TRANSACTIONS: Self = Self { first_seed: COMPACTED_TRANSFERS_FROM, ..Self::ANY };
    /// A replica has to be away, and a node that has none to get one, while others compact.
    const COMPACTING_MEMBERS: Self =
        Self { nodes: 3, storm: Duration::from_secs(20), profiles: &[Profile::Members], ..Self::COMPACTING };
    /// Nodes run two releases.
    const MIXED_RELEASES: Self =
        Self { first_seed: MIXED_RELEASES_FROM, nodes: 3, profiles: &[Profile::Generations], ..Self::ANY };
    /// Nodes are stopped and unregistered.
    const STOPPING: Self = Self { first_seed: GRACEFUL_STOPS_FROM, profiles: &[Profile::GracefulStops], ..Self::ANY };
    /// One node founds the cluster.
    const ALONE: Self = Self { first_seed: GRACEFUL_STOPS_FROM, nodes: 1, storm: Duration::from_secs(20), ..Self::ANY };
    /// The disks of a majority stall.
    const STALLED: Self = Self { nodes: 3, profiles: &[Profile::Mixed, Profile::Elections], ..Self::WIDENED_AGAIN };
    /// Topics have one replica, or four.
    const FACTORS: Self =
        Self { nodes: 5, profiles: &[Profile::Crashes, Profile::Churn, Profile::Elections], ..Self::WIDENED_AGAIN };

    fn of(bug: Bug) -> Self {
        match bug {
            Bug::RemovalNotDetected => Self::STOPPING,
            // A node that is being unregistered loses its disk, or is killed when it is forgotten.
            Bug::RegisteredWhileLeaving => {
                Self { first_seed: LOST_VOTERS_FROM, nodes: 3, profiles: &[Profile::GracefulStops], ..Self::ANY }
            }
            // A node is asked whether another one was removed when it has lost its disk.
            Bug::LocatedWithoutMetadata => Self::LOST_SEED_NODES,
            // A replica is asked for what it dropped, while it is applied again on top of an older generation of the checkpoint.
            Bug::GapFilledEarly => Self::GENERATIONS_WITH_RACKS,
            Bug::FormerLeaderForgotten => Self::SENDING_ON,
            bug if OF_SPLITS.contains(&bug) => Self::SPLITTING,
            Bug::EarlyProducerFenced => Self::ABORTING_UNSENT,
            Bug::AnyPreparedCompleted => Self::OUTLIVED_LEADERSHIP,
            Bug::TransactionNotAskedAgain => Self::UNAPPLIED_MARKERS,
            Bug::BesideNotRecorded => Self { first_seed: DIRECTORY_MOVES_FROM, ..Self::ANY },
            Bug::LevelNotConfirmed => Self { first_seed: UNKNOWN_LEVEL_FROM, ..Self::MIXED_RELEASES },
            bug if OF_TRANSACTIONS.contains(&bug) => Self::TRANSACTIONS,
            Bug::SealedAppends => Self::INTERRUPTED_MERGES,
            Bug::SealedLogPurged => Self::LONG_MERGES,
            bug if OF_MERGES.contains(&bug) => Self::MERGING,
            Bug::LastValueCompacted | Bug::TombstoneGoesAtOnce => Self::COMPACTING,
            Bug::GoneMarkersListed => Self::COMPACTING_TRANSACTIONS,
            Bug::PassesMixed => Self::COMPACTING_MEMBERS,
            Bug::RecompressedCrcKept
            | Bug::CompressedStaysCompressed
            | Bug::MinIsrNotAwaited
            | Bug::MinIsrOneEntryEarly => Self::WIDENED,
            // Consumers read from followers.
            Bug::NearestInAnyRack | Bug::FollowerOutOfRange => Self::WITH_RACKS,
            Bug::StalledFollowerSuspects | Bug::StalledLeaderSilent => Self::STALLED,
            Bug::StaticRejoinRebalances | Bug::ReplacedMemberUnknown => {
                Self { clients: Some(ExtraClients::Groups), ..Self::WIDENED_AGAIN }
            }
            Bug::FirstDirectoryTaken | Bug::FullestDirectoryTaken => Self::WIDENED_AGAIN,
            Bug::PlacedOnOneLess | Bug::FactorForgotten => Self::FACTORS,
            Bug::LoneFounderWaitsToLead | Bug::LeftNodeFounds => Self::ALONE,
            // A founder is late; nodes are unregistered as soon as they have joined, and while their disks hang.
            Bug::LevelNeedsAllFounders | Bug::RemovalsNotAwaited => Self::LATE_FOUNDERS,
            Bug::LevelRaisedEarly | Bug::FencedBelowLevel => Self::MIXED_RELEASES,
            // A node is unregistered and forgotten as soon as it has joined, before other faults happen.
            Bug::UnregisteredStartWaits => {
                let storm = Duration::from_secs(20);
                Self { storm, profiles: &[Profile::GracefulStops], ..Self::LATE_FOUNDERS }
            }
            // A follower that lags behind answers for a leader of which it does not know.
            Bug::FalseOutOfRange => Self { nodes: 5, storm: Duration::from_secs(30), ..Self::ANY },
            // A new leader is asked for members of groups before it knows what its predecessor committed last.
            Bug::ServeBeforeOwnTerm => Self {
                storm: Duration::from_secs(20),
                profiles: &[Profile::Elections],
                clients: Some(ExtraClients::Groups),
                ..Self::ANY
            },
            // The newer generation of a checkpoint is damaged, so that the older one is used.
            Bug::SegmentUnlinkedEarly | Bug::RewrittenUnlinkedEarly => {
                Self { profiles: &[Profile::Generations], ..Self::ANY }
            }
            // Only the only node of a cluster corrects a byte.
            Bug::CorrectionNotWritten => Self { first_seed: DAMAGED_HEADS_FROM, nodes: 1, ..Self::ANY },
            // A disk is lost while another replica lags, a node goes down while a state is fetched from it.
            Bug::WipedReplicaVotes | Bug::StateOfTwoPoints | Bug::LeaderNotLocated => {
                Self { first_seed: LOST_VOTERS_FROM, nodes: 3, profiles: &[Profile::Members], ..Self::ANY }
            }
            // An isolated leader truncates, and crashes before the next entry.
            Bug::TruncatedEntriesComeBack => Self { storm: Duration::from_secs(20), ..Self::ANY },
            _ => Self::ANY,
        }
    }

    /// The plan of a seed: what the command asks for, if it asks.
    fn plan(&self, world: &WorldArguments, bug: Bug, seed: u64) -> Plan {
        let plan = world.plan(seed);
        Plan {
            nodes: if self.nodes > 0 && world.nodes == 0 { self.nodes } else { plan.nodes },
            fault_time: plan.fault_time.max(self.storm),
            mutant: Some(bug.name().to_owned()),
            ..plan
        }
    }

    /// True if the plan's seed does what the bug needs.
    fn has(&self, plan: &Plan) -> bool {
        let profile = Profile::of(plan.seed, plan.nodes);
        (self.profiles.is_empty() || self.profiles.contains(&profile))
            && self.clients.is_none_or(|clients| profile.extra_clients(plan.seed) == clients)
    }
}

/// In how many seeds each bug was caught: the last hunt, or the mean of the last two where they differed much.
const CAUGHT: &str = include_str!("../caught.txt");
/// A bug that takes so many times the seeds is harder to catch than it was; fewer than [`FEW_SEEDS`] are chance.
const HARDER_BY: u64 = 3;
const FEW_SEEDS: u64 = 10;

/// True if so many seeds are far more than it took.
fn is_harder(bug: Bug, seeds: u64) -> bool {
    let lines = CAUGHT.lines().filter_map(|line| line.split_once(' '));
    let known = lines.filter(|(name, _)| *name == bug.name()).find_map(|(_, seeds)| seeds.trim().parse::<u64>().ok());
    known.is_some_and(|known| seeds > HARDER_BY * known.max(FEW_SEEDS))
}

pub(crate) fn hunt(world: &WorldArguments, most: u64, only: &[String]) -> ExitCode {
    let chosen = |bug: &&Bug| only.is_empty() || only.iter().any(|name| name == bug.name());
    let (mut free, mut harder) = (Vec::new(), Vec::new());
    println!("{:<44} {:>6}  law", "seeded bug", "seeds");
    for bug in Bug::ALL.iter().filter(chosen) {
        let began = Instant::now();
        let ground = Ground::of(*bug);
        let plans = (ground.first_seed..).map(|seed| ground.plan(world, *bug, seed)).filter(|plan| ground.has(plan));
        let plans = (1..=most).zip(plans);
        let mut caught = None;
        in_order(
            world.jobs(),
            plans,
            |(number, plan)| (number, run(&plan).broken),
            |(seeds, broken)| {
                caught = broken.map(|(violation, _)| (seeds, violation.to_string()));
                caught.is_none()
            },
        );
        match caught {
            Some((seeds, violation)) => {
                let law: String = violation.chars().take(110).collect();
                println!("{:<44} {seeds:>6}  {law}", bug.name());
                if is_harder(*bug, seeds) {
                    harder.push(bug.name());
                }
            }
            None => {
                println!("{:<44} {:>6}  NOT CAUGHT in {:.0} s", bug.name(), most, began.elapsed().as_secs_f64());
                free.push(bug.name());
            }
        }
    }
    if !harder.is_empty() {
        println!("{HARDER_BY} times harder to catch than caught.txt says: {}", harder.join(", "));
    }
    if !free.is_empty() {
        println!("not caught: {}", free.join(", "));
        return ExitCode::FAILURE;
    }
    println!("all caught");
    if harder.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
