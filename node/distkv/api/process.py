"""What every process with doors needs: log lines, its memory, limits from the configuration."""

from __future__ import annotations

import json
import logging
import os
import sys

from distkv.api.options import Limits
from distkv.config import Config
from distkv.config.sections import LoggingSection

MIB = 1024 * 1024


def resident_bytes() -> int:
    """Memory of this process that is in RAM."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def door_limits(config: Config) -> Limits:
    """Bounds of the doors."""
    limits = config.limits
    return Limits(
        key_bytes_max=limits.key_bytes_max,
        value_bytes_max=limits.value_bytes_max,
        connections_max=limits.connections_max,
        pipeline_max=limits.pipeline_max,
        memory_in_flight_max=limits.memory_in_flight_max,
        command_bytes_max=limits.command_bytes_max,
        keys_listed_max=limits.keys_listed_max,
        scan_count_max=limits.scan_count_max,
        request_seconds=limits.request_seconds,
        request_seconds_max=limits.request_seconds_max,
        stall_seconds=limits.stall_seconds,
    )


class _JsonLines(logging.Formatter):
    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def format(self, record: logging.LogRecord) -> str:
        time = self.formatTime(record, "%Y-%m-%dT%H:%M:%S")
        line: dict[str, object] = {
            "time": f"{time}.{record.msecs:03.0f}",
            "level": record.levelname.lower(),
            "node": self._name,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def set_up_logging(section: LoggingSection, name: str) -> None:
    """Lines on stderr with the process's name, replacing whatever the root logger had."""
    handler = logging.StreamHandler(sys.stderr)
    if section.format == "json":
        handler.setFormatter(_JsonLines(name))
    else:
        handler.setFormatter(logging.Formatter(f"%(asctime)s {name} %(levelname)s %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    set_level(section)


def set_level(section: LoggingSection) -> None:
    """Of all that is written from now on."""
    logging.getLogger().setLevel(section.level.upper())
