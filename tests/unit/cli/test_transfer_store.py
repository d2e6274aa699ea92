"""Import and export against a store that answers as the HTTP door does, for what goes wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web

from distkv.cli.transfer import Remote, connect, export_files, find_files, import_files

PATIENCE = 30.0


class Store:
    """Keys and values in memory; `refusals`: what a GET of a key answers instead."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.refusals: dict[str, tuple[int, str]] = {}
        self.puts: list[str] = []
        self.deleted_since_listed: list[str] = []

    async def list(self, _: web.Request) -> web.Response:
        listed = sorted([*self.values, *self.refusals, *self.deleted_since_listed])
        return web.json_response({"keys": [{"key": key} for key in listed], "cursor": None})

    async def get(self, request: web.Request) -> web.Response:
        key = request.match_info["key"]
        if key in self.refusals:
            status, code = self.refusals[key]
            return web.json_response({"error": code, "message": "why"}, status=status)
        if key not in self.values:
            return web.json_response({"error": "not_found", "message": "gone"}, status=404)
        return web.Response(body=self.values[key])

    async def put(self, request: web.Request) -> web.Response:
        key = request.match_info["key"]
        self.puts.append(key)
        self.values[key] = await request.read()
        return web.json_response({"version": 1})

    def serve(self, work: Callable[[Remote], Awaitable[None]]) -> None:
        """Run `work` with a connection to this store."""

        async def run() -> None:
            application = web.Application()
            application.router.add_get("/v1/kv", self.list)
            application.router.add_get("/v1/kv/{key}", self.get)
            application.router.add_put("/v1/kv/{key}", self.put)
            runner = web.AppRunner(application)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            host, port = runner.addresses[0][:2]
            try:
                async with connect(f"{host}:{port}", 4, PATIENCE) as remote:
                    await work(remote)
            finally:
                await runner.cleanup()

        asyncio.run(run())


def exported(store: Store, directory: Path) -> tuple[dict[str, bytes], list[str]]:
    """What an export writes, and the problems it names."""
    problems: list[str] = []

    async def work(remote: Remote) -> None:
        digests = await export_files(remote, "", directory, 4)
        assert remote.tally.files == len(digests)
        assert remote.tally.bytes == sum(map(len, files().values()))
        problems.extend(remote.tally.problems)

    def files() -> dict[str, bytes]:
        found = (path for path in directory.rglob("*") if path.is_file())
        return {path.relative_to(directory).as_posix(): path.read_bytes() for path in found}

    store.serve(work)
    return files(), sorted(problems)


def test_keys_that_are_no_files_are_named_and_the_others_are_written(tmp_path: Path) -> None:
    store = Store()
    long = "n" * 300
    odd = [".", "p//q", "p/./q", "../evil", "slash/", "nul\0", long]
    store.values = {"a": b"1", "p/q": b"2", "z": b"3"} | dict.fromkeys(odd, b"x")
    found, problems = exported(store, tmp_path)
    assert found == {"a": b"1", "p/q": b"2", "z": b"3"}
    assert [line.partition(": left out: ")[0] for line in problems] == sorted(map(repr, odd))


def test_of_a_key_below_another_key_one_is_named(tmp_path: Path) -> None:
    store = Store()
    store.values = {"a": b"1", "a/b": b"2", "c": b"3"}
    found, problems = exported(store, tmp_path)
    assert len(found) == 2
    assert found["c"] == b"3"
    assert len(problems) == 1


def test_a_lost_value_does_not_keep_the_others_from_being_saved(tmp_path: Path) -> None:
    store = Store()
    store.values = {"a": b"1", "z": b"3"}
    store.refusals = {"lost": (500, "data_lost"), "rotten": (500, "corrupt")}
    found, problems = exported(store, tmp_path)
    assert found == {"a": b"1", "z": b"3"}
    assert problems == ["'lost': data_lost: why", "'rotten': corrupt: why"]


def test_a_key_deleted_while_the_store_is_exported_is_no_failure(tmp_path: Path) -> None:
    store = Store()
    store.values = {"a": b"1"}
    store.deleted_since_listed = ["gone"]
    assert exported(store, tmp_path) == ({"a": b"1"}, [])


def test_what_is_listed_is_sent_again_unless_the_store_has_it(tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    for name in ("kept", "changed", "deleted", "lost"):
        (files / name).write_bytes(name.encode())
    listing = tmp_path / "listing"
    store = Store()
    skipped: list[int] = []

    async def work(remote: Remote) -> None:
        await import_files(remote, find_files(files).sources, "", listing, 4)
        skipped.append(remote.tally.skipped)

    store.serve(work)
    assert sorted(store.puts) == ["changed", "deleted", "kept", "lost"]
    store.puts.clear()
    store.values["changed"] = b"CHANGED"
    del store.values["deleted"]
    del store.values["lost"]
    store.refusals = {"lost": (500, "data_lost")}
    store.serve(work)
    assert sorted(store.puts) == ["changed", "deleted", "lost"]
    assert skipped == [0, 1]
    assert store.values["changed"] == b"changed"
    assert len(listing.read_text().splitlines()) == 4

    another = Store()
    another.serve(work)
    assert sorted(another.values) == ["changed", "deleted", "kept", "lost"]
