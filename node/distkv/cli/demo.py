"""`hack/demo`: real files in, two of five nodes lost on the way, every byte read back right,
and the node that lost its disk healed.

The steps a visitor would try by hand, done in order and checked; what it prints is what the
store said or did, nothing is staged.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from distkv.cli.exits import Failure
from distkv.cli.progress import MIB, showing
from distkv.cli.replacing import LINE_SECONDS, Watch
from distkv.cli.transfer import (
    Source,
    connect,
    differences,
    digest_of,
    export_files,
    find_files,
    import_files,
)
from distkv.cli.words import missing_line, survival_line
from distkv.local import control
from distkv.local.directory import Directory
from distkv.local.errors import LocalError
from distkv.local.ports import PortPlan, check_free, free_base

PREFIX = "demo/"
PARALLEL = 16
PATIENCE_SECONDS = 60.0
HEALING_SECONDS = 300.0
POLL_SECONDS = 0.02
SHOWN_DIFFERENCES = 20
NOT_STANDARD = frozenset({"site-packages", "dist-packages"})
"""Below Python's library, but not of it."""


def say(text: str) -> None:
    """A line at the left margin: what the demo does now."""
    print(text, flush=True)


class Demo:
    """One run; `directory` is the cluster's, removed before and (with `once`) after."""

    def __init__(self, files: Path, directory: Path, manifest: Path, once: bool) -> None:
        self.files = files
        self.directory = Directory(directory)
        self.manifest = manifest
        self.once = once
        self.plan = PortPlan(7000, 5)
        self.killed: list[int] = []
        self.wiped: int | None = None

    # -- the cluster

    def start(self) -> None:
        """A new cluster from the example manifest, on ports that are free."""
        if self.directory.exists:
            say(f"removing the cluster of an earlier demo ({self.directory.path})")
            self._distkv("clean")
        try:
            check_free(self.plan)
        except LocalError as error:
            base = free_base(self.plan)
            if base is None:
                raise Failure(str(error)) from None
            say(f"{error}: using {base}")
            self.plan = self.plan._replace(base=base)
        say(f"starting five nodes and a gateway from {os.path.relpath(self.manifest)}")
        began = time.monotonic()
        self._distkv(
            *("up", "-f", str(self.manifest), "--port-base", str(self.plan.base), "--detach")
        )
        say(f"ready after {time.monotonic() - began:.1f} s")

    def _distkv(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "distkv", "local", *arguments]
        command += ["--dir", str(self.directory.path)]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode != 0:
            raise Failure(done.stderr.strip() or done.stdout.strip())

    async def _command(self, name: str, **arguments: Any) -> Any:
        return await asyncio.to_thread(control.command, self.directory, name, **arguments)

    @property
    def gateway(self) -> str:
        """URL of the gateway."""
        return f"http://127.0.0.1:{self.plan.gateway_http}"

    # -- files in, nodes lost on the way

    async def store(self, sources: list[Source]) -> dict[str, str]:
        """Import everything while two nodes go; returns the digests of what went in."""
        total = sum(source.size for source in sources)
        with tempfile.TemporaryDirectory() as scratch:
            listing = Path(scratch) / "listing"
            async with connect(self.gateway, PARALLEL, PATIENCE_SECONDS) as remote:
                tally = remote.tally

                def progress() -> float:
                    return (tally.files + 1) / (len(sources) + 1)

                accidents = asyncio.create_task(self._accidents(progress))
                try:
                    async with showing("import", tally, total, len(sources)):
                        digests = await import_files(remote, sources, PREFIX, listing, PARALLEL)
                    await accidents
                finally:
                    accidents.cancel()
                say(
                    f"{tally.retries} requests had to be repeated, the longest took "
                    f"{tally.longest_wait:.2f} s in all"
                )
        return digests

    async def _accidents(self, progress: Any) -> None:
        """Kill the leader, then one more; wipe the old leader; start the other again."""

        async def reached(share: float) -> None:
            while progress() < share:  # noqa: ASYNC110 (a tally has no event for every share)
                await asyncio.sleep(POLL_SECONDS)

        await reached(0.15)
        leader = await self._leader()
        await self._kill(leader, f"the leader (node {leader})")
        await reached(0.35)
        other = (await self._leader() + 1) % self.plan.nodes
        if other == leader:
            other = (other + 1) % self.plan.nodes
        await self._kill(other, f"node {other} too: two of five are down")
        await reached(0.5)
        say(f"  >> wiping the disk of node {leader}")
        await self._command("wipe", who=str(leader))
        self.wiped = leader
        await reached(0.7)
        say(f"  >> starting node {other} again")
        await self._command("start", who=str(other))

    async def _kill(self, ordinal: int, what: str) -> None:
        say(f"  >> kill -9 of {what}")
        await self._command("kill", who=str(ordinal), signal=int(signal.SIGKILL))
        self.killed.append(ordinal)

    async def _leader(self) -> int:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            status = await self._command("status")
            leader = status["leader"]
            if leader is not None and status["nodes"][leader]["process"] == "running":
                return int(leader)
            await asyncio.sleep(POLL_SECONDS)
        raise Failure(f"no leader within {PATIENCE_SECONDS:.0f} s")

    # -- and out again

    async def check(self, sources: list[Source], digests: dict[str, str]) -> list[str]:
        """Export everything and compare; returns what differs."""
        total = sum(source.size for source in sources)
        with tempfile.TemporaryDirectory(prefix="distkv-demo-") as scratch:
            target = Path(scratch)
            async with (
                connect(self.gateway, PARALLEL, PATIENCE_SECONDS) as remote,
                showing("export", remote.tally, total, len(sources)),
            ):
                await export_files(remote, PREFIX, target, PARALLEL)
            # Hash what is on the disk now, not what passed through.
            found = {source.name: digest_of(source.path) for source in find_files(target).sources}
        return differences(digests, found)

    # -- healing

    async def heal(self) -> None:
        """Start the wiped node: it is admitted anew and rebuilds every shard it should hold."""
        assert self.wiped is not None
        say(f"starting node {self.wiped} with its empty disk")
        began = time.monotonic()
        await self._command("start", who=str(self.wiped))
        observer, told, told_at = Watch(self.wiped), "", began
        while True:
            now = time.monotonic()
            moment = observer.look(await self._command("status"), now)
            step = moment.text.partition(",")[0]
            if moment.healed:
                say(f"  node {self.wiped} is {moment.text}, after {now - began:.1f} s")
                return
            if step != told or (moment.total is not None and now - told_at > LINE_SECONDS):
                counted = "" if moment.total is None else f" ({moment.held} of {moment.total})"
                say(f"  {moment.text}{counted}")
                told, told_at = step, now
            if now - began > HEALING_SECONDS:
                raise Failure(f"node {self.wiped} is not healed after {now - began:.0f} s")
            await asyncio.sleep(POLL_SECONDS * 5)

    async def show_health(self) -> bool:
        """What the cluster says of itself at the end; whether nothing is missing."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            status = await self._command("status")
            whole = status["shards_missing"] == 0 and status["survives"]["durable"] is not None
            if whole or time.monotonic() > deadline:
                break
            await asyncio.sleep(POLL_SECONDS * 5)
        say(f"cluster: {missing_line(status, status['nodes'])}")
        say(f"  {survival_line(status['survives'])}")
        return bool(status["shards_missing"] == 0)

    async def show_storage(self, total: int) -> None:
        """What each node stores, against a whole copy of everything."""
        whole = max(1, total)
        say(f"stored {total / MIB:.1f} MiB of files; whole copies would be that much on every node")
        status = await self._command("status")
        held = 0
        for node in status["nodes"]:
            ordinal, shards = node["ordinal"], node["shards_bytes"] or 0
            held += shards
            disk = sum(allocated(path) for path in files_below(self.directory.node(ordinal)))
            note = "  its disk was wiped, and rebuilt" if ordinal == self.wiped else ""
            say(
                f"  node {ordinal}: shards {shards / MIB:7.1f} MiB = {shards / whole:4.2f} of a "
                f"whole copy; {disk / MIB:7.1f} MiB on disk with log and metadata{note}"
            )
        n, k = self.plan.nodes, status["data_shards"]
        say(
            f"  shards together {held / whole:.2f} times the data: {n / k:.2f} with all {n} nodes "
            f"up, more for what was written while two were down; whole copies {n}.00 times"
        )

    # -- all of it

    async def run(self) -> bool:
        """The whole demo; whether every byte was right."""
        sources = find_files(self.files, NOT_STANDARD).sources
        if not sources:
            raise Failure(f"{self.files} has no files that can be read")
        total = sum(source.size for source in sources)
        biggest = max(source.size for source in sources)
        say(
            f"importing {len(sources)} files, {total / MIB:.1f} MiB (0 bytes to "
            f"{biggest / MIB:.1f} MiB) from {self.files}"
        )
        digests = await self.store(sources)
        say("exporting everything with what is left, and comparing SHA-256")
        wrong = await self.check(sources, digests)
        for line in wrong[:SHOWN_DIFFERENCES]:
            say(f"  WRONG {line}")
        await self.heal()
        whole = await self.show_health()
        await self.show_storage(total)
        if wrong or not whole:
            say(
                f"FAILED: {len(wrong)} of {len(digests)} files are not as they went in"
                if wrong
                else "FAILED: shards are still missing"
            )
            return False
        killed = " and ".join(str(ordinal) for ordinal in self.killed)
        say(
            f"all {len(digests)} files came back right, byte for byte: nodes {killed} were killed, "
            f"node {self.wiped} lost its disk and has all its shards again"
        )
        return True

    def finish(self, right: bool) -> None:
        """Leave the cluster up with what to try, or remove it."""
        if self.once:
            self._distkv("clean")
            say("stopped and removed (--once)")
            return
        where = os.path.relpath(self.directory.path)
        name = "abc.py" if (self.files / "abc.py").exists() else ""
        say("the cluster is up; try next:")
        distkv = os.path.relpath(Path(sys.executable).parent / "distkv")
        lines = [
            f"redis-cli -p {self.plan.gateway_resp} set greeting hello",
            f"redis-cli -p {self.plan.gateway_resp} get greeting",
            f"curl {self.gateway}/v1/kv/greeting",
            f"{distkv} local status --dir {where}",
            f"{distkv} local kill 0 --dir {where}; {distkv} local wipe 0 --dir {where}",
            f"{distkv} local start 0 --dir {where}     # is replaced, with progress",
            f"{distkv} local clean --dir {where}",
        ]
        if name:
            lines.insert(3, f"curl {self.gateway}/v1/kv/demo%2F{name}")
        for line in lines:
            say(f"  {line}")
        if not right:
            say(f"the logs are in {where}")


def files_below(directory: Path) -> Iterator[Path]:
    """Regular files."""
    for root, _, names in os.walk(directory):
        for name in names:
            yield Path(root) / name


def allocated(path: Path) -> int:
    """Bytes the file takes on disk, or would be: whichever is less (preallocation is not data)."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return 0
    return min(found.st_blocks * 512, -(-found.st_size // 4096) * 4096)


def main(arguments: list[str]) -> int:
    """Exit code 0 only if every byte was right."""
    parser = argparse.ArgumentParser(prog="hack/demo", description=__doc__.split("\n\n")[0])
    parser.add_argument("--once", action="store_true", help="stop and remove the cluster after")
    parser.add_argument(
        "--cluster",
        type=Path,
        default=Path(".cache/demo"),
        help="directory of the cluster (default: %(default)s)",
    )
    parser.add_argument(
        "--manifest",
        type=Path,
        default=Path("hack/examples/laptop.yaml"),
        help="what cluster to make (default: %(default)s)",
    )
    parser.add_argument("--called-from", type=Path, default=Path(), help=argparse.SUPPRESS)
    parser.add_argument(
        "directory",
        nargs="?",
        type=Path,
        default=Path(sysconfig.get_path("stdlib")),
        help="files to import (default: this Python's standard library)",
    )
    options = parser.parse_args(arguments)
    directory = options.called_from / options.directory
    if not directory.is_dir():
        parser.error(f"{directory} is no directory")
    demo = Demo(directory.resolve(), options.cluster, options.manifest, options.once)
    try:
        demo.start()
        right = asyncio.run(demo.run())
        demo.finish(right)
    except (Failure, LocalError) as error:
        print(f"demo: {error}", file=sys.stderr)
        if demo.once and demo.directory.exists:
            print(f"the cluster's logs stay in {demo.directory.path}", file=sys.stderr)
            stop_quietly(demo.directory)
        return 1
    except KeyboardInterrupt:
        stop_quietly(demo.directory)
        return 130
    return 0 if right else 1


def stop_quietly(directory: Directory) -> None:
    """Stop the cluster if it runs; its files stay for a look."""
    try:
        control.command(directory, "down")
    except LocalError:
        return


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
