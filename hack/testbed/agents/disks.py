"""Disks of a real size: a sparse file, a loop device on it, XFS on that, mounted in its node.

XFS because it grows while mounted, and needs no privilege for it that root in a container lacks
(ext4 wants CAP_SYS_RESOURCE). The kernel frees a loop device with its last mount, so the end of a
node takes the devices along; the files are the node's disk and stay until it is wiped.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

from testbed.errors import LabError
from testbed.run import run

# mkfs.xfs of xfsprogs 6 refuses less than this.
SMALLEST = 300 * 1024 * 1024
SUFFIX = ".xfs"

_LOOP_MAJOR = 7
_CONFIGURE, _SET_CAPACITY, _GET_FREE, _REMOVE = 0x4C0A, 0x4C07, 0x4C82, 0x4C81
_AUTOCLEAR = 4
# struct loop_config: file, block size, then struct loop_info64, of which only the flags are set
# (at offset 8 + 5 * 8 + 3 * 4), and room for later.
_CONFIG_SIZE, _FLAGS_OFFSET = 304, 60
_ATTEMPTS = 50


class DiskFolder:
    """The disk of one node: a folder of images, and beside it device files that lead to them."""

    def __init__(self, images: Path, devices: Path) -> None:
        self.images, self._devices = images, devices

    def image(self, volume: str) -> Path:
        return self.images / f"{volume}{SUFFIX}"

    def volumes(self) -> list[str]:
        return sorted(path.name.removesuffix(SUFFIX) for path in self.images.glob(f"*{SUFFIX}"))

    def create(self, volume: str, size: int) -> None:
        """Makes a file system of this size; one that is there already is kept."""
        if self.image(volume).exists():
            return
        partial = self.images / f"{volume}.partial"
        partial.unlink(missing_ok=True)
        with partial.open("wb") as file:
            file.truncate(max(size, SMALLEST))
        run(["mkfs.xfs", "-q", "-K", partial])
        partial.rename(self.image(volume))

    def mount(self, volume: str, node: int, target: str) -> None:
        """Mounts a volume in the node of this process, writable for all: fsGroup sets owners."""
        if _source(node, target) is not None:
            return
        run([*_inside(node), "mkdir", "-p", target])
        with _attached(self.image(volume), self._devices) as device:
            run([*_inside(node), "mount", "-t", "xfs", device, target])
        run([*_inside(node), "chmod", "0777", target])

    def unmount(self, node: int, target: str) -> None:
        if _source(node, target) is not None:
            run([*_inside(node), "umount", target])
        run([*_inside(node), "rmdir", target], check=False)

    def remove(self, volume: str) -> None:
        self.image(volume).unlink(missing_ok=True)

    def grow(self, volume: str, size: int, node: int, target: str) -> None:
        """Grows a mounted file system while it is in use. A smaller size changes nothing."""
        image = self.image(volume)
        if image.stat().st_size < size:
            os.truncate(image, size)
        number = _source(node, target)
        if number is None:
            raise LabError(f"volume {volume} is not mounted at {target}")
        with _opened(number, self._devices) as (descriptor, _):
            fcntl.ioctl(descriptor, _SET_CAPACITY, 0)
        run([*_inside(node), "xfs_growfs", target])


def _inside(node: int) -> list[str]:
    """Its processes too: tools like xfs_growfs look themselves up in the node's /proc."""
    return ["nsenter", "-t", str(node), "-m", "-p", "--"]


def _source(node: int, target: str) -> int | None:
    """The number of the loop device that is mounted at a place in a node.

    Read from outside: in the node's mount namespace alone, /proc shows another process id space.
    """
    for line in Path(f"/proc/{node}/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[4] == target:
            major, minor = fields[2].split(":")
            return int(minor) if int(major) == _LOOP_MAJOR else None
    return None


@contextlib.contextmanager
def _opened(number: int, devices: Path) -> Iterator[tuple[int, Path]]:
    """Opens a loop device by a device file of our own: the host's /dev may lack one, and is left
    as it is."""
    path = devices / f"loop{number}"
    with contextlib.suppress(FileExistsError):
        os.mknod(path, stat.S_IFBLK | 0o600, os.makedev(_LOOP_MAJOR, number))
    descriptor = os.open(path, os.O_RDWR)
    try:
        yield descriptor, path
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _attached(image: Path, devices: Path) -> Iterator[Path]:
    """A loop device for the image, which lives as long as it is open or mounted."""
    backing = os.open(image, os.O_RDWR)
    try:
        for _ in range(_ATTEMPTS):
            with contextlib.ExitStack() as stack:
                try:
                    descriptor, path = stack.enter_context(_opened(_free_number(), devices))
                    _configure(descriptor, backing)
                except OSError as error:
                    # Another process was quicker, or it removed the idle device: take the next.
                    if error.errno in (errno.EBUSY, errno.ENXIO, errno.ENODEV, errno.ENOENT):
                        continue
                    raise
                yield path
                return
        raise LabError("no free loop device", "see losetup --list for what holds them")
    finally:
        os.close(backing)


def _configure(descriptor: int, backing: int) -> None:
    config = bytearray(_CONFIG_SIZE)
    struct.pack_into("=I", config, 0, backing)
    struct.pack_into("=I", config, _FLAGS_OFFSET, _AUTOCLEAR)
    fcntl.ioctl(descriptor, _CONFIGURE, bytes(config))


def _free_number() -> int:
    control = os.open("/dev/loop-control", os.O_RDWR)
    try:
        return int(fcntl.ioctl(control, _GET_FREE))
    finally:
        os.close(control)


def loop_numbers() -> set[int]:
    """Every loop device that the kernel has, in use or not."""
    names = (path.name.removeprefix("loop") for path in Path("/sys/block").glob("loop*"))
    return {int(name) for name in names if name.isdigit()}


def remove_idle(numbers: set[int]) -> None:
    """Takes devices away again that came into being for a cluster; those in use stay."""
    control = os.open("/dev/loop-control", os.O_RDWR)
    try:
        for number in numbers:
            with contextlib.suppress(OSError):
                fcntl.ioctl(control, _REMOVE, number)
    finally:
        os.close(control)
