//! Damage of files at rest: flipped bits, pages that cannot be read, files that are gone.
//!
//! May not know: when. Damage is done where the design says what must come of it: never to the last durable commit, which
//! cannot be told from a torn write, and to a checkpoint only while the other generation is whole.

use std::path::{Path, PathBuf};

use ottla_storage::env::disk::{Disk, OpenMode, PAGE_BYTES};
use ottla_storage::env::sim::{self, SimNode};

use crate::world::World;

/// What is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rot {
    /// A bit of the log: only a replacement helps, unless the damage happens to be harmless.
    Log,
    /// A page of the log cannot be read any more.
    LogPage,
    /// A bit of a run.
    Run,
    /// A bit of an index file: it is made anew.
    Index,
    /// An index file is gone.
    IndexGone,
    /// A bit of the newest checkpoint generation: the older one serves.
    Checkpoint,
}

impl Rot {
    /// True if a replica may be lost by it, or what it holds unreadable.
    fn may_lose(self) -> bool {
        matches!(self, Self::Log | Self::LogPage | Self::Run)
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

/// Some byte of the file in this range that is not zero.
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

/// A place of the log in front of its last durable commit; mostly not far from it, where recovery reads.
fn place_in_log(world: &World, node: SimNode) -> Option<(PathBuf, u64)> {
    let limit = world.promises().provable_before(node)?;
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
    // Commits begin on pages of their own: heads of frames are near the beginning of a page.
    let head = at / page * page;
    let at = if sim::random_below(2) == 0 { byte_in(world, node, &path, head, head + 400).unwrap_or(at) } else { at };
    Some((path, at))
}

/// Damages one file of a node; what was done, if there was anything to damage.
pub(crate) fn strike(world: &World, node: SimNode, rot: Rot, whole_above: &mut u64) -> Option<String> {
    let disk = world.disk(node);
    let bit = u8::try_from(sim::random_below(8)).unwrap_or(0);
    let (path, at) = match rot {
        Rot::Log | Rot::LogPage => place_in_log(world, node)?,
        Rot::Run => {
            let path = any(files(world, node, "runs", ".run"))?;
            let at = byte_in(world, node, &path, 0, u64::MAX)?;
            (path, at)
        }
        Rot::Index | Rot::IndexGone => {
            let dir = if sim::random_below(2) == 0 { "runs" } else { "log" };
            let path = any(files(world, node, dir, ".idx"))?;
            let at = byte_in(world, node, &path, 0, u64::MAX)?;
            (path, at)
        }
        Rot::Checkpoint => {
            let mut all = files(world, node, "state", ".ckpt");
            all.sort_by_key(|path| number(path));
            let [older, newest] = all.as_slice() else { return None };
            if number(older) <= *whole_above {
                return None;
            }
            *whole_above = number(newest);
            (newest.clone(), byte_in(world, node, newest, 0, 256 << 10)?)
        }
    };
    if rot.may_lose() {
        world.give_up(node);
    }
    match rot {
        Rot::LogPage => disk.make_unreadable(&path, at).ok()?,
        Rot::IndexGone => disk.unlink(&path).ok()?,
        _ => disk.flip_bit(&path, at, bit).ok()?,
    }
    let provable = world.promises().provable_before(node);
    Some(format!("node {}: {rot:?} at byte {at} of {}, its last commit is at {provable:?}", node.0, path.display()))
}
