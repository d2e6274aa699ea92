"""Progress on standard error: each line says how long after the start its step was done."""

from __future__ import annotations

import sys
import time


class Progress:
    """Prints steps with the seconds since it was made; standard output stays for results."""

    def __init__(self, quiet: bool = False) -> None:
        self._start = time.monotonic()
        self._quiet = quiet

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self._start

    def step(self, text: str) -> None:
        if not self._quiet:
            print(f"{self.elapsed:7.2f} s  {text}", file=sys.stderr, flush=True)
