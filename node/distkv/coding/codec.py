"""Reed-Solomon coding of one stripe: any k of n pieces give it back.

The code is pyeclib's `isa_l_rs_cauchy` (systematic, Cauchy matrix over GF(2^8); every
square submatrix of a Cauchy matrix is invertible, so every k-subset decodes). It is the
disk format: `isa_l_rs_vand` is not MDS from k=5, m=5 on. Without parity, and with k=1
(whole copies), nothing is computed at all.

liberasurecode puts an 80-byte header before every fragment. All of it follows from
(index, fragment size, stripe length) and the versions of the library, so it is neither
sent nor stored, and made anew when a fragment goes back into the library.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from functools import cache

from pyeclib.ec_iface import ECDriver, ECDriverError

from distkv.coding.layout import piece_bytes, piece_length

EC_TYPE = "isa_l_rs_cauchy"
SIZE_MAX = 12
"""Every geometry up to this many pieces is tested exhaustively."""

HEADER_BYTES = 80
_META = struct.Struct("<IIIQ")
"""Fragment index, fragment size, backend metadata size, stripe length."""
_META_BYTES = 59
"""What the header's own checksum (CRC-32, at `_META_CRC`) covers."""
_META_CRC = 67


class CodingError(ValueError):
    """These pieces do not give the stripe: too few, or of the wrong size."""


class Codec:
    """Code of k data pieces among n; see `codec`."""

    def __init__(self, data_shards: int, size: int) -> None:
        if not 1 <= data_shards <= size <= SIZE_MAX:
            raise CodingError(
                f"data_shards={data_shards}, size={size}: "
                f"1 <= data_shards <= size <= {SIZE_MAX} must hold"
            )
        self.data_shards = data_shards
        self.size = size
        self._driver: ECDriver | None = None
        self._template = b""
        if 1 < data_shards < size:
            self._driver = ECDriver(k=data_shards, m=size - data_shards, ec_type=EC_TYPE)
            self._template = self._driver.encode(b"\0")[0][:HEADER_BYTES]
            self._check_headers()

    def _check_headers(self) -> None:
        """Refuse a library whose headers are not what `_header` makes of them."""
        assert self._driver is not None
        for length in (1, self.data_shards * 33 + 1):
            for index, fragment in enumerate(self._driver.encode(b"x" * length)):
                if fragment[:HEADER_BYTES] != self._header(index, length):
                    raise CodingError("this version of liberasurecode has other fragment headers")

    def _header(self, index: int, length: int) -> bytes:
        header = bytearray(self._template)
        _META.pack_into(header, 0, index, piece_bytes(length, self.data_shards), 0, length)
        struct.pack_into("<I", header, _META_CRC, zlib.crc32(header[:_META_BYTES]))
        return bytes(header)

    def encode(self, stripe: bytes | bytearray | memoryview) -> list[bytes]:
        """All n pieces of `stripe`. Data pieces are its parts in order, unpadded."""
        whole = stripe if isinstance(stripe, bytes) else bytes(stripe)
        if self.data_shards == 1:
            return [whole] * self.size
        if not whole:
            return [b""] * self.size
        full = piece_bytes(len(whole), self.data_shards)
        pieces = [whole[i * full : (i + 1) * full] for i in range(self.data_shards)]
        if self._driver is not None:
            fragments = self._driver.encode(whole)
            pieces += [fragment[HEADER_BYTES:] for fragment in fragments[self.data_shards :]]
        return pieces

    def decode(self, pieces: Mapping[int, bytes], length: int) -> bytes:
        """The stripe of `length` bytes from at least k pieces by number.

        Pieces are taken as they are: whoever calls has checked their checksums. Raises
        CodingError when pieces are too few or have a wrong size.
        """
        self._check(pieces, length)
        k = self.data_shards
        if k == 1:
            return pieces[min(pieces)]
        if all(index in pieces for index in range(k)):
            return b"".join([pieces[index] for index in range(k)])
        if not length:
            return b""
        assert self._driver is not None
        try:
            return bytes(self._driver.decode(self._fragments(pieces, length)))
        except ECDriverError as error:
            raise CodingError(str(error)) from error

    def rebuild(self, pieces: Mapping[int, bytes], index: int, length: int) -> bytes:
        """Piece number `index` of the stripe of `length` bytes, from at least k others."""
        if not 0 <= index < self.size:
            raise CodingError(f"no piece {index} among {self.size}")
        self._check(pieces, length)
        if index in pieces:
            return pieces[index]
        if self.data_shards == 1:
            return pieces[min(pieces)]
        wanted = piece_length(length, self.data_shards, index)
        if not wanted:
            return b""
        assert self._driver is not None
        try:
            rebuilt = self._driver.reconstruct(self._fragments(pieces, length), [index])[0]
        except ECDriverError as error:
            raise CodingError(str(error)) from error
        return bytes(rebuilt[HEADER_BYTES : HEADER_BYTES + wanted])

    def _check(self, pieces: Mapping[int, bytes], length: int) -> None:
        if len(pieces) < self.data_shards:
            raise CodingError(f"{len(pieces)} pieces of {self.data_shards} that are needed")
        for index, piece in pieces.items():
            if not 0 <= index < self.size:
                raise CodingError(f"no piece {index} among {self.size}")
            if len(piece) != piece_length(length, self.data_shards, index):
                raise CodingError(f"piece {index} has {len(piece)} bytes")

    def _fragments(self, pieces: Mapping[int, bytes], length: int) -> list[bytes]:
        """k fragments as the library wants them: header in front, padded to full size."""
        full = piece_bytes(length, self.data_shards)
        return [
            b"".join((self._header(index, length), pieces[index], bytes(full - len(pieces[index]))))
            for index in sorted(pieces)[: self.data_shards]
        ]


@cache
def codec(data_shards: int, size: int) -> Codec:
    """The code of `data_shards` among `size`. Raises CodingError outside 1 <= k <= n <= 12."""
    return Codec(data_shards, size)
