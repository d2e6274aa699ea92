"""Whole directories in and out of the store, many files at a time, checked by SHA-256.

A file's key is a prefix and its path relative to the directory, with "/" between the parts.
The listing has the format of `sha256sum`: one line "digest  path" for each file, appended
once the store acknowledged it; with it an import that was broken off goes on where it was. It
does not say of which store and prefix it is, and values change: so what is listed is read back,
and sent again unless it is there as it should be.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import random
import re
import secrets
import stat
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TextIO

import aiohttp
from yarl import URL

from distkv.api.options import SLOWEST
from distkv.cli.client import (
    Page,
    key_of,
    key_path,
    list_path,
    parse_page,
    reason_of,
    server_of,
)
from distkv.cli.exits import EXIT_UNREACHABLE, Failure

PIECE_BYTES = 256 * 1024
WHOLE_BYTES_MAX = 1024 * 1024
"""Smaller files are read at once."""
PAGE_KEYS = 1000
RETRY_STATUS = frozenset({429, 503, 504, 507})
BACKOFF_SECONDS_MAX = 1.0
READ_SECONDS = 30.0
"""Without a byte from the store, an attempt is given up."""
GONE = frozenset({"data_lost", "corrupt"})
"""Refusals that speak of one value only."""
NO_PLACE = frozenset(
    {errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL}
)
"""Errors that speak of one path only, such as that of the key a/b where a file a is."""


class Tally:
    """How far a transfer is; `problems` are keys that could not be exported, with the reason."""

    def __init__(self) -> None:
        self.files = 0
        self.bytes = 0
        self.skipped = 0
        self.retries = 0
        self.longest_wait = 0.0
        self.problems: list[str] = []


class Source(NamedTuple):
    """A file to import."""

    path: Path
    name: str
    size: int


class Found(NamedTuple):
    """What is below a directory. `unreadable`: files and directories that this user may not read;
    `others`: what is no file (devices, broken links) and links to directories; each by name with
    the reason."""

    sources: list[Source]
    unreadable: list[str]
    others: list[str]


def find_files(directory: Path, without: frozenset[str] = frozenset()) -> Found:
    """Every regular file below `directory`, by name; links to files count.

    `without`: names of directories that are left out, with all below.
    """
    found = Found([], [], [])

    def named(path: Path) -> str:
        return path.relative_to(directory).as_posix()

    def refused(error: OSError) -> None:
        found.unreadable.append(f"{named(Path(error.filename))}: {error.strerror}")

    for root, directories, names in os.walk(directory, onerror=refused):
        directories[:] = sorted(set(directories) - without)
        links = [name for name in directories if (Path(root) / name).is_symlink()]
        found.others.extend(f"{named(Path(root) / name)}: a link to a directory" for name in links)
        for path in (Path(root) / name for name in names):
            try:
                status = path.stat()
            except OSError as error:
                found.others.append(f"{named(path)}: {error.strerror}")
                continue
            if not stat.S_ISREG(status.st_mode):
                found.others.append(f"{named(path)}: no regular file")
            elif not os.access(path, os.R_OK):
                found.unreadable.append(f"{named(path)}: {os.strerror(errno.EACCES)}")
            else:
                found.sources.append(Source(path, named(path), status.st_size))
    found.sources.sort(key=lambda source: source.name)
    return found


def digest_of(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_ESCAPES = {"\\": "\\\\", "\n": "\\n", "\r": "\\r"}
_UNESCAPES = {escaped: plain for plain, escaped in _ESCAPES.items()}


def listing_line(digest: str, name: str) -> str:
    """A line of a listing, without its end. As `sha256sum` does it, one whose name has to be
    escaped begins with a backslash."""
    escaped = "".join(_ESCAPES.get(character, character) for character in name)
    return f"{chr(92) if escaped != name else ''}{digest}  {escaped}"


def read_listing(path: Path) -> dict[str, str]:
    """name -> digest; a line that was cut off by a crash is left out. Raises OSError."""
    known = {}
    text = ""
    with contextlib.suppress(FileNotFoundError):
        text = path.read_bytes().decode("utf-8", "surrogateescape")
    for line in text.split("\n")[:-1]:
        digest, separator, name = line.removeprefix("\\").partition("  ")
        if line.startswith("\\"):
            name = re.sub(r"\\[\\nr]", lambda found: _UNESCAPES[found[0]], name)
        if separator and len(digest) == 64:
            known[name] = digest
    return known


def _end_torn_line(path: Path, log: TextIO) -> None:
    """Cut a line that a crash cut off, or the next one would be appended to it."""
    raw = path.read_bytes()
    log.truncate(raw.rfind(b"\n") + 1)


class Remote:
    """Keys of a store over HTTP, each request repeated until it is answered or `patience` ends.

    A repeated write carries the same Idempotency-Key, so it takes effect once.
    """

    def __init__(self, session: aiohttp.ClientSession, address: str, patience: float) -> None:
        self._session = session
        self._address = address.rstrip("/")
        self._patience = patience
        self.tally = Tally()

    async def put(self, key: str, path: Path, size: int) -> None:
        """Store a file. Raises Failure."""
        headers = {"Idempotency-Key": secrets.token_hex(16), "Content-Length": str(size)}

        async def attempt() -> bytes:
            body = _body(path, size)
            # Over slow links the answer comes long after the last byte was sent, see
            # `Limits.seconds_to_store`.
            patience = _timeout(READ_SECONDS + min(300.0, size / SLOWEST))
            put = self._session.put(self._url(key), data=body, headers=headers, timeout=patience)
            async with put as response:
                return await _checked(response)

        await self._persist(attempt, key)

    async def get(self, key: str, path: Path) -> str:
        """Write a value to a file; returns its SHA-256. Raises Failure, OSError."""
        return await self._read(key, path)

    async def digest(self, key: str) -> str | None:
        """SHA-256 of the value that the store has; None if it has none. Raises Failure."""
        try:
            return await self._read(key, None)
        except Refused as refusal:
            if refusal.code == "not_found" or refusal.code in GONE:
                return None
            raise

    async def _read(self, key: str, path: Path | None) -> str:
        """SHA-256 of a value. What goes to a file is counted, but for tries that broke off."""
        counted = 0

        async def attempt() -> bytes:
            nonlocal counted
            self.tally.bytes -= counted
            counted = 0
            digest = hashlib.sha256()
            async with self._session.get(self._url(key)) as response:
                if response.status >= 300:
                    await _checked(response)
                with contextlib.nullcontext() if path is None else path.open("wb") as file:
                    async for piece in response.content.iter_chunked(PIECE_BYTES):
                        digest.update(piece)
                        if file is not None:
                            file.write(piece)
                            counted += len(piece)
                            self.tally.bytes += len(piece)
            return digest.hexdigest().encode()

        return (await self._persist(attempt, key)).decode()

    async def page(self, prefix: str, cursor: str) -> Page:
        """Part of a listing, from the cursor of the one before. Raises Failure."""

        async def attempt() -> bytes:
            path = list_path(prefix, PAGE_KEYS, cursor=cursor)
            async with self._session.get(self._address + path) as response:
                return await _checked(response)

        return parse_page(await self._persist(attempt, prefix))

    def _url(self, key: str) -> URL:
        return URL(self._address + key_path(key), encoded=True)

    async def _persist(self, attempt: Callable[[], Awaitable[bytes]], what: str) -> bytes:
        began = time.monotonic()
        pause = 0.02
        while True:
            try:
                result = await attempt()
            except (aiohttp.ClientError, TimeoutError, _Again) as error:
                waited = time.monotonic() - began
                if waited > self._patience:
                    raise Failure(
                        f"{what}: no success for {waited:.0f} s: {error or type(error).__name__}",
                        EXIT_UNREACHABLE,
                    ) from None
                self.tally.retries += 1
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))
                pause = min(BACKOFF_SECONDS_MAX, 2 * pause)
            else:
                self.tally.longest_wait = max(self.tally.longest_wait, time.monotonic() - began)
                return result


class _Again(Exception):
    """The store refused for now."""


class Refused(Failure):
    """The store refused a key, for the reason `code`."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}" if code else message)
        self.code = code


async def _checked(response: aiohttp.ClientResponse) -> bytes:
    raw = await response.read()
    if response.status < 300:
        return raw
    code, message = reason_of(response.status, raw)
    if response.status in RETRY_STATUS:
        raise _Again(f"{code}: {message}")
    raise Refused(code, message)


def _body(path: Path, size: int) -> bytes | AsyncIterator[bytes]:
    """Exactly `size` bytes of the file."""
    if size > WHOLE_BYTES_MAX:
        return _pieces(path, size)
    raw = path.read_bytes()
    if len(raw) != size:
        raise Failure(f"{path} changed while it was imported")
    return raw


async def _pieces(path: Path, size: int) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while size > 0:
            piece = file.read(min(size, PIECE_BYTES))
            if not piece:
                raise Failure(f"{path} became shorter while it was imported")
            size -= len(piece)
            yield piece


def _timeout(read_seconds: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=read_seconds)


@contextlib.asynccontextmanager
async def connect(address: str, parallel: int, patience: float) -> AsyncIterator[Remote]:
    """A store at `address`, for up to `parallel` requests at a time. Raises Failure."""
    host, port = server_of(address)
    url = str(URL.build(scheme="http", host=host, port=port))
    connector = aiohttp.TCPConnector(limit=parallel)
    async with aiohttp.ClientSession(
        connector=connector, timeout=_timeout(READ_SECONDS)
    ) as session:
        yield Remote(session, url, patience)


async def _in_parallel(
    items: Iterator[Source] | Iterator[str], work: Callable[..., Awaitable[None]], parallel: int
) -> None:
    """Run `work(item)` for each, `parallel` at a time; the first failure ends it all."""

    async def worker() -> None:
        for item in items:
            await work(item)

    async with asyncio.TaskGroup() as group:
        for _ in range(parallel):
            group.create_task(worker())


async def import_files(
    remote: Remote,
    sources: list[Source],
    prefix: str,
    listing: Path,
    parallel: int,
) -> dict[str, str]:
    """Store every source; returns name -> digest of all.

    Raises Failure for the first refusal, OSError if the listing cannot be written.
    """
    known = read_listing(listing)
    digests: dict[str, str] = {}
    with listing.open("a", encoding="utf-8", errors="surrogateescape", newline="") as log:
        _end_torn_line(listing, log)

        async def one(source: Source) -> None:
            digest, key = digest_of(source.path), prefix + source.name
            listed = known.get(source.name) == digest
            if listed and await remote.digest(key) == digest:
                remote.tally.skipped += 1
            else:
                await remote.put(key, source.path, source.size)
                if not listed:
                    log.write(f"{listing_line(digest, source.name)}\n")
                    log.flush()
            digests[source.name] = digest
            remote.tally.files += 1
            remote.tally.bytes += source.size

        await _unwrapped(_in_parallel(iter(sources), one, parallel))
        os.fsync(log.fileno())
    return digests


async def export_files(
    remote: Remote, prefix: str, directory: Path, parallel: int
) -> dict[str, str]:
    """Write every key with the prefix to a file; returns name -> digest.

    A key that has no path or no value any more is named in the tally's problems, and the others
    go on. Raises Failure.
    """
    digests: dict[str, str] = {}

    async def one(key: str) -> None:
        name = key.removeprefix(prefix)
        try:
            digests[name] = await remote.get(key, _place(directory, name))
        except Refused as refusal:
            if refusal.code == "not_found":
                return  # it was deleted, or expired, since it was listed
            if refusal.code not in GONE:
                raise
            remote.tally.problems.append(f"{key!r}: {refusal}")
        except _NoPlace as reason:
            remote.tally.problems.append(f"{key!r}: left out: {reason}")
        except OSError as error:
            if error.errno not in NO_PLACE:
                raise
            remote.tally.problems.append(f"{key!r}: left out: {error.strerror}")
        else:
            remote.tally.files += 1

    cursor = ""
    while True:
        page = await remote.page(prefix, cursor)
        keys = [key_of(entry) for entry in page.keys]
        await _unwrapped(_in_parallel(iter(keys), one, parallel))
        if page.cursor is None:
            return digests
        cursor = page.cursor


class _NoPlace(Exception):
    """The key names no path below the directory; says why."""


def _place(directory: Path, name: str) -> Path:
    """Where a value goes, its folders made. Raises _NoPlace, OSError.

    Only names that are their own normal form: a//b and a/./b would end in the file of a/b.
    """
    if "\0" in name or any(part in ("", ".", "..") for part in name.split("/")):
        raise _NoPlace("it is no path below the directory")
    path = directory / name
    if not path.resolve().is_relative_to(directory.resolve()):
        raise _NoPlace("a link leads out of the directory")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


async def _unwrapped(work: Awaitable[None]) -> None:
    """The first error of a task group, by itself."""
    try:
        await work
    except* Failure as group:
        raise _first(group) from None
    except* OSError as group:
        raise Failure(str(_first(group))) from None


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def differences(expected: dict[str, str], found: dict[str, str]) -> list[str]:
    """What is missing, extra or different, one line each, by name."""
    lines = []
    for name in sorted(expected.keys() | found.keys()):
        if name not in found:
            lines.append(f"{name}: missing")
        elif name not in expected:
            lines.append(f"{name}: not expected")
        elif expected[name] != found[name]:
            lines.append(f"{name}: different")
    return lines
