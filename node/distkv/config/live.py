"""Fields that a running node takes over from its changed file; all others need a restart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from distkv.config.loading import load, section_fields
from distkv.config.schema import Config

LIVE_FIELDS: Final = ("logging.level", "peers.addresses", "repair.rate")


class Source(NamedTuple):
    """Where a process's configuration came from, so that it can be read again."""

    role: str
    path: Path | None
    environment: Mapping[str, str]
    flags: Sequence[str]

    def load(self) -> Config:
        """Raises ConfigError."""
        return load(self.role, self.path, self.environment, self.flags)

    def stamp(self) -> tuple[int, ...] | None:
        """Another one when the file is another one; None while there is none to be read.

        A ConfigMap's file is a link to a link that is replaced, so it is followed.
        """
        if self.path is None:
            return None
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def changed_fields(old: Config, new: Config) -> Iterator[str]:
    """Names ("section.field") of the fields that differ."""
    for section, fields in section_fields().items():
        for field in fields:
            if getattr(getattr(old, section), field) != getattr(getattr(new, section), field):
                yield f"{section}.{field}"
