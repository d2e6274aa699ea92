"""Log-structured engine: append-only segment files and an index in memory."""

from distkv.storage.files.engine import FilesEngine

__all__ = ["FilesEngine"]
