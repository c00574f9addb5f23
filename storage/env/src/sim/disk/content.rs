//! A simulated file: what is durable, and the writes since then, which a crash may keep, lose or tear.
//!
//! Pages are shared between copies, so that a whole disk can be copied at every write.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::rng::SimRng;
use crate::disk::PAGE_BYTES;

/// Bytes that devices with 512-byte sectors write atomically.
pub const SECTOR_BYTES: usize = 512;

type Page = Arc<[u8; PAGE_BYTES]>;

/// Bytes of a file; absent pages are zero.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) bytes: u64,
    pages: BTreeMap<u64, Page>,
}

impl Content {
    pub(super) fn read(&self, buf: &mut [u8], offset: u64) -> usize {
        let end = self.bytes.min(offset + buf.len() as u64);
        let count = usize::try_from(end.saturating_sub(offset)).unwrap_or(0);
        let mut done = 0;
        while done < count {
            let (page, within) = place(offset + done as u64);
            let take = (PAGE_BYTES - within).min(count - done);
            let target = &mut buf[done..done + take];
            match self.pages.get(&page) {
                Some(data) => target.copy_from_slice(&data[within..within + take]),
                None => target.fill(0),
            }
            done += take;
        }
        count
    }

    pub(super) fn write(&mut self, data: &[u8], offset: u64) {
        self.bytes = self.bytes.max(offset + data.len() as u64);
        let mut done = 0;
        while done < data.len() {
            let (page, within) = place(offset + done as u64);
            let take = (PAGE_BYTES - within).min(data.len() - done);
            let target = self.pages.entry(page).or_insert_with(|| Arc::new([0; PAGE_BYTES]));
            Arc::make_mut(target)[within..within + take].copy_from_slice(&data[done..done + take]);
            done += take;
        }
    }

    fn set_len(&mut self, bytes: u64) {
        if bytes < self.bytes {
            let (page, within) = place(bytes);
            self.pages.split_off(&(page + 1));
            if let Some(data) = self.pages.get_mut(&page) {
                Arc::make_mut(data)[within..].fill(0);
            }
        }
        self.bytes = bytes;
    }

    /// Bytes that the file takes on the disk.
    pub(super) fn taken(&self) -> u64 {
        self.bytes.div_ceil(PAGE_BYTES as u64) * PAGE_BYTES as u64
    }
}

fn place(offset: u64) -> (u64, usize) {
    let page = PAGE_BYTES as u64;
    (offset / page, usize::try_from(offset % page).unwrap_or(0))
}

/// Something done to a file that no sync has covered yet.
#[derive(Debug, Clone)]
pub(super) enum PendingOp {
    Write { offset: u64, data: Arc<[u8]> },
    SetLen(u64),
}

/// One file.
#[derive(Debug, Clone, Default)]
pub(super) struct Inode {
    pub(super) durable: Content,
    pub(super) current: Content,
    pub(super) pending: Vec<PendingOp>,
    /// The content before the last operation, if that was a write of several pages.
    before_last_write: Option<Content>,
}

impl Inode {
    pub(super) fn apply(&mut self, op: PendingOp) {
        let is_long = matches!(&op, PendingOp::Write { data, .. } if data.len() > PAGE_BYTES);
        self.before_last_write = is_long.then(|| self.current.clone());
        apply(&mut self.current, &op);
        self.pending.push(op);
    }

    /// The first `count` pending operations become durable.
    pub(super) fn sync(&mut self, count: usize) {
        let count = count.min(self.pending.len());
        for op in self.pending.drain(..count) {
            apply(&mut self.durable, &op);
        }
    }

    /// A failed sync: the pages count as clean although they are not on the disk.
    pub(super) fn forget_pending(&mut self) {
        self.pending.clear();
    }

    /// The process was killed while it wrote: only the front of the last write is in the cache, page by page.
    pub(super) fn cut_last_write(&mut self, rng: &mut SimRng) {
        let Some(PendingOp::Write { offset, data }) = self.pending.last() else { return };
        let (offset, pages) = (*offset, data.len() / PAGE_BYTES);
        let kept = usize::try_from(rng.below(pages as u64 + 1)).unwrap_or(0) * PAGE_BYTES;
        let data: Arc<[u8]> = Arc::from(&data[..kept]);
        self.pending.pop();
        if let Some(before) = self.before_last_write.take() {
            self.current = before;
            self.apply(PendingOp::Write { offset, data });
        }
    }

    /// The content that a power loss leaves.
    pub(super) fn lose_power(&mut self, rng: &mut SimRng, tear: Tear) {
        let pending = std::mem::take(&mut self.pending);
        match rng.below(5) {
            0 => {}
            1 => pending.iter().for_each(|op| apply(&mut self.durable, op)),
            2 => {
                let whole = rng.below(pending.len() as u64 + 1);
                let (kept, rest) = pending.split_at(usize::try_from(whole).unwrap_or(0));
                kept.iter().for_each(|op| apply(&mut self.durable, op));
                if let Some(op) = rest.first() {
                    apply_torn(&mut self.durable, op, rng, tear);
                }
            }
            _ => pending.iter().for_each(|op| apply_torn(&mut self.durable, op, rng, tear)),
        }
        self.current = self.durable.clone();
    }
}

/// The effect of a power failure on a write in progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tear {
    /// 4 KiB pages are written whole or not at all.
    Pages,
    /// Sectors of 512 bytes are written whole or not at all.
    Sectors,
    /// Sectors, and now and then a page that was being written holds anything at all.
    Garbage,
}

fn apply(content: &mut Content, op: &PendingOp) {
    match op {
        PendingOp::Write { offset, data } => content.write(data, *offset),
        PendingOp::SetLen(bytes) => content.set_len(*bytes),
    }
}

fn apply_torn(content: &mut Content, op: &PendingOp, rng: &mut SimRng, tear: Tear) {
    let (offset, data) = match op {
        PendingOp::SetLen(_) => {
            if rng.below(2) == 0 {
                apply(content, op);
            }
            return;
        }
        PendingOp::Write { offset, data } => (*offset, data),
    };
    let unit = if tear == Tear::Pages { PAGE_BYTES } else { SECTOR_BYTES } as u64;
    let keep_of_8 = rng.below(9);
    let mut at = offset;
    let end = offset + data.len() as u64;
    while at < end {
        let stop = ((at / unit + 1) * unit).min(end);
        let from = usize::try_from(at - offset).unwrap_or(0);
        let to = usize::try_from(stop - offset).unwrap_or(0);
        if rng.below(8) < keep_of_8 {
            content.write(&data[from..to], at);
        }
        at = stop;
    }
    if tear == Tear::Garbage && rng.below(4) == 0 {
        let page = PAGE_BYTES as u64;
        let (first, behind) = (offset / page, end.div_ceil(page));
        let start = (first + rng.below((behind - first).max(1))) * page;
        let mut garbage = [0; PAGE_BYTES];
        garbage.iter_mut().for_each(|byte| *byte = rng.byte());
        if start < content.bytes {
            let fits = usize::try_from(content.bytes - start).unwrap_or(PAGE_BYTES).min(PAGE_BYTES);
            content.write(&garbage[..fits], start);
        }
    }
}
