//! The simulated disk: pending against durable state, tears at 512 B and 4 KiB, EIO, ENOSPC, bit flips, hanging syncs,
//! loss of power or of the process at any write or sync. The same seed gives the same faults.
//!
//! May not know: what is stored. A copy of the whole disk ([`DiskImage`]) costs little, so that a test can keep one for
//! every write and sync of a history.

mod content;
mod rng;
mod world;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;

use content::{Inode, PendingOp};
pub use content::{SECTOR_BYTES, Tear};
use rng::SimRng;
pub use world::{Crash, DiskOp};
use world::{Faults, NameOp, World, eio, split};

use crate::disk::{DirEntry, DirLock, Disk, File, Mapping, OpenMode, PAGE_BYTES, Space};
use crate::{rt, sim};

type Observer = Box<dyn FnMut(DiskOp, DiskImage) + Send>;

/// Options of a simulated disk.
#[derive(Debug, Clone, Copy)]
pub struct SimDiskOptions {
    /// The effect of a power loss on a write.
    pub tear: Tear,
    /// Capacity in bytes.
    pub capacity_bytes: u64,
    /// Longest time a sync takes (in a simulation; elsewhere it only yields).
    pub sync_delay_max: Duration,
}

impl Default for SimDiskOptions {
    fn default() -> Self {
        Self { tear: Tear::Garbage, capacity_bytes: 1 << 40, sync_delay_max: Duration::from_micros(400) }
    }
}

/// A copy of a whole disk at one moment.
#[derive(Debug, Clone)]
pub struct DiskImage {
    world: World,
    options: SimDiskOptions,
}

impl DiskImage {
    /// The disk as the next process finds it after such a crash.
    #[must_use]
    pub fn crash(&self, crash: Crash, seed: u64) -> SimDisk {
        let mut world = self.world.clone();
        world.rng = SimRng(seed);
        world.crash(crash);
        SimDisk {
            shared: Arc::new(Shared { world: Mutex::new(world), observer: Mutex::new(None), options: self.options }),
        }
    }
}

/// A simulated disk; a cheap handle.
#[derive(Clone)]
pub struct SimDisk {
    shared: Arc<Shared>,
}

struct Shared {
    world: Mutex<World>,
    observer: Mutex<Option<Observer>>,
    options: SimDiskOptions,
}

impl Shared {
    fn image(&self) -> DiskImage {
        DiskImage { world: self.world.lock().clone(), options: self.options }
    }

    fn observe(&self, op: DiskOp) {
        let mut observer = self.observer.lock();
        if let Some(observer) = observer.as_mut() {
            observer(op, self.image());
        }
    }
}

impl SimDisk {
    /// An empty disk.
    #[must_use]
    pub fn new(seed: u64, options: SimDiskOptions) -> Self {
        let world = World {
            rng: SimRng(seed),
            tear: options.tear,
            capacity_bytes: options.capacity_bytes,
            boot_id: seed ^ 0x0b00,
            life: 0,
            inodes: BTreeMap::new(),
            next_inode: 1,
            writing: None,
            read_bytes: 0,
            dirs: BTreeMap::new(),
            locks: std::collections::BTreeSet::new(),
            faults: Faults::default(),
            writes: 0,
            syncs: 0,
        };
        Self { shared: Arc::new(Shared { world: Mutex::new(world), observer: Mutex::new(None), options }) }
    }

    /// Calls `observer` at every write and sync, with the disk as it is then: a crash of that image is a crash there.
    pub fn observe(&self, observer: impl FnMut(DiskOp, DiskImage) + Send + 'static) {
        *self.shared.observer.lock() = Some(Box::new(observer));
    }

    /// Ends the observation.
    pub fn stop_observing(&self) {
        *self.shared.observer.lock() = None;
    }

    /// A copy of the disk.
    #[must_use]
    pub fn image(&self) -> DiskImage {
        self.shared.image()
    }

    /// The process or the machine goes down: open files are dead, and the next open finds what the crash left.
    pub fn crash(&self, crash: Crash) {
        self.shared.world.lock().crash(crash);
    }

    /// Number of writes (space taken included) and of syncs so far.
    #[must_use]
    pub fn operations(&self) -> (u64, u64) {
        let world = self.shared.world.lock();
        (world.writes, world.syncs)
    }

    /// Bytes read so far.
    #[must_use]
    pub fn read_bytes(&self) -> u64 {
        self.shared.world.lock().read_bytes
    }

    /// The write after `count` more fails with EIO.
    pub fn fail_write_in(&self, count: u64) {
        self.shared.world.lock().faults.fail_write_in = Some(count);
    }

    /// The sync after `count` more fails with EIO; what was pending is then lost although it can still be read.
    pub fn fail_sync_in(&self, count: u64) {
        self.shared.world.lock().faults.fail_sync_in = Some(count);
    }

    /// The next unlinking of a file whose path ends so fails with EIO.
    pub fn fail_unlink_of(&self, ending: &'static str) {
        self.shared.world.lock().faults.fail_unlink_of = Some(ending);
    }

    /// Every operation fails until the next crash: the machine is off.
    pub fn switch_off(&self) {
        self.shared.world.lock().faults.off = true;
    }

    /// Syncs do not return while this is set.
    pub fn hang(&self, hung: bool) {
        self.shared.world.lock().faults.hung = hung;
    }

    /// Changes the capacity.
    pub fn set_capacity(&self, bytes: u64) {
        self.shared.world.lock().capacity_bytes = bytes;
    }

    /// Flips one bit of a file, on the disk and in every cache.
    pub fn flip_bit(&self, path: &Path, byte: u64, bit: u8) -> io::Result<()> {
        let mut world = self.shared.world.lock();
        let id = world.lookup(path)?;
        let inode = world.inodes.get_mut(&id).ok_or_else(eio)?;
        let mut value = [0];
        if inode.current.read(&mut value, byte) == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        let flipped = [value[0] ^ (1 << (bit % 8))];
        inode.current.write(&flipped, byte);
        inode.durable.write(&flipped, byte);
        Ok(())
    }

    /// The page that holds `byte` of a file cannot be read any more.
    pub fn make_unreadable(&self, path: &Path, byte: u64) -> io::Result<()> {
        let mut world = self.shared.world.lock();
        let id = world.lookup(path)?;
        world.faults.unreadable.insert((id, byte / PAGE_BYTES as u64));
        Ok(())
    }

    fn name(&self, dir: &Path, op: NameOp) -> io::Result<()> {
        {
            let mut world = self.shared.world.lock();
            world.check_on()?;
            world.dir(dir)?.apply(op);
            world.writes += 1;
        }
        self.shared.observe(DiskOp::Name);
        Ok(())
    }
}

struct SimLock {
    path: PathBuf,
    shared: Arc<Shared>,
    life: u64,
}

impl DirLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut world = self.shared.world.lock();
        if world.life == self.life {
            world.locks.remove(&self.path);
        }
    }
}

impl Disk for SimDisk {
    fn blocks(&self) -> bool {
        false
    }

    fn writes_pages_whole(&self, _dir: &Path) -> bool {
        // Sectors that are written whole also keep what is rewritten with the same bytes.
        self.shared.options.tear != Tear::Garbage
    }

    fn boot_id(&self) -> u64 {
        self.shared.world.lock().boot_id
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut world = self.shared.world.lock();
        world.check_on()?;
        for ancestor in dir.ancestors() {
            world.dirs.entry(ancestor.to_owned()).or_default();
        }
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let mut world = self.shared.world.lock();
        world.check_on()?;
        let names = world.dir(dir)?.current.clone();
        let bytes = |id: &u64| world.inodes.get(id).map_or(0, |inode| inode.current.bytes);
        let files = names.iter().map(|(name, id)| DirEntry { name: name.clone(), bytes: bytes(id), is_dir: false });
        let dirs = world.dirs.keys().filter(|path| path.parent() == Some(dir)).filter_map(|path| {
            let name = path.file_name()?.to_string_lossy().into_owned();
            Some(DirEntry { name, bytes: 0, is_dir: true })
        });
        let mut entries: Vec<DirEntry> = files.chain(dirs).collect();
        entries.sort();
        Ok(entries)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let (dir, name) = split(path)?;
        let (inode, life) = {
            let mut world = self.shared.world.lock();
            world.check_on()?;
            let found = world.dir(&dir)?.current.get(&name).copied();
            let inode = match (found, mode) {
                (Some(_), OpenMode::CreateNew) => return Err(io::Error::from(io::ErrorKind::AlreadyExists)),
                (None, OpenMode::CreateNew) => {
                    let id = world.next_inode;
                    world.next_inode += 1;
                    world.inodes.insert(id, Inode::default());
                    id
                }
                (Some(id), _) => id,
                (None, _) => return Err(io::Error::from(io::ErrorKind::NotFound)),
            };
            (inode, world.life)
        };
        if mode == OpenMode::CreateNew {
            self.name(&dir, NameOp::Set(name, inode))?;
        }
        Ok(Arc::new(SimFile { shared: self.shared.clone(), inode, life, writable: mode != OpenMode::Read }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let ((dir, old), (to_dir, new)) = (split(from)?, split(to)?);
        if dir != to_dir {
            return Err(io::Error::from(io::ErrorKind::CrossesDevices));
        }
        self.shared.world.lock().lookup(from)?;
        self.name(&dir, NameOp::Rename(old, new))
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        {
            let mut world = self.shared.world.lock();
            world.lookup(path)?;
            if world.faults.fail_unlink_of.take_if(|ending| path.to_string_lossy().ends_with(*ending)).is_some() {
                return Err(eio());
            }
        }
        let (dir, name) = split(path)?;
        self.name(&dir, NameOp::Remove(name))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        {
            let mut world = self.shared.world.lock();
            world.check_on()?;
            world.syncs += 1;
        }
        self.shared.observe(DiskOp::SyncDir);
        let mut world = self.shared.world.lock();
        world.dir(dir)?.sync();
        Ok(())
    }

    fn space(&self, _dir: &Path) -> io::Result<Space> {
        let world = self.shared.world.lock();
        let free_bytes = world.capacity_bytes.saturating_sub(world.taken_bytes());
        Ok(Space { free_bytes, total_bytes: world.capacity_bytes })
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DirLock>> {
        let mut world = self.shared.world.lock();
        if !world.locks.insert(path.to_owned()) {
            return Err(io::Error::from(io::ErrorKind::WouldBlock));
        }
        Ok(Box::new(SimLock { path: path.to_owned(), shared: self.shared.clone(), life: world.life }))
    }
}

struct SimFile {
    shared: Arc<Shared>,
    inode: u64,
    life: u64,
    writable: bool,
}

impl SimFile {
    fn change(&self, op: PendingOp) -> io::Result<()> {
        {
            let mut world = self.shared.world.lock();
            if world.life != self.life || !self.writable {
                return Err(eio());
            }
            if let PendingOp::Write { offset, data } = &op {
                // A drive gives a page that is written whole another place.
                let page = PAGE_BYTES as u64;
                let (first, last) = (offset.div_ceil(page), (offset + data.len() as u64) / page);
                for page in first..last {
                    world.faults.unreadable.remove(&(self.inode, page));
                }
            }
            world.change(self.inode, op)?;
        }
        self.shared.observe(DiskOp::Write);
        Ok(())
    }

    async fn wait_for_device(&self) {
        let longest = u64::try_from(self.shared.options.sync_delay_max.as_nanos()).unwrap_or(u64::MAX);
        if !sim::is_active() {
            rt::yield_now().await;
            return;
        }
        let wait = self.shared.world.lock().rng.below(longest.max(1));
        rt::sleep(Duration::from_nanos(wait)).await;
        while self.shared.world.lock().faults.hung {
            rt::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl File for SimFile {
    fn bytes(&self) -> io::Result<u64> {
        let world = self.shared.world.lock();
        world.check_on()?;
        world.inodes.get(&self.inode).map(|inode| inode.current.bytes).ok_or_else(eio)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut world = self.shared.world.lock();
        world.check_on()?;
        world.read_bytes += buf.len() as u64;
        let page = PAGE_BYTES as u64;
        let (first, last) = (offset / page, (offset + buf.len() as u64).div_ceil(page));
        if world.faults.unreadable.range((self.inode, first)..(self.inode, last)).next().is_some() {
            return Err(eio());
        }
        let inode = world.inodes.get(&self.inode).ok_or_else(eio)?;
        Ok(inode.current.read(buf, offset))
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.change(PendingOp::Write { offset, data: Arc::from(buf) })
    }

    fn preallocate(&self, bytes: u64) -> io::Result<()> {
        if self.bytes()? >= bytes { Ok(()) } else { self.change(PendingOp::SetLen(bytes)) }
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.change(PendingOp::SetLen(bytes))
    }

    fn sync_data(&self) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async move {
            let covered = {
                let mut world = self.shared.world.lock();
                world.check_on()?;
                world.syncs += 1;
                world.writing = None;
                if world.life != self.life {
                    return Err(eio());
                }
                let fails = World::strikes(&mut world.faults.fail_sync_in);
                let inode = world.inodes.get_mut(&self.inode).ok_or_else(eio)?;
                if fails {
                    inode.forget_pending();
                    return Err(eio());
                }
                inode.pending.len()
            };
            self.wait_for_device().await;
            self.shared.observe(DiskOp::Sync);
            let mut world = self.shared.world.lock();
            world.check_on()?;
            if world.life != self.life {
                return Err(eio());
            }
            world.inodes.get_mut(&self.inode).ok_or_else(eio)?.sync(covered);
            Ok(())
        })
    }

    fn drop_cached(&self, _from: u64) -> io::Result<()> {
        // Clean pages are read from the device again: what a failed sync left in the cache is dropped.
        let mut world = self.shared.world.lock();
        let inode = world.inodes.get_mut(&self.inode).ok_or_else(eio)?;
        if inode.pending.is_empty() {
            inode.current = inode.durable.clone();
        }
        Ok(())
    }

    fn map(&self) -> io::Result<Option<Arc<dyn Mapping>>> {
        Ok(None)
    }
}
