"""The identity of a data directory, once there is room to count this start in it."""

from __future__ import annotations

import logging
import secrets
import signal
import sys
import time
from types import FrameType
from typing import Any

from distkv.config import Config
from distkv.member.identity import DirectoryIdentity, open_identity
from distkv.storage.base import Engine, StorageFull

log = logging.getLogger("distkv.node")

RETRY_SECONDS = 1.0


def identity_of(config: Config, engine: Engine) -> DirectoryIdentity:
    """See member.identity.open_identity; while the disk is full it waits, and says so once.

    A process that ended instead would be started again at ever longer intervals (minutes, on
    Kubernetes), and in its container nobody could make room. SIGTERM and SIGINT end it.
    Raises WrongDirectory, VolumeWentBack, StorageError.
    """
    incarnation = secrets.randbits(62) + 1
    before: dict[signal.Signals, Any] = {}
    try:
        while True:
            try:
                return open_identity(engine, config.cluster_id, config.ordinal, incarnation)
            except StorageFull as full:
                if not before:
                    log.error("%s; this node starts as soon as there is more", full)
                    for number in (signal.SIGTERM, signal.SIGINT):
                        before[number] = signal.signal(number, _stop)
            time.sleep(RETRY_SECONDS)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(number: int, frame: FrameType | None) -> None:
    sys.exit(0)
