"""Fields that a running node takes over from its changed file; all others need a restart."""

from __future__ import annotations

from typing import Final

LIVE_FIELDS: Final = ("logging.level", "peers.addresses")
