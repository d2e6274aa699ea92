"""CRC-32C (Castagnoli, RFC 3720 appendix B.4), by the processor's instruction where it has it."""

from __future__ import annotations

from typing import cast

import google_crc32c


def checksum(data: bytes) -> int:
    """CRC-32C of `data`; 0 for nothing."""
    return cast(int, google_crc32c.value(data))


def extend(crc: int, data: bytes) -> int:
    """CRC-32C of what `crc` covers followed by `data`."""
    return cast(int, google_crc32c.extend(crc, data))
