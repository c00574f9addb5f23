//! Draws which faults happen when: from the seed and its profile alone, before the run.
//!
//! May not know: the world.

use std::time::Duration;

use ottla_env::sim::disk::Crash;
use ottla_env::sim::{self, SimNode};

use super::{Event, Fault};
use crate::corruption::Corruption;
use crate::durability_tracker::CrashPoint;
use crate::graceful_stops::JOINER_FORGOTTEN_BY;
use crate::profile::Profile;
use crate::targeting::Target;
use crate::{lost_markers, unapplied_markers};

/// A node has asked the seed nodes whether it was removed by then: it does so every ten seconds.
const SEED_NODE_LOST_FOR: Duration = Duration::from_secs(22);
/// The shards are led and acknowledged by then, mostly.
const FOLLOWERS_STALL_FROM_MS: u64 = 1_500;
/// Several times as long as a leader may be unacknowledged.
const FOLLOWERS_STALL_UNTIL_MS: u64 = 8_000;
/// Between the stop of a node and its start with the other release.
const CHANGE_PAUSE: Duration = Duration::from_millis(100);
/// Tasks panic in one of so many seeds.
const PANICS_EVERY: u64 = 5;

/// What the node with the corrupted disk loses for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loses {
    /// Nothing: only files that can be rebuilt are corrupted.
    Nothing,
    /// Records of entries that others lack, while it leads.
    Records,
    /// Anything in its log.
    Anything,
}

fn random_target(nodes: u32) -> Target {
    match sim::random_below(3) {
        0 => Target::Leader,
        _ => Target::Node(any_node(nodes)),
    }
}

fn any_node(nodes: u32) -> SimNode {
    SimNode(1 + u32::try_from(sim::random_below(u64::from(nodes))).unwrap_or(0))
}

pub(super) fn random_crash() -> Crash {
    if sim::random_below(2) == 0 { Crash::Power } else { Crash::Process }
}

/// A fault of the seed's profile, or any.
fn fault(profile: Profile, nodes: u32, victim: SimNode, loses: Loses) -> Fault {
    let target = random_target(nodes);
    if sim::random_below(3) == 0 {
        return any_fault(nodes);
    }
    let pick = sim::random_below(8);
    match profile {
        Profile::Mixed => any_fault(nodes),
        Profile::Crashes | Profile::Churn => match pick {
            0..2 => Fault::Crash(target, Crash::Power),
            2..5 => Fault::CrashTwice(target, sim::random_below(40)),
            5 => Fault::SyncError(target, sim::random_below(60)),
            6 => Fault::CrashAt(CrashPoint::Vote, random_crash()),
            _ => Fault::PowerLoss,
        },
        Profile::Generations => match pick {
            0..2 => Fault::Crash(target, Crash::Power),
            2..5 => Fault::Corrupt { node: any_node(nodes), kind: Corruption::Checkpoint, down: true },
            5..7 => Fault::Corrupt { node: any_node(nodes), kind: Corruption::IndexesGone, down: true },
            _ => Fault::Corrupt { node: any_node(nodes), kind: Corruption::Index, down: false },
        },
        Profile::Elections => match pick {
            0..2 => Fault::Isolate(Target::Leader),
            2 if sim::random_below(2) == 0 => Fault::Pause(Target::Leader),
            2 => Fault::CrashAt(CrashPoint::Conflict, random_crash()),
            3 => Fault::CrashDuringTruncation(Crash::Power),
            4 => Fault::CrashAt(CrashPoint::Vote, random_crash()),
            5 => Fault::PowerLossAtVote,
            6 => Fault::Crash(Target::Leader, random_crash()),
            _ if sim::random_below(2) == 0 => Fault::StaleMetadata(victim),
            _ => clock(Target::Leader),
        },
        Profile::Members => match pick {
            0..3 => Fault::Wipe(target),
            3 => Fault::Join,
            4 => Fault::CrashAt(CrashPoint::Answered, random_crash()),
            5 => Fault::StaleMetadata(victim),
            _ => Fault::Crash(target, random_crash()),
        },
        Profile::GracefulStops => match pick {
            0..3 => Fault::Stop(target, None),
            3..5 => Fault::Stop(target, Some(sim::random_below(60))),
            5 => Fault::RollingRestart,
            6 => Fault::Unregister(any_node(nodes)),
            _ if sim::random_below(2) == 0 => Fault::Join,
            _ => Fault::Crash(target, random_crash()),
        },
        Profile::Corruption if pick < 5 => corruption(victim, loses),
        Profile::Corruption => Fault::Crash(target, random_crash()),
    }
}

fn corruption(victim: SimNode, loses: Loses) -> Fault {
    let down = sim::random_below(2) == 0;
    let kind = match sim::random_below(5) {
        0 => Corruption::Index,
        _ if loses == Loses::Records => return Fault::LaggingFollower,
        1 if down => Corruption::IndexGone,
        1 => Corruption::Index,
        _ if loses == Loses::Nothing => Corruption::Checkpoint,
        2 => Corruption::Checkpoint,
        _ => match sim::random_below(8) {
            0..2 => Corruption::Log,
            2 => Corruption::LogPage,
            3 => Corruption::Run,
            _ => Corruption::Head,
        },
    };
    let down = down || matches!(kind, Corruption::Checkpoint | Corruption::Head);
    Fault::Corrupt { node: victim, kind, down }
}

fn clock(target: Target) -> Fault {
    let unit_ms = 31_536_000_000;
    let units = i64::try_from(sim::random_below(20)).unwrap_or(0) - 8;
    Fault::Clock(target, units * unit_ms)
}

fn any_fault(nodes: u32) -> Fault {
    let target = random_target(nodes);
    match sim::random_below(24) {
        0..5 => Fault::Crash(target, random_crash()),
        5 => Fault::PowerLoss,
        6..8 => Fault::Isolate(target),
        8 => Fault::DropOutgoing(target),
        9 => Fault::DropIncoming(target),
        10..12 => Fault::HangSyncs(target),
        12 => Fault::SyncError(target, sim::random_below(200)),
        13 => Fault::WriteError(target, sim::random_below(200)),
        14 => Fault::DiskFull(target),
        15..17 => Fault::Pause(target),
        17 => clock(target),
        18 => Fault::CrashTwice(target, sim::random_below(40)),
        19 => Fault::CrashAt(CrashPoint::Vote, random_crash()),
        20 => Fault::ResetConnections(target),
        21 => Fault::SlowLinks {
            delay_min_ms: 1 + sim::random_below(100),
            bytes_per_second: 50_000 << sim::random_below(8),
        },
        _ => Fault::BadNetwork {
            loss_per_mille: sim::random_below(200),
            repeat_per_mille: sim::random_below(100),
            delay_max_ms: 1 + sim::random_below(300),
        },
    }
}

/// Half of the clusters start with one clock that is wrong by days or years, more often ahead; [`super::heal`] sets it right
/// with all others, if no fault does before. Drawn from the seed alone: the draws of the world stay as they were.
pub(crate) fn wrong_clock_at_start(seed: u64, nodes: u32) -> Option<(SimNode, i64)> {
    let mut draws = seed ^ 0xc10c_c10c_c10c_c10c;
    let mut draw = |bound: u64| {
        draws = draws.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (draws >> 33) % bound
    };
    // A cluster of one node has no other clock to compare its own with.
    if nodes < 3 || draw(2) == 0 {
        return None;
    }
    let node = SimNode(1 + u32::try_from(draw(u64::from(nodes))).unwrap_or(0));
    let wrong_ms = 86_400_000 * i64::try_from(8 + draw(3_000)).unwrap_or(0);
    Some((node, if draw(4) == 0 { -wrong_ms } else { wrong_ms }))
}

/// The faults of a run, in order of their times. `heads`: crashes damage the head of a frame.
pub(crate) fn draw_schedule(profile: Profile, nodes: u32, lasts: Duration, heads: bool) -> Vec<Event> {
    let end_ms = u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX);
    // Seeds differ in how often faults come.
    let gaps_ms = if profile == Profile::Mixed { [300, 700, 1_500, 4_000] } else { [200, 300, 500, 900] };
    let gap_ms = gaps_ms[usize::try_from(sim::random_below(4)).unwrap_or(0)];
    let victim = any_node(nodes);
    let loses = match sim::random_below(5) {
        0 => Loses::Nothing,
        1..3 => Loses::Records,
        _ => Loses::Anything,
    };
    let mut events = Vec::new();
    let mut at_ms = 300;
    while at_ms < end_ms {
        let lasts_ms = if sim::random_below(4) == 0 { sim::random_below(6_000) } else { sim::random_below(900) };
        let fault = match fault(profile, nodes, victim, loses) {
            Fault::Crash(..) if heads => Fault::Corrupt { node: victim, kind: Corruption::Head, down: true },
            fault => fault,
        };
        // Long enough for the other nodes to elect a leader, while the old one does not know it yet.
        let isolates = profile == Profile::Elections && matches!(fault, Fault::Isolate(_));
        let lasts_ms = if isolates { 1_500 + sim::random_below(2_500) } else { lasts_ms };
        events.push(Event { at_ms, lasts_ms: lasts_ms.min(end_ms - at_ms), fault });
        at_ms += 1 + sim::random_below(2 * gap_ms);
    }
    events
}

/// Adds panics of tasks to a schedule, in some seeds: drawn last, so that the other faults stay what they were.
pub(crate) fn with_task_panics(seed: u64, nodes: u32, lasts: Duration, mut events: Vec<Event>) -> Vec<Event> {
    let end_ms = u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX);
    if seed % PANICS_EVERY == 3 && end_ms > 0 {
        for _ in 0..2 {
            let at_ms = 300 + sim::random_below(end_ms);
            let fault = Fault::Panic(random_target(nodes));
            events.push(Event { at_ms, lasts_ms: sim::random_below(2_000), fault });
        }
        events.sort_by_key(|event| event.at_ms);
    }
    events
}

/// Adds faults to a schedule of this length, each at any time and for so long: drawn last, so that the other faults stay
/// what they were.
fn with_faults(
    mut events: Vec<Event>,
    length: Duration,
    lasts: Duration,
    faults: impl IntoIterator<Item = Fault>,
) -> Vec<Event> {
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    for fault in faults {
        events.push(Event { at_ms: sim::random_below(ms(length).max(1)), lasts_ms: ms(lasts), fault });
    }
    events.sort_by_key(|event| event.at_ms);
    events
}

/// Puts a fault first; no other one happens up to this time.
fn with_alone(mut events: Vec<Event>, until_ms: u64, alone: Event) -> Vec<Event> {
    events.retain(|event| event.at_ms > until_ms);
    events.insert(0, alone);
    events
}

/// Adds nodes that are unregistered as soon as they have joined, and one whose disk hangs meanwhile. In a storm that is
/// long enough, the first of them is forgotten before other faults happen. No other nodes join then: they would take its
/// place.
pub(crate) fn with_early_unregistrations(nodes: u32, lasts: Duration, mut events: Vec<Event>) -> Vec<Event> {
    let mut faults = vec![Fault::UnregisterJoining, Fault::UnregisterWithSlowDisk(any_node(nodes))];
    if lasts > JOINER_FORGOTTEN_BY {
        let is_later = |event: &Event| Duration::from_millis(event.at_ms) > JOINER_FORGOTTEN_BY;
        events.retain(|event| is_later(event) && !matches!(event.fault, Fault::Join));
        events.push(Event { at_ms: 300, lasts_ms: 0, fault: Fault::UnregisterJoining });
    } else {
        faults.push(Fault::UnregisterJoining);
    }
    with_faults(events, lasts, Duration::ZERO, faults)
}

/// Adds replicas that lose their disks while others lag, nodes that go down while a state is fetched from them, and a
/// leader of the metadata that a node does not know.
pub(crate) fn with_lost_voters(nodes: u32, lasts: Duration, events: Vec<Event>) -> Vec<Event> {
    let interrupted = Fault::CrashAt(CrashPoint::StatePart, Crash::Process);
    let unknown_leader = Fault::UnknownLeader(any_node(nodes));
    let faults = [Fault::WipeVoter, interrupted, unknown_leader, Fault::WipeVoter, interrupted];
    with_faults(events, lasts, lasts, faults)
}

/// Adds leaders that are isolated while their shards are being merged.
pub(crate) fn with_interrupted_merges(lasts: Duration, events: Vec<Event>) -> Vec<Event> {
    with_faults(events, lasts, lasts, [Fault::IsolateMerging; 3])
}

/// Adds a seed node that loses its disk while another node asks it whether it was removed.
pub(crate) fn with_lost_seed_node(storm: Duration, events: Vec<Event>) -> Vec<Event> {
    with_long(storm, SEED_NODE_LOST_FOR, Fault::LostSeedNode, events)
}

/// Puts a fault first that takes long, so no other one happens before it is over; a shorter storm stays as it is.
fn with_long(storm: Duration, takes: Duration, fault: Fault, events: Vec<Event>) -> Vec<Event> {
    let lasts_ms = u64::try_from(takes.as_millis()).unwrap_or(0);
    if storm <= takes { events } else { with_alone(events, lasts_ms, Event { at_ms: 300, lasts_ms, fault }) }
}

/// Adds a coordinator that loses its leadership and wins it back while markers get lost.
pub(crate) fn with_outlived_leadership(storm: Duration, events: Vec<Event>) -> Vec<Event> {
    with_long(storm, lost_markers::TAKES, Fault::OutliveLeadership, events)
}

/// Adds replicas that are elected while their logs have markers which they have not applied.
pub(crate) fn with_unapplied_markers(storm: Duration, events: Vec<Event>) -> Vec<Event> {
    with_long(storm, unapplied_markers::TAKES, Fault::LeadBehindMarkers, events)
}

/// Lets the disks of a leader's followers stall before any other fault happens.
pub(crate) fn with_stalled_followers(events: Vec<Event>) -> Vec<Event> {
    let lasts_ms = FOLLOWERS_STALL_UNTIL_MS - FOLLOWERS_STALL_FROM_MS;
    let event = Event { at_ms: FOLLOWERS_STALL_FROM_MS, lasts_ms, fault: Fault::StallFollowers };
    with_alone(events, FOLLOWERS_STALL_UNTIL_MS, event)
}

/// Adds nodes that change their release, each of them twice, and an operator who raises the level too early.
pub(crate) fn with_changed_releases(nodes: u32, lasts: Duration, events: Vec<Event>) -> Vec<Event> {
    let changes = (0..2 * nodes).map(|change| Fault::ChangeRelease(SimNode(1 + change % nodes)));
    with_faults(events, lasts, CHANGE_PAUSE, changes.chain([Fault::RaiseLevel; 3]))
}

/// Adds nodes that lose their disks while they are being unregistered, or are killed then.
pub(crate) fn with_lost_leavers(nodes: u32, lasts: Duration, events: Vec<Event>) -> Vec<Event> {
    let kinds = [Fault::UnregisterWithLostDisk, Fault::UnregisterAndRestart].repeat(2);
    with_faults(events, lasts, Duration::ZERO, kinds.into_iter().map(|kind| kind(any_node(nodes))))
}
