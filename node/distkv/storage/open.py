"""Choose an engine by name."""

from __future__ import annotations

from pathlib import Path

from distkv.storage.base import Engine, StorageError
from distkv.storage.directories import make_directory
from distkv.storage.files import FilesEngine
from distkv.storage.memory import MemoryEngine

ENGINES = ("files", "rocksdb", "memory")
DEFAULT_ENGINE = "files"
_KIND_FILE = "engine"


def open_engine(kind: str, directory: Path) -> Engine:
    """Open or create the store of one node in `directory` (`memory` leaves it alone).

    Raises ValueError for an unknown kind, StorageError if the directory was made by another
    engine, is in use by another process, cannot be written, or is damaged.
    """
    if kind not in ENGINES:
        raise ValueError(f"unknown storage engine {kind!r}: choose one of {', '.join(ENGINES)}")
    if kind == "memory":
        return MemoryEngine()
    try:
        make_directory(directory)
        _check_kind(directory, kind)
        if kind == "files":
            return FilesEngine(directory)
        # Imported on demand: 20 MB of native code that the other engines do not need.
        from distkv.storage.rocksdb import RocksEngine

        return RocksEngine(directory)
    except OSError as error:
        raise StorageError(f"cannot open the store in {directory}: {error}") from error


def _check_kind(directory: Path, kind: str) -> None:
    """A directory belongs to the engine that made it; the file `engine` holds its name."""
    path = directory / _KIND_FILE
    try:
        made_by = path.read_text("utf-8").strip()
    except FileNotFoundError:
        made_by = ""
    if not made_by:  # new, or torn at its creation, when nothing else was in it yet
        path.write_text(f"{kind}\n", "utf-8")
    elif made_by != kind:
        raise StorageError(
            f"{directory} was made by the storage engine {made_by!r} and cannot be opened "
            f"with {kind!r}: configure {made_by!r} or use another directory"
        )
