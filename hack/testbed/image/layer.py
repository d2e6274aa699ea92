"""A layer: a tar archive whose bytes depend on nothing but the names, modes and contents put in."""

from __future__ import annotations

import io
import posixpath
import tarfile


class Layer:
    """Collects entries by their path in the image and writes them sorted, all with the same times.

    A later entry replaces an earlier one of the same path; folders come into being by themselves.
    """

    def __init__(self) -> None:
        self._entries: dict[str, tuple[tarfile.TarInfo, bytes]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, path: str) -> bool:
        return _clean(path) in self._entries

    def folder(self, path: str, mode: int = 0o755) -> None:
        self._add(path, mode, tarfile.DIRTYPE)

    def file(self, path: str, content: bytes, mode: int = 0o644) -> None:
        self._add(path, mode, tarfile.REGTYPE, content)

    def link(self, path: str, target: str) -> None:
        self._add(path, 0o777, tarfile.SYMTYPE, target=target)

    def read(self, path: str) -> bytes:
        return self._entries[_clean(path)][1]

    def remove(self, prefix: str) -> None:
        """Takes out an entry and all that lies below it."""
        prefix = _clean(prefix)
        for path in [p for p in self._entries if p == prefix or p.startswith(f"{prefix}/")]:
            del self._entries[path]

    def paths(self) -> list[str]:
        return sorted(self._entries)

    def _add(
        self, path: str, mode: int, kind: bytes, content: bytes = b"", target: str = ""
    ) -> None:
        path = _clean(path)
        if path in ("", "."):
            return
        self._entries.pop(path, None)
        parent = posixpath.dirname(path)
        if parent and parent not in self._entries:
            self.folder(parent)
        info = tarfile.TarInfo(path)
        info.mode, info.type, info.linkname, info.size = mode, kind, target, len(content)
        self._entries[path] = (info, content)

    def to_bytes(self) -> bytes:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for path in self.paths():
                info, content = self._entries[path]
                archive.addfile(info, io.BytesIO(content) if info.isreg() else None)
        return buffer.getvalue()


def _clean(path: str) -> str:
    return posixpath.normpath(path).lstrip("/")
