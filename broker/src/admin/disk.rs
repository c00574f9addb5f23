//! Metrics of the data directories: the shared log (group commits and syncs), segments, checkpoints, free space.
//!
//! Frames divided by commits is the number of writers that share a sync.

use super::families::{Family, label};
use crate::handlers::context::Domain;
use ottla_storage::data_dir::DataDirStats;
use ottla_storage::log::{COMMIT_BYTES_BOUNDS, SYNC_NANOS_BOUNDS};

/// A family and the function that reads its value.
type Source = (Family, fn(&DataDirStats) -> f64);

#[allow(clippy::cast_precision_loss)]
pub(super) fn directories(domain: &Domain, page: &mut String) {
    let mut sources = sources();
    let mut accepts = Family::gauge("ottla_disk_accepts_writes", "0 when the disk is nearly full or has failed");
    let mut syncs = Family::histogram("ottla_log_sync_seconds", "Time of a sync of the log");
    let mut commits = Family::histogram("ottla_log_commit_bytes", "Bytes of a group commit, padding included");
    let seconds = SYNC_NANOS_BOUNDS.map(|nanos| nanos as f64 / 1e9);
    let bytes = COMMIT_BYTES_BOUNDS.map(|bytes| bytes as f64);
    for directory in domain.directories.iter() {
        let labels = label("directory", &directory.path);
        let stats = directory.data.stats();
        for (family, value) in &mut sources {
            family.add(&labels, value(&stats));
        }
        let log = &stats.log;
        syncs.add_buckets(&labels, &seconds, &log.sync_times, log.sync_nanos as f64 / 1e9);
        commits.add_buckets(&labels, &bytes, &log.commit_sizes, log.bytes as f64);
        accepts.add(&labels, u8::from(directory.data.accepts_writes()));
    }
    for (family, _) in sources {
        family.finish(page);
    }
    syncs.finish(page);
    commits.finish(page);
    accepts.finish(page);
}

#[allow(clippy::cast_precision_loss)]
fn sources() -> Vec<Source> {
    let counter = Family::counter;
    let gauge = Family::gauge;
    vec![
        (counter("ottla_log_commits_total", "Group commits: one write and one sync each"), |s| s.log.commits as f64),
        (counter("ottla_log_frames_total", "Frames in group commits"), |s| s.log.frames as f64),
        (gauge("ottla_log_queued_bytes", "Bytes waiting for the log's writer"), |s| s.log.queued_bytes as f64),
        (gauge("ottla_log_cached_bytes", "Bytes of recent entries held in memory"), |s| s.log.cached_bytes as f64),
        (
            counter("ottla_log_relocated_bytes_total", "Bytes of entries that waited long and moved to the log's end"),
            |s| s.log.relocated_bytes as f64,
        ),
        (gauge("ottla_log_segments", "Segment files"), |s| s.segments as f64),
        (gauge("ottla_log_bytes", "Bytes in use in segments"), |s| s.log_bytes as f64),
        (gauge("ottla_log_live_bytes", "Bytes of batches that can still be read"), |s| s.live_bytes as f64),
        (counter("ottla_log_segments_removed_total", "Segments removed"), |s| s.unlinked_segments as f64),
        (gauge("ottla_storage_bytes", "Bytes that segment files and runs take"), |s| s.file_bytes as f64),
        (gauge("ottla_runs", "Runs: files of live batches that the rewriter has made"), |s| s.runs as f64),
        (gauge("ottla_runs_bytes", "Bytes that runs take"), |s| s.run_bytes as f64),
        (counter("ottla_runs_removed_total", "Runs removed"), |s| s.unlinked_runs as f64),
        (counter("ottla_rewrites_total", "Jobs of the rewriter"), |s| s.rewrites as f64),
        (counter("ottla_rewritten_bytes_total", "Bytes that the rewriter has copied"), |s| s.rewritten_bytes as f64),
        (counter("ottla_compactions_total", "Passes of compaction over one partition each"), |s| s.compactions as f64),
        (
            counter("ottla_compacted_bytes_total", "Bytes that passes of compaction have kept, and so written anew"),
            |s| s.compacted_bytes as f64,
        ),
        (
            gauge("ottla_rewriter_damaged_files", "Files that are not rewritten because a batch in them is damaged"),
            |s| s.damaged_sources as f64,
        ),
        (gauge("ottla_space_amplification", "Bytes on the disk for each live byte"), DataDirStats::space_amplification),
        (
            gauge("ottla_write_amplification", "Bytes written for each byte of the log, since the start"),
            DataDirStats::write_amplification,
        ),
        (counter("ottla_checkpoints_total", "Checkpoints written"), |s| s.checkpoints as f64),
        (counter("ottla_checkpoint_bytes_total", "Bytes of checkpoints written"), |s| s.checkpoint_bytes as f64),
        (counter("ottla_damaged_reads_total", "Damaged batches met by reads"), |s| s.damaged_reads as f64),
        (counter("ottla_scrubs_total", "Times that all batches were verified"), |s| s.scrubs as f64),
        (
            counter(
                "ottla_scrubbed_bytes_total",
                "Bytes of batches that were verified whether anybody read them or not",
            ),
            |s| s.scrubbed_bytes as f64,
        ),
        (counter("ottla_repaired_batches_total", "Damaged batches that were fetched from another replica"), |s| {
            s.repaired_batches as f64
        }),
        (gauge("ottla_disk_bytes", "Size of the file system"), |s| s.disk_total_bytes as f64),
        (gauge("ottla_disk_free_bytes", "Free bytes of the file system"), |s| s.disk_free_bytes as f64),
    ]
}
