"""A running node looks at its configuration file and takes over what needs no restart.

Kubernetes replaces the files of a mounted ConfigMap in place; so a cluster can grow, and its
repair be made faster, without one node being stopped.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from distkv.config import Config, ConfigError
from distkv.config.live import LIVE_FIELDS, Source, changed_fields

log = logging.getLogger("distkv.config")

CHECK_SECONDS = 2.0


class LiveConfig:
    """`takers`: by name of a live field, what is called with the new configuration."""

    def __init__(
        self, source: Source, config: Config, takers: Mapping[str, Callable[[Config], None]]
    ) -> None:
        assert set(takers) == set(LIVE_FIELDS)
        self.config = config
        """As it was started with, and what was taken over since."""
        self._source = source
        self._takers = takers
        self._stamp = source.stamp()
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Look every CHECK_SECONDS; nothing to do without a file."""
        if self._source.path is not None:
            self._timer = asyncio.get_running_loop().call_later(CHECK_SECONDS, self._look)

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        self.check()
        self.start()

    def check(self) -> None:
        """Take over what changed, if the file did. A file that is refused changes nothing."""
        stamp = self._source.stamp()
        if stamp is None or stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            new = self._source.load()
        except ConfigError as error:
            log.error("the changed configuration is refused, the old one stays: %s", error)
            return
        changed = list(changed_fields(self.config, new))
        for field in changed:
            if field in self._takers:
                self._takers[field](new)
                self._keep(new, field)
                log.info("%s taken over from the changed configuration", field)
        waiting = [field for field in changed if field not in self._takers]
        if waiting:
            log.warning("changed, but in force only after a restart: %s", ", ".join(waiting))

    def _keep(self, new: Config, field: str) -> None:
        section, _, name = field.partition(".")
        old = getattr(self.config, section)
        updated = old.model_copy(update={name: getattr(getattr(new, section), name)})
        self.config = self.config.model_copy(update={section: updated})
