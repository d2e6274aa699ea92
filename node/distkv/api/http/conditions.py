"""Preconditions and ranges of HTTP (RFC 9110 sections 13 and 14) as the store's conditions."""

from __future__ import annotations

import re

from distkv.api.http.message import Request
from distkv.errors import BadRequest
from distkv.operations import ANYTHING, Condition, Must

_ETAG = re.compile(r'\s*(?:W/)?"(\d{1,19})"\s*')
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


def etag(version: int) -> bytes:
    """The header line."""
    return b'ETag: "%d"\r\n' % version


def _versions(text: str, name: str) -> list[int]:
    versions: list[int] = []
    for part in text.split(","):
        match = _ETAG.fullmatch(part)
        if match is None:
            raise BadRequest(f'{name} must be * or an ETag of this store, like "42"')
        versions.append(int(match[1]))
    return versions


def write_condition(request: Request) -> Condition:
    """If-Match and If-None-Match of a PUT or DELETE. Raises BadRequest."""
    match = request.header(b"if-match")
    none_match = request.header(b"if-none-match")
    if match is not None and none_match is not None:
        raise BadRequest("give If-Match or If-None-Match, not both")
    if match is not None:
        if match == "*":
            return Condition(Must.BE_PRESENT)
        return Condition(Must.HAVE_VERSION, _single(match, "If-Match"))
    if none_match is not None:
        if none_match == "*":
            return Condition(Must.BE_ABSENT)
        return Condition(Must.NOT_HAVE_VERSION, _single(none_match, "If-None-Match"))
    return ANYTHING


def _single(text: str, name: str) -> int:
    versions = _versions(text, name)
    if len(versions) != 1:
        raise BadRequest(f"{name} of a write takes one ETag")
    return versions[0]


def read_status(request: Request, version: int | None) -> int:
    """200, 304 or 412 for a GET or HEAD of a record (None: absent). Raises BadRequest."""
    match = request.header(b"if-match")
    if match is not None:
        there = version is not None
        if not (there if match == "*" else version in _versions(match, "If-Match")):
            return 412
    none_match = request.header(b"if-none-match")
    if none_match is None or version is None:
        return 200
    matches = none_match == "*" or version in _versions(none_match, "If-None-Match")
    return 304 if matches else 200


def byte_range(request: Request, version: int, length: int) -> tuple[int, int] | None:
    """(start, stop) of a Range; None: answer with everything. Raises IndexError if none is there.

    Several ranges, other units and an If-Range that does not match count as no Range.
    """
    text = request.header(b"range")
    if text is None:
        return None
    if_range = request.header(b"if-range")
    if if_range is not None and if_range != f'"{version}"':
        return None
    match = _RANGE.fullmatch(text.replace(" ", ""))
    if match is None or (not match[1] and not match[2]):
        return None
    if not match[1]:
        start, stop = max(length - int(match[2]), 0), length
    else:
        start = int(match[1])
        stop = min(int(match[2]) + 1, length) if match[2] else length
        if match[2] and int(match[2]) < start:
            return None
    if start >= stop:
        raise IndexError("the range lies outside the value")
    return start, stop
