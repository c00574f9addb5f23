"""A small disk of a node's own: an ext4 file system in an image, on a loop device, that can be filled, frozen, cut off from power, or fail.

Device mapper is not needed: EXT4_IOC_SHUTDOWN without a flush forgets what was not synced, as a loss of power does; and where the disk may
have to fail, its image lies in a second such file system, whose shutdown makes every read and write of the image an EIO.
Needs root, loop devices and mkfs.ext4. May not know: nodes, faults.
"""

import contextlib
import errno
import fcntl
import hashlib
import mmap
import os
import pathlib
import shutil
import struct
import threading
import time

import effects
from network import run

MIB = effects.MIB
# What a node writes in two hours; the image has holes. The one node of a zone has a replica of every shard, and a full disk of it beside
# another fault is no majority.
SIZE_BYTES = 2048 * MIB
# The outer file system has room for the whole image.
OUTER_BYTES = SIZE_BYTES + 160 * MIB
FS_IOC_SHUTDOWN = 0x8004587D
# As <linux/ext4.h> has them: everything is flushed first; or nothing is, not even the journal.
WITH_FLUSH, WITHOUT_FLUSH = 0, 2
FILLER, SYNCED, UNSYNCED = "filler", "synced", "unsynced"
TOOLS = ("losetup", "mkfs.ext4", "e2fsck", "fsfreeze")


def missing():
    """What is not here, of what a small disk needs."""
    tools = [tool for tool in TOOLS if not shutil.which(tool)]
    return tools + [path for path in ("/dev/loop-control",) if not pathlib.Path(path).exists()]


class Base:
    """The directory under which disks are mounted. Processes of network namespaces have mounts of their own, which follow this one's."""

    def __init__(self, directory):
        self.directory = directory
        directory.mkdir()
        run("mount", "--bind", directory, directory)
        run("mount", "--make-shared", directory)

    def remove(self):
        run("umount", self.directory)
        shutil.rmtree(self.directory)


class FileSystem:
    """An ext4 file system in an image, mounted at a directory."""

    def __init__(self, image, directory, size):
        self.image, self.directory, self.loop = image, directory, None
        directory.mkdir()
        with open(image, "wb") as file:
            file.truncate(size)
        run("mkfs.ext4", "-q", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0", image)

    def mount(self, with_check=False):
        self.loop = run("losetup", "--find", "--show", self.image).strip()
        if with_check:
            # An exit code of 1 says that errors were corrected.
            with contextlib.suppress(OSError):
                run("e2fsck", "-p", self.loop)
        run("mount", "-t", "ext4", self.loop, self.directory)

    def unmount(self):
        run("umount", self.directory)
        run("losetup", "--detach", self.loop)
        self.loop = None

    def shut_down(self, how):
        """From now on every access to it is an EIO, until it is mounted anew."""
        directory = os.open(self.directory, os.O_RDONLY)
        try:
            fcntl.ioctl(directory, FS_IOC_SHUTDOWN, struct.pack("I", how))
        finally:
            os.close(directory)

    def remove(self):
        if self.loop:
            with contextlib.suppress(OSError):
                run("fsfreeze", "-u", self.directory)
            self.unmount()


class Disk:
    def __init__(self, base, name, may_fail):
        self.directory, self.frozen = base.directory / name, False
        where = base.directory
        self.outer = None
        if may_fail:
            self.outer = FileSystem(where / f"{name}.outer", where / f"{name}-outer", OUTER_BYTES)
            self.outer.mount()
            where = self.outer.directory
        self.inner = FileSystem(where / f"{name}.image", self.directory, SIZE_BYTES)
        self.inner.mount()

    def remove(self):
        self.inner.remove()
        if self.outer:
            self.outer.remove()

    # Full

    def free_bytes(self):
        found = os.statvfs(self.directory)
        return found.f_bavail * found.f_frsize

    def fill(self, left_bytes):
        """A file takes all that is free but so much."""
        with open(self.directory / FILLER, "wb") as file:
            # Others write at the same time: what is free changes.
            for _ in range(20):
                if (size := self.free_bytes() - left_bytes) <= 0:
                    break
                with contextlib.suppress(OSError):
                    os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, size)

    def empty(self):
        (self.directory / FILLER).unlink(missing_ok=True)

    # Hung

    @contextlib.contextmanager
    def hanging(self):
        """Every write and sync waits. Gives what measures one of the runner's own: None while it has not returned."""
        run("fsfreeze", "-f", self.directory)
        taken, began = [], time.monotonic()

        def write():
            (self.directory / "probe").write_bytes(b"probe")
            taken.append(time.monotonic() - began)

        writer = threading.Thread(target=write, daemon=True)
        writer.start()
        try:
            yield lambda: taken[0] if taken else None
        finally:
            run("fsfreeze", "-u", self.directory)
            writer.join(30)

    # Loss of power

    def prepare_probes(self):
        """A file that is synced, and one that is not."""
        for name in (SYNCED, UNSYNCED):
            with open(self.directory / name, "wb") as file:
                file.write(b"synced")
                file.flush()
                os.fsync(file.fileno())
        with open(self.directory / UNSYNCED, "ab") as file:
            file.write(b", and not synced")

    def probes(self):
        """Whether what was synced is there, and whether what was not synced is gone."""
        synced, unsynced = ((self.directory / name).read_bytes() for name in (SYNCED, UNSYNCED))
        return synced == b"synced", unsynced == b"synced"

    def contents(self, directory):
        """A sum of each file's content."""
        files = (path for path in sorted(directory.rglob("*")) if path.is_file())
        return {path: hashlib.blake2b(path.read_bytes()).digest() for path in files}

    def cut_power(self):
        """Nobody may use the disk any more; afterwards it is as the loss of power left it."""
        self.inner.shut_down(WITHOUT_FLUSH)
        self.inner.unmount()
        self.inner.mount()

    # Failure

    def fail(self):
        self.outer.shut_down(WITH_FLUSH)

    def error(self):
        """The name of the error that a read of the device gets; None if it gets none. The file system may be read-only by then."""
        device = os.open(self.inner.loop, os.O_RDONLY | os.O_DIRECT)
        try:
            # A place that nobody else asks for, and memory on a page's border.
            os.preadv(device, [mmap.mmap(-1, mmap.PAGESIZE)], SIZE_BYTES - MIB)
        except OSError as failure:
            return errno.errorcode.get(failure.errno)
        finally:
            os.close(device)
        return None

    def exchange_controller(self):
        """Nobody may use the disk any more; afterwards it works again, with what was synced to it."""
        self.inner.unmount()
        self.outer.unmount()
        self.outer.mount(with_check=True)
        self.inner.mount(with_check=True)
