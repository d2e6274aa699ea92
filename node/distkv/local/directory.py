"""The directory of a local cluster: what is in it, and who may touch it.

lock            flock of the supervisor that owns the directory
cluster.json    name, cluster id, layout, ports, tuning: written before any node starts
owner.json      owner id, the list of founders, whether the cluster was formed, disks wiped,
                the layout that is wanted and how far its change is
cluster.key     key of the messages between nodes (0600)
admin.token     token of the nodes' admin listeners (0600)
control.sock    commands to the supervisor
node-N/         data directory of node N
node-N.json     its configuration; node-N.log what it wrote; node-N.pid its process
gateway.*       the same for the gateway
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from distkv.local.errors import LocalError, NotRunning

OWNED = ("lock", "cluster.json", "owner.json", "cluster.key", "admin.token", "control.sock")
PATTERNS = ("node-*", "gateway.*", "supervisor.log*")


class Layout(NamedTuple):
    """How values are coded."""

    data_shards: int
    parity_shards: int

    @property
    def nodes(self) -> int:
        """n."""
        return self.data_shards + self.parity_shards

    def __str__(self) -> str:
        return f"{self.data_shards} + {self.parity_shards}"


class Push(NamedTuple):
    """A layout that was proposed when `epoch` was the newest, and may yet be applied."""

    epoch: int
    layout: Layout


class Identity(NamedTuple):
    """Content of cluster.json. `tuning`: sections of the configuration set by the manifest."""

    name: str
    cluster_id: str
    data_shards: int
    parity_shards: int
    port_base: int
    engine: str | None
    tuning: dict[str, Any]

    @property
    def layout(self) -> Layout:
        """The newest layout that the cluster was seen to have."""
        return Layout(self.data_shards, self.parity_shards)

    @property
    def nodes(self) -> int:
        """n."""
        return self.layout.nodes


class Lost(NamedTuple):
    """A disk that the owner itself wiped, so that it knows: what was on it is gone.

    `wiped` false: the order was given, but the directory may still be there in part.
    `admit`: the incarnation found there since, the only one that may take the seat for it;
    None: no node has started on the new directory yet.
    """

    ordinal: int
    wiped: bool = False
    admit: int | None = None


class Ownership(NamedTuple):
    """Content of owner.json: what the owner promised itself durably."""

    owner: str
    founders: list[tuple[int, int]] | None = None
    formed: bool = False
    lost: tuple[Lost, ...] = ()
    """By ordinal: wiped, and not replaced yet."""
    wanted: Layout | None = None
    """A change of layout is under way."""
    pushed: Push | None = None
    nodes: int | None = None
    """Processes while the layout changes; None: as many as the layout has nodes."""

    def lost_at(self, ordinal: int) -> Lost | None:
        """What is known of a wiped disk."""
        return next((lost for lost in self.lost if lost.ordinal == ordinal), None)

    def with_lost(self, lost: Lost) -> Ownership:
        """The same with `lost` in place of what was known of that ordinal."""
        kept = self.without_lost(lost.ordinal).lost
        return self._replace(lost=tuple(sorted((*kept, lost))))

    def without_lost(self, ordinal: int) -> Ownership:
        """The same, this ordinal being whole."""
        return self._replace(lost=tuple(x for x in self.lost if x.ordinal != ordinal))


class Directory:
    """Paths and durable files; see the module."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._lock: int | None = None

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    @property
    def exists(self) -> bool:
        """Whether a cluster was made here."""
        return (self / "cluster.json").exists()

    # -- ownership of the directory

    def try_lock(self) -> bool:
        """Become its one owner until the process ends; False if another process is.

        Raises LocalError if the directory cannot be made or written to.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise LocalError(
                f"--dir {self.path} cannot be written to ({error.strerror}: {error.filename}): "
                "choose another, or let this user write there"
            ) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        os.ftruncate(descriptor, 0)
        self._lock = descriptor
        self.sign()
        return True

    def sign(self) -> None:
        """Write this process's id into the lock it holds (again after a fork)."""
        assert self._lock is not None
        os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)

    def unlock(self) -> None:
        """Let others have it."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def is_running(self) -> bool:
        """Whether a supervisor owns it now."""
        try:
            descriptor = os.open(self / "lock", os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def supervisor(self) -> int | None:
        """Process id of the supervisor, if one runs."""
        with contextlib.suppress(OSError, ValueError):
            if self.is_running():
                return int((self / "lock").read_text())
        return None

    # -- its files

    def create(self, identity: Identity) -> None:
        """Make a new cluster's files, durably; cluster.json last, as the sign that all is there."""
        self._write_secret("cluster.key", secrets.token_hex(32))
        self._write_secret("admin.token", secrets.token_hex(24))
        self.write_ownership(Ownership(owner=f"local-{secrets.token_hex(8)}"))
        self.write_identity(identity)

    def identity(self) -> Identity:
        """Who the cluster is. Raises LocalError."""
        return Identity(**self._read("cluster.json"))

    def write_identity(self, identity: Identity) -> None:
        """Durably."""
        self._write("cluster.json", identity._asdict())

    def ownership(self) -> Ownership:
        """What the owner knows. Raises LocalError."""
        content = self._read("owner.json")
        founders = content.get("founders")
        if founders is not None:
            content["founders"] = [(int(o), int(i)) for o, i in founders]
        if content.get("wanted") is not None:
            content["wanted"] = Layout(*content["wanted"])
        if content.get("pushed") is not None:
            epoch, layout = content["pushed"]
            content["pushed"] = Push(epoch, Layout(*layout))
        content["lost"] = tuple(Lost(*lost) for lost in content.get("lost", ()))
        return Ownership(**content)

    @property
    def nodes(self) -> int:
        """How many node processes there are; while the layout changes, those of both."""
        ownership = self.ownership()
        return self.identity().nodes if ownership.nodes is None else ownership.nodes

    def write_ownership(self, ownership: Ownership) -> None:
        """Durably, before anything is done that relies on it."""
        self._write("owner.json", ownership._asdict())

    def token(self) -> str:
        """Token of the admin listeners."""
        return (self / "admin.token").read_text().strip()

    def node(self, ordinal: int) -> Path:
        """Data directory of a node."""
        return self / f"node-{ordinal}"

    def wipe(self, ordinal: int) -> None:
        """Lose a node's disk."""
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.node(ordinal))

    def forget_node(self, ordinal: int) -> None:
        """Remove all of a node that left: its data at once, as far as a crash may tell."""
        leaving = self / f"node-{ordinal}.removed"
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(leaving)
        with contextlib.suppress(FileNotFoundError):
            os.replace(self.node(ordinal), leaving)
            shutil.rmtree(leaving)
        for path in self.path.glob(f"node-{ordinal}.*"):
            path.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove what laptop mode made; what somebody else put there stays."""
        for path in self._ours():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.path.rmdir()

    def _ours(self) -> Iterator[Path]:
        for pattern in PATTERNS:
            yield from sorted(self.path.glob(pattern))
        # The lock goes last, so that nobody starts in a directory half removed.
        for name in reversed(OWNED):
            yield self / name

    def _read(self, name: str) -> dict[str, Any]:
        try:
            content = json.loads((self / name).read_text())
        except FileNotFoundError:
            raise NotRunning(
                f"{self.path} has no local cluster: make one with `distkv local up "
                f"--dir {self.path}`"
            ) from None
        except ValueError as error:
            raise LocalError(f"{self / name} is damaged: {error}") from None
        assert isinstance(content, dict)
        return content

    def _write(self, name: str, content: dict[str, Any]) -> None:
        write_durably(self / name, json.dumps(content, indent=2) + "\n", 0o644)

    def _write_secret(self, name: str, text: str) -> None:
        write_durably(self / name, text + "\n", 0o600)


def write_durably(path: Path, text: str, mode: int) -> None:
    """Replace a file atomically; when this returns it survives a power cut."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        os.write(descriptor, text.encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(temporary, path)
    parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)
