"""CRC-32C (Castagnoli, RFC 3720 appendix B.4), as all formats on disk use it."""

from __future__ import annotations

from collections.abc import Callable

import google_crc32c

if google_crc32c.implementation != "c":  # pure Python would be a thousand times slower
    raise ImportError("google-crc32c lacks its C extension on this platform")

crc32c: Callable[[bytes], int] = google_crc32c.value
"""Checksum of some bytes, 0 <= crc < 2**32."""
