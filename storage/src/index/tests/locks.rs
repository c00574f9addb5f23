//! The disk is read without a lock of the index: on a disk that hangs, each request that needs the lock would stop its thread.

use std::sync::Arc;

use ottla_protocol::ids::Offset;

use super::{History, key, one};

#[test]
fn the_disk_is_not_read_under_a_lock() {
    let mut history = History::new();
    for _ in 0..60 {
        history.apply(&[one(2)], true);
    }
    history.decide();
    let partition = history.index.partition(key(0)).unwrap();
    history.seal_unlocked(1, Some(Arc::clone(&partition)));
    // A replay after a restart tells what is known.
    assert!(!partition.write().push(&history.model[0][4]).unwrap());
    history.index.raise_log_start(key(0), Offset(7));
    assert!(!partition.read().is_settled(), "what is dead in the file is counted where the disk may be waited for");
    history.index.settle_all().unwrap();
    assert!(partition.read().is_settled());
    assert!(partition.read().next_unconfirmed().is_none());
    assert_eq!(history.index.bytes_of(key(0)), 57 * 100);
}
