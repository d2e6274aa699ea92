"""Which release this is."""

from __future__ import annotations

import functools
from importlib import metadata


@functools.cache
def version() -> str:
    """Of the installed package; "0.0.0" where it runs from a plain checkout."""
    try:
        return metadata.version("distkv")
    except metadata.PackageNotFoundError:
        return "0.0.0"
