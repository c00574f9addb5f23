//! Corruption of files at rest: flipped bits, unreadable pages, missing files.
//!
//! Files are corrupted only where the design says what must follow: never the last durable commit, which cannot be told
//! from a torn write, and a checkpoint only while the other generation is whole.
//!
//! May not know: when.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use ottla_env::disk::{Disk, OpenMode, PAGE_BYTES};
use ottla_env::sim::{self, SimNode};

use crate::world::World;

/// The kinds of corruption.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Corruption {
    /// Two bytes of the log: only a replacement of the replica helps, unless the damage happens to be harmless.
    Log,
    /// Two bytes in the head of one of the last frames: only its checksum guards them, and a replica may have promised
    /// what they say. In a cluster that one node founded, some of whose shards have one replica, one byte of a frame,
    /// which is corrected.
    Head,
    /// A bit among the records of one of the last commits.
    Records,
    /// A page of the log is unreadable.
    LogPage,
    /// A bit of a run.
    Run,
    /// A bit of an index file, which is rebuilt.
    Index,
    /// An index file is missing.
    IndexGone,
    /// All index files are missing.
    IndexesGone,
    /// A bit of the newest checkpoint generation: the older one is used.
    Checkpoint,
}

impl Corruption {
    /// True if a replica may be lost by it, or its records become unreadable.
    fn may_lose(self) -> bool {
        matches!(self, Self::Log | Self::Head | Self::Records | Self::LogPage | Self::Run)
    }
}

fn files(world: &World, node: SimNode, dir: &str, suffix: &str) -> Vec<PathBuf> {
    let dir = Path::new("/data").join(dir);
    let entries = world.disk(node).list(&dir).unwrap_or_default();
    entries.into_iter().filter(|entry| entry.name.ends_with(suffix)).map(|entry| dir.join(entry.name)).collect()
}

fn number(path: &Path) -> u64 {
    let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    name.and_then(|name| name.parse().ok()).unwrap_or(u64::MAX)
}

fn any<T>(all: Vec<T>) -> Option<T> {
    let at = usize::try_from(sim::random_below(all.len() as u64)).unwrap_or(0);
    all.into_iter().nth(at)
}

/// The position of some byte in this range of the file that is not zero.
fn byte_in(world: &World, node: SimNode, path: &Path, from: u64, to: u64) -> Option<u64> {
    let file = world.disk(node).open(path, OpenMode::Read).ok()?;
    let to = to.min(file.bytes().ok()?);
    if from >= to {
        return None;
    }
    (0..40).find_map(|_| {
        let at = from + sim::random_below(to - from);
        let mut byte = [0];
        (file.read_at(&mut byte, at).ok()? == 1 && byte[0] != 0).then_some(at)
    })
}

/// A position of the log in front of its last durable commit; mostly close to it, where recovery reads.
fn place_in_log(world: &World, node: SimNode) -> Option<(PathBuf, u64)> {
    let limit = world.durability().provable_before(node)?;
    let page = PAGE_BYTES as u64;
    let segments = files(world, node, "log", ".log").into_iter().filter(|path| number(path) <= limit.segment).collect();
    let newest = Path::new("/data/log").join(format!("{:016}.log", limit.segment));
    let path = if sim::random_below(3) == 0 { any(segments)? } else { newest };
    let (from, to) = if number(&path) == limit.segment {
        let to = u64::from(limit.byte) / page * page;
        (page.max(to.saturating_sub(sim::random_below(64) * page)), to)
    } else {
        (page, u64::MAX)
    };
    let at = byte_in(world, node, &path, from, to)?;
    // Commits start on pages of their own: heads of frames are near the start of a page.
    let head = at / page * page;
    let at = if sim::random_below(2) == 0 { byte_in(world, node, &path, head, head + 400).unwrap_or(at) } else { at };
    Some((path, at))
}

/// Bytes of a commit's header that are read: byte 12 says where its frames start, byte 56 their length.
const COMMIT_HEAD_BYTES: usize = 60;
/// The fields of a frame's head that are stored nowhere else: replica, sequence, term, index, clock.
const FRAME_FIELDS: std::ops::Range<u64> = 24..64;
/// How many of the newest commits [`Corruption::Head`] and [`Corruption::Records`] may damage.
const NEWEST_HEADS: u64 = 12;
const NEWEST_RECORDS: u64 = 15;
/// The base of a checkpoint generation starts here: without it nothing of the generation is used.
const CHECKPOINT_BASE: u64 = 4 << 10;

/// One of the last commits in front of the last durable one: its segment, and where its frames start and end.
fn late_commit(world: &World, node: SimNode, newest: u64) -> Option<(PathBuf, u64, u64)> {
    let limit = world.durability().provable_before(node)?;
    let path = Path::new("/data/log").join(format!("{:016}.log", limit.segment));
    let file = world.disk(node).open(&path, OpenMode::Read).ok()?;
    let page = PAGE_BYTES as u64;
    let (mut at, mut left) = (u64::from(limit.byte) / page * page, 1 + sim::random_below(newest));
    while at >= 2 * page {
        at -= page;
        let mut head = [0; COMMIT_HEAD_BYTES];
        if file.read_at(&mut head, at).ok()? < COMMIT_HEAD_BYTES || !head.starts_with(b"OTTLACMT") {
            continue;
        }
        left -= 1;
        if left == 0 {
            let word = |at: usize| u64::from(u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]));
            let frames = at + word(12);
            return Some((path, frames, frames + word(56)));
        }
    }
    None
}

/// The ranges of the records of each batch of a commit's entries, counted from its first frame: see the byte pictures
/// of a frame and of a record batch.
fn records_in(frames: &[u8]) -> Vec<std::ops::Range<usize>> {
    const ENTRY: u8 = 1;
    let word = |at: usize| {
        let bytes = frames.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    let (mut found, mut at) = (Vec::new(), 0);
    while let (Some(length), Some(count), Some(payload)) = (word(at), word(at + 20), word(at + 72)) {
        let mut batch = at + 80 + 32 * count + payload;
        let entry = frames[at + 16] == ENTRY;
        for number in (0..count).filter(|_| entry) {
            let Some(bytes) = word(at + 80 + 32 * number + 20) else { break };
            found.push(batch + 61..batch + bytes);
            batch += bytes;
        }
        at += length.next_multiple_of(8).max(8);
    }
    found.retain(|records| records.start < records.end && records.end <= frames.len());
    found
}

fn in_late_commit(world: &World, node: SimNode, kind: Corruption) -> Option<(PathBuf, u64)> {
    let newest = if kind == Corruption::Head { NEWEST_HEADS } else { NEWEST_RECORDS };
    let (path, from, to) = late_commit(world, node, newest)?;
    if kind == Corruption::Head {
        let field = FRAME_FIELDS.start + sim::random_below(FRAME_FIELDS.end - FRAME_FIELDS.start);
        return Some((path, from + field)).filter(|(_, at)| *at < to);
    }
    let mut frames = vec![0; usize::try_from(to - from).ok()?];
    world.disk(node).open(&path, OpenMode::Read).ok()?.read_at(&mut frames, from).ok()?;
    let records = any(records_in(&frames))?;
    let at = records.start as u64 + sim::random_below(records.len() as u64);
    Some((path, from + at))
}

fn lose_indexes(world: &World, node: SimNode) -> Option<String> {
    let all: Vec<PathBuf> = ["log", "runs"].into_iter().flat_map(|dir| files(world, node, dir, ".idx")).collect();
    for path in &all {
        world.disk(node).unlink(path).ok()?;
    }
    Some(format!("node {}: all {} index files are gone", node.0, all.len()))
}

/// What further damage must not add to.
#[derive(Default)]
pub(crate) struct Damaged {
    /// The number of the newest damaged checkpoint generation of each node.
    checkpoints: BTreeMap<SimNode, u64>,
    /// The pages of the frames of which one byte is wrong: a frame with two is lost.
    heads: BTreeSet<(SimNode, PathBuf, u64)>,
}

/// Corrupts one file of a node; returns what was done, or `None` if there was nothing to corrupt.
pub(crate) fn corrupt(world: &World, node: SimNode, kind: Corruption, damaged: &mut Damaged) -> Option<String> {
    // With two corrupted disks no replica might have the records that both lack.
    if kind.may_lose() && world.nodes().any(|other| other != node && world.is_corrupted(other)) {
        return None;
    }
    let disk = world.disk(node);
    let bit = u8::try_from(sim::random_below(8)).unwrap_or(0);
    let (path, at) = match kind {
        Corruption::Log | Corruption::LogPage => place_in_log(world, node)?,
        Corruption::Head | Corruption::Records => in_late_commit(world, node, kind)?,
        Corruption::IndexesGone => return lose_indexes(world, node),
        Corruption::Run => {
            let path = any(files(world, node, "runs", ".run"))?;
            let at = byte_in(world, node, &path, 0, u64::MAX)?;
            (path, at)
        }
        Corruption::Index | Corruption::IndexGone => {
            let dir = if sim::random_below(2) == 0 { "runs" } else { "log" };
            let path = any(files(world, node, dir, ".idx"))?;
            let at = byte_in(world, node, &path, 0, u64::MAX)?;
            (path, at)
        }
        Corruption::Checkpoint => {
            let mut all = files(world, node, "state", ".ckpt");
            all.sort_by_key(|path| number(path));
            let [older, newest] = all.as_slice() else { return None };
            // The generation that was damaged last may still be used, for what stands in front of the damage.
            if damaged.checkpoints.get(&node).is_some_and(|damaged| *damaged == number(older)) {
                return None;
            }
            damaged.checkpoints.insert(node, number(newest));
            let to = if sim::random_below(2) == 0 { CHECKPOINT_BASE } else { 256 << 10 };
            (newest.clone(), byte_in(world, node, newest, 0, to)?)
        }
    };
    // One wrong byte of a frame is corrected: where other replicas can replace what is lost, two are damaged.
    let is_alone = world.founders() == 1;
    if is_alone && kind == Corruption::Head && !damaged.heads.insert((node, path.clone(), at / PAGE_BYTES as u64)) {
        return None;
    }
    if kind.may_lose() && !(is_alone && kind == Corruption::Head) {
        world.mark_corrupted(node);
    }
    match kind {
        Corruption::Log | Corruption::Head if !is_alone => {
            disk.flip_bit(&path, at, bit).ok()?;
            disk.flip_bit(&path, at ^ 1, bit).ok()?;
        }
        Corruption::LogPage => disk.make_unreadable(&path, at).ok()?,
        Corruption::IndexGone => disk.unlink(&path).ok()?,
        _ => disk.flip_bit(&path, at, bit).ok()?,
    }
    let provable = world.durability().provable_before(node);
    Some(format!("node {}: {kind:?} at byte {at} of {}, its last commit is at {provable:?}", node.0, path.display()))
}
