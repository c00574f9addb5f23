//! The disk is read without a lock of the index.

use std::io;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use ottla_env::disk::{File, Mapping};
use ottla_protocol::ids::Offset;

use super::{History, MemoryFile, key, one};
use crate::index::batch_index::Partition;

/// A file that panics when it is read while a lock of the index is held: on a disk that hangs, each request that needs the
/// lock would stop its thread.
struct ReadWithoutLocks(MemoryFile, Partition);

impl File for ReadWithoutLocks {
    fn bytes(&self) -> io::Result<u64> {
        self.0.bytes()
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        assert!(self.1.try_write().is_some(), "the disk is read under the partition's lock");
        self.0.read_at(buf, offset)
    }
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_at(buf, offset)
    }
    fn preallocate(&self, bytes: u64) -> io::Result<()> {
        self.0.preallocate(bytes)
    }
    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }
    fn sync_data(&self) -> BoxFuture<'_, io::Result<()>> {
        self.0.sync_data()
    }
    fn drop_cached(&self, from: u64) -> io::Result<()> {
        self.0.drop_cached(from)
    }
    fn map(&self) -> io::Result<Option<Arc<dyn Mapping>>> {
        self.0.map()
    }
}

#[test]
fn the_disk_is_not_read_under_a_lock() {
    let mut history = History::new();
    for _ in 0..60 {
        history.apply(&[one(2)], true);
    }
    history.decide();
    let partition = history.index.partition(key(0)).unwrap();
    history.seal_in(1, Arc::new(ReadWithoutLocks(MemoryFile(history.image(1)), Arc::clone(&partition))));
    // A replay after a restart tells what is known.
    assert!(!partition.write().push(&history.model[0][4]).unwrap());
    history.index.raise_log_start(key(0), Offset(7));
    assert!(!partition.read().is_settled(), "what is dead in the file is counted where the disk may be waited for");
    history.index.settle_all().unwrap();
    assert!(partition.read().is_settled());
    assert!(partition.read().next_unconfirmed().is_none());
    assert_eq!(history.index.bytes_of(key(0)), 57 * 100);
}
