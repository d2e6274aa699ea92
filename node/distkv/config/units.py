"""Field types of the configuration: sizes, durations and addresses, written as people write them.

Each parser takes the plain number too, and says on failure what it would have taken.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, NamedTuple

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

_QUANTITY = re.compile(r"^\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*$")
_BYTE_UNITS = {
    "": 1,
    "b": 1,
    "kib": KIB,
    "ki": KIB,
    "mib": MIB,
    "mi": MIB,
    "gib": GIB,
    "gi": GIB,
    "tib": 1024 * GIB,
    "ti": 1024 * GIB,
    "kb": 1000,
    "k": 1000,
    "mb": 1000**2,
    "m": 1000**2,
    "gb": 1000**3,
    "g": 1000**3,
}
_TIME_UNITS = {"": 1.0, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_PORT_MAX = 65535


def parse_size(raw: Any) -> int:
    """Bytes, from 4096, "4096" or "4 KiB". Raises ValueError that shows the accepted forms."""
    if isinstance(raw, bool):
        raise ValueError('give a size such as 4096 or "4 KiB"')
    if isinstance(raw, int):
        return raw
    match = _QUANTITY.match(raw) if isinstance(raw, str) else None
    factor = _BYTE_UNITS.get(match[2].lower()) if match else None
    if match is None or factor is None:
        raise ValueError(
            'give a size such as 4096 or "4 KiB" (units: B, KiB, MiB, GiB, kB, MB, GB)'
        )
    return round(float(match[1]) * factor)


def parse_seconds(raw: Any) -> float:
    """Seconds, from 0.25, "0.25" or "250ms". Raises ValueError that shows the accepted forms."""
    if isinstance(raw, bool):
        raise ValueError('give a duration such as 0.25 or "250ms"')
    if isinstance(raw, int | float):
        return float(raw)
    match = _QUANTITY.match(raw) if isinstance(raw, str) else None
    factor = _TIME_UNITS.get(match[2].lower()) if match else None
    if match is None or factor is None:
        raise ValueError('give seconds such as 0.25, or "250ms", "2s", "5m", "24h"')
    return float(match[1]) * factor


class Address(NamedTuple):
    """Where to listen or connect: a name or IP address, and a port (0: any free one)."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse_address(raw: Any) -> Address:
    """`host:port` or `[v6]:port`. Raises ValueError that shows the accepted forms."""
    if isinstance(raw, Address):
        return raw
    if isinstance(raw, str):
        host, separator, port = raw.rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            separator = ""
        if separator and host and port.isdecimal() and int(port) <= _PORT_MAX:
            return Address(host, int(port))
    raise ValueError('give "host:port", such as "127.0.0.1:7400" or "[::1]:7400"')


def _split(raw: Any) -> Any:
    """A list in one string (environment, flag) is separated by commas."""
    if isinstance(raw, str):
        return [item.strip() for item in raw.split(",") if item.strip()]
    return raw


Size = Annotated[
    int,
    BeforeValidator(parse_size),
    WithJsonSchema({"x-kubernetes-int-or-string": True}),
]
"""Bytes."""

Seconds = Annotated[
    float,
    BeforeValidator(parse_seconds),
    WithJsonSchema({"x-kubernetes-int-or-string": True}),
]
"""Seconds."""

AddressField = Annotated[
    Address,
    BeforeValidator(parse_address),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string"}),
]

AddressList = Annotated[tuple[AddressField, ...], BeforeValidator(_split)]
TextList = Annotated[tuple[str, ...], BeforeValidator(_split)]
