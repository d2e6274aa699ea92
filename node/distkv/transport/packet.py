"""The bytes of a datagram: one clear header, then authenticated and encrypted frames.

    data datagram  = kind|flags (1) connection (4) packet number, low 32 bits (4) sealed frames
    sealed frames  = AES-256-GCM of the frames, the header as associated data, 16 bytes of tag

Each direction has its own packet numbers, never used twice; the number is the nonce.
`connection` was chosen by the receiver. Everything is big-endian. Frames:

    PADDING  (1)                                    the rest of the datagram is filler
    PING     (1)                                    asks for an acknowledgement
    ACK      (1) largest (4) delay (2) run (2) extra (1), extra x [gap (2) run (2)]
    CREDIT   (1) control (8) bulk (8)               see `incoming`
    CLOSE    (1) reason (1)
    WHOLE    (1) place (1) sequence (4) length (2)  payload
    BEAT     (1) length (2)  payload that nobody acknowledges or repeats
    PART     (1) place (1) sequence (4) total (4) offset (4) length (2)  piece of the payload

`place` is lane << 6 | stream. An ACK's first run holds the packets largest - run ... largest;
each further one begins gap + 2 below the end of the one before (as in RFC 9000, 19.3.1).
"""

from __future__ import annotations

from struct import Struct

VERSION = 1

HELLO = 0x01
WELCOME = 0x02
DATA = 0x40
ACK_NOW = 0x01
"""Flag of a data datagram: the sender's window is filling, acknowledge without delay."""

HEADER = Struct(">BII")
HEADER_BYTES = HEADER.size
TAG_BYTES = 16
DATAGRAM_OVERHEAD = HEADER_BYTES + TAG_BYTES

PADDING = 0x00
PING = 0x01
ACK = 0x02
CREDIT = 0x03
CLOSE = 0x04
WHOLE = 0x10
PART = 0x11
BEAT = 0x12

PING_FRAME = bytes([PING])

ACK_FRAME = Struct(">BIHHB")
ACK_RUN = Struct(">HH")
ACK_RUNS_LIMIT = 32
DELAY_UNIT = 16e-6
CREDIT_FRAME = Struct(">BQQ")
CLOSE_FRAME = Struct(">BB")
WHOLE_FRAME = Struct(">BBIH")
BEAT_FRAME = Struct(">BH")
PART_FRAME = Struct(">BBIIIH")

STREAM_BITS = 6
STREAM_MASK = 0x3F

NONCE = Struct(">4xQ")


class Malformed(Exception):
    """An authenticated datagram that no correct peer sends."""


def expand(low: int, largest: int) -> int:
    """The packet number near `largest` whose low 32 bits are `low` (RFC 9000, A.3)."""
    number = (largest & ~0xFFFFFFFF) | low
    if number + 0x80000000 <= largest:
        return number + 0x100000000
    if number > largest + 0x80000000 and number >= 0x100000000:
        return number - 0x100000000
    return number
