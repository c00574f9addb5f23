//! Opens the data directories of a node concurrently, and reports the progress.
//!
//! May not know: their contents.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::join_all;
use ottla_env::disk::Disk;
use ottla_env::{rt, watch};
use ottla_storage::data_dir::{DataDir, DataDirError, DataDirOptions, OnFailure, RecoveredReplica};
use ottla_storage::log::LogOptions;
use ottla_storage::rewrite::{RetentionClass, RewriteOptions};

use super::follow_config::follow_config;
use crate::admin::readiness::{Phase, Readiness};
use crate::config::Config;
use crate::handlers::context::Directory;
use crate::levels::{COMPACTION, FeatureLevel};
use crate::metadata::{MetadataHandle, Topic, is_internal};

/// A directory and the replicas in it.
pub(super) struct Opened {
    pub(super) directory: Directory,
    pub(super) replicas: Vec<RecoveredReplica>,
}

/// Counts the directories that have failed.
pub(super) struct Failures {
    failed: watch::Sender<usize>,
    total: usize,
}

impl Failures {
    pub(super) fn new(total: usize) -> Self {
        Self { failed: watch::Sender::new(0), total }
    }

    fn hook(&self) -> OnFailure {
        let failed = self.failed.clone();
        Arc::new(move |_reason| failed.send_modify(|count| *count += 1))
    }

    /// Resolves when no directory is left to serve from.
    pub(super) async fn all_failed(&self) {
        let mut failed = self.failed.subscribe();
        while *failed.borrow_and_update() < self.total {
            if failed.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

/// Opens every directory of `log.dirs`, with the options in `base` that no setting names. A directory that cannot be
/// opened stops the start: its replicas would be missing.
pub(super) async fn open_all(
    disk: &Arc<dyn Disk>,
    config: &Config,
    base: &DataDirOptions,
    failures: &Failures,
    readiness: &Readiness,
) -> Result<Vec<Opened>, DataDirError> {
    let total = config.log_dirs.len();
    let done = AtomicUsize::new(0);
    readiness.enter(Phase::Recovering, step(config), 0, total);
    let opening = config.log_dirs.iter().map(|path| async {
        let began = rt::now();
        let (data, replicas) = DataDir::open(disk.clone(), path, options(config, base, failures)).await?;
        readiness.enter(Phase::Recovering, step(config), done.fetch_add(1, Ordering::Relaxed) + 1, total);
        let elapsed_ms = rt::now().since(began).as_millis();
        tracing::debug!("data directory {} opened in {elapsed_ms} ms, {} replicas", path.display(), replicas.len());
        let directory = Directory { id: data.directory_id(), path: absolute(path), data };
        Ok(Opened { directory, replicas })
    });
    join_all(opening).await.into_iter().collect()
}

fn step(config: &Config) -> String {
    let paths: Vec<String> = config.log_dirs.iter().map(|path| path.display().to_string()).collect();
    format!("reading back {}", paths.join(", "))
}

/// Groups partitions for the rewriters by retention time: batches that are kept for about the same time expire
/// together.
pub(super) fn classify(directories: &[Directory], metadata: &MetadataHandle) {
    for directory in directories {
        // Not the handle: it holds the metadata's replica, and that holds this directory.
        let images = metadata.watch();
        directory.data.set_retention_classes(Arc::new(move |partition| {
            let image = images.borrow();
            image.topic_by_id(&partition.topic).map_or(RetentionClass::UNKNOWN, |topic| class_of(topic, image.level))
        }));
    }
}

/// Applies the settings to the rewriters, as some of them may change while the node runs.
pub(super) fn follow_settings(directories: &[Directory], metadata: &MetadataHandle) {
    let directories: Vec<_> = directories.iter().map(|directory| Arc::downgrade(&directory.data)).collect();
    follow_config("settings", metadata, move |config| {
        let mut options = rewrite_options(config, &RewriteOptions::default());
        // The limits are the node's.
        let count = directories.len().max(1) as u64;
        options.import_bytes_per_second_max /= count;
        options.move_bytes_per_second_max /= count;
        for directory in directories.iter().filter_map(Weak::upgrade) {
            directory.set_rewrite_pace(&options);
        }
    });
}

/// Below the level of compaction batches of internal topics expire as soon as a checkpoint holds them; when batches expire by size
/// alone cannot be predicted.
fn class_of(topic: &Topic, level: FeatureLevel) -> RetentionClass {
    let config = &topic.config;
    if is_internal(&topic.name) && level < COMPACTION {
        return RetentionClass::lasting(Duration::ZERO);
    }
    if config.cleanup_policy.compact || !config.cleanup_policy.delete {
        return RetentionClass::NEVER;
    }
    match config.retention_ms.and_then(|kept_ms| u64::try_from(kept_ms).ok()) {
        Some(kept_ms) => RetentionClass::lasting(Duration::from_millis(kept_ms)),
        None if config.retention_bytes.is_some() => RetentionClass::UNKNOWN,
        None => RetentionClass::NEVER,
    }
}

fn options(config: &Config, base: &DataDirOptions, failures: &Failures) -> DataDirOptions {
    DataDirOptions {
        node_id: config.node_id.0,
        cluster_id: config.cluster_id.clone(),
        log: LogOptions {
            segment_bytes: u32::try_from(config.log.segment_bytes).unwrap_or(u32::MAX),
            reserve_bytes: config.log.disk_reserve_bytes,
            sync: config.log.sync,
            ..base.log.clone()
        },
        rewrite: rewrite_options(config, &base.rewrite),
        scrub_bytes_per_second: config.log.scrub_bytes_per_second,
        on_failure: Some(failures.hook()),
        ..base.clone()
    }
}

fn rewrite_options(config: &Config, base: &RewriteOptions) -> RewriteOptions {
    RewriteOptions {
        bytes_per_second: config.log.rewriter_bytes_per_second,
        bytes_per_second_max: config.log.rewriter_bytes_per_second_max,
        import_bytes_per_second_max: config.log.import_bytes_per_second_max,
        move_bytes_per_second_max: config.log.move_bytes_per_second_max,
        run_bytes: config.log.run_bytes,
        interval: Duration::from_millis(config.log.rewriter_backoff_ms.max(100)),
        ..*base
    }
}

/// The absolute path, as Kafka's tools show it.
fn absolute(path: &Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string()
}
