//! `node.json`: node, cluster and format of a data directory. Written whole, by rename.
//!
//! May not know: the other files of the directory.

use std::io;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::DataDirError;
use crate::checkpoint::file::{off_thread, sync};
use ottla_env::disk::{Disk, OpenMode, read_exact_at};
use ottla_env::rt;

/// The newest format of data directories this release reads.
const FORMAT_VERSION: u32 = COMPACTION_FORMAT_VERSION;
/// The format of a directory without runs: 0.1.0 opens it, too.
const FIRST_FORMAT_VERSION: u32 = 1;
/// The format of a directory that has had runs: a release that does not know them must not open it, since it would
/// take the checkpoint for damaged and remove it.
pub(crate) const RUNS_FORMAT_VERSION: u32 = 2;
/// The format of a directory with relocated entries: 0.2.0 would find frames out of order and miss others.
pub(crate) const RELOCATION_FORMAT_VERSION: u32 = 3;
/// The format of a directory in which partitions have moved from one replica to another: 0.5 would take the bytes of one
/// for those of the other.
pub(crate) const LINEAGE_FORMAT_VERSION: u32 = 4;
/// The format of a directory in which a partition was compacted: an older release would take what is gone for what counts.
pub(crate) const COMPACTION_FORMAT_VERSION: u32 = 5;

const FILE: &str = "node.json";
const NEW_FILE: &str = "node.json.new";
/// Limit of the length of `node.json`.
const BYTES_MAX: u64 = 64 << 10;

/// The content of `node.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) format_version: u32,
    pub(crate) node_id: i32,
    #[serde(with = "as_text")]
    pub(crate) directory_id: Uuid,
    pub(crate) cluster_id: Option<String>,
    /// The node has left its cluster: an empty directory, but not a new one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) has_left: bool,
}

/// An id as `node.json` shows it.
mod as_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use uuid::Uuid;

    pub(super) fn serialize<S: Serializer>(id: &Uuid, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(id)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Uuid, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// The part that every format keeps, so that a newer file is distinguished from a damaged one.
#[derive(Deserialize)]
struct Version {
    format_version: u32,
}

/// The node and cluster that the directory must belong to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expected<'a> {
    pub(crate) node_id: i32,
    pub(crate) cluster_id: Option<&'a str>,
    pub(crate) directory_id: Option<Uuid>,
}

fn random_uuid() -> Uuid {
    uuid::Builder::from_random_bytes((u128::from(rt::random_u64()) << 64 | u128::from(rt::random_u64())).to_le_bytes())
        .into_uuid()
}

impl Identity {
    /// A new directory's identity.
    pub(crate) fn new(expected: Expected<'_>) -> Self {
        Self {
            format_version: FIRST_FORMAT_VERSION,
            node_id: expected.node_id,
            directory_id: random_uuid(),
            cluster_id: expected.cluster_id.map(str::to_owned),
            has_left: false,
        }
    }

    /// Reads `node.json`; `None` if there is none.
    pub(crate) fn read(disk: &dyn Disk, dir: &Path) -> Result<Option<Self>, DataDirError> {
        let io = |source| DataDirError::io(&dir.join(FILE), source);
        if !disk.list(dir).map_err(io)?.iter().any(|entry| entry.name == FILE) {
            return Ok(None);
        }
        let file = disk.open(&dir.join(FILE), OpenMode::Read).map_err(io)?;
        let bytes = file.bytes().map_err(io)?;
        let damaged = |what: String| DataDirError::Damaged { path: dir.join(FILE).display().to_string(), what };
        if bytes > BYTES_MAX {
            return Err(damaged(format!("{bytes} bytes are too many")));
        }
        let mut text = vec![0; usize::try_from(bytes).unwrap_or(0)];
        read_exact_at(&*file, &mut text, 0).map_err(io)?;
        let version: Version = serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
        if version.format_version > FORMAT_VERSION {
            return Err(DataDirError::NewerFormat {
                path: dir.display().to_string(),
                found: version.format_version,
                supported: FORMAT_VERSION,
            });
        }
        serde_json::from_slice(&text).map(Some).map_err(|error| damaged(error.to_string()))
    }

    /// Writes `node.json`; durable when this returns.
    pub(crate) async fn write(&self, disk: &Arc<dyn Disk>, dir: &Path) -> io::Result<()> {
        let mut text = serde_json::to_vec_pretty(self).map_err(io::Error::other)?;
        text.push(b'\n');
        let (work_disk, work_dir) = (Arc::clone(disk), dir.to_owned());
        let file = off_thread(disk, move || {
            if work_disk.list(&work_dir)?.iter().any(|entry| entry.name == NEW_FILE) {
                work_disk.unlink(&work_dir.join(NEW_FILE))?;
            }
            let file = work_disk.open(&work_dir.join(NEW_FILE), OpenMode::CreateNew)?;
            file.write_at(&text, 0)?;
            Ok(file)
        });
        sync(disk, &file.await?).await?;
        let (work_disk, work_dir) = (Arc::clone(disk), dir.to_owned());
        off_thread(disk, move || {
            work_disk.rename(&work_dir.join(NEW_FILE), &work_dir.join(FILE))?;
            work_disk.sync_dir(&work_dir)
        })
        .await
    }

    /// Refuses a directory of another node or cluster, or one that was wiped.
    pub(crate) fn check(&self, dir: &Path, expected: Expected<'_>) -> Result<(), DataDirError> {
        let foreign = |what: String| Err(DataDirError::Foreign { path: dir.display().to_string(), what });
        if self.node_id != expected.node_id {
            return foreign(format!("it belongs to node {}, this is node {}", self.node_id, expected.node_id));
        }
        if let (Some(found), Some(wanted)) = (self.cluster_id.as_deref(), expected.cluster_id)
            && found != wanted
        {
            return foreign(format!("it belongs to cluster {found}, not {wanted}"));
        }
        match expected.directory_id {
            Some(wanted) if wanted != self.directory_id => foreign(format!(
                "its directory id is {}, metadata expects {wanted}: it was wiped or exchanged",
                self.directory_id
            )),
            _ => Ok(()),
        }
    }
}
