"""`distkv local up`: a new or a resumed cluster, in the foreground or detached."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from distkv.local.directory import Directory, Identity
from distkv.local.errors import LocalError, WrongUse
from distkv.local.ports import PortPlan, check_free
from distkv.local.supervisor import Supervisor
from distkv.manifest import Cluster, cluster_of

DEFAULT_PORT_BASE = 7000
DEFAULT_GEOMETRY = (3, 2)
READY_SECONDS = 60.0


def prepare(
    path: Path,
    manifest: Cluster | None = None,
    geometry: tuple[int | None, int | None] = (None, None),
    port_base: int | None = None,
) -> Directory:
    """Lock the directory for this process; make the cluster's files if there are none.

    What is not given is taken from the directory, or is a default for a new cluster.
    Raises LocalError; nothing was created then that was not there before.
    """
    directory = Directory(path)
    _refuse_running(directory)
    if not directory.exists:
        identity = _new_identity(directory, manifest, geometry, port_base)
        check_free(PortPlan(identity.port_base, identity.nodes))
        _lock(directory)
        if not directory.exists:
            directory.create(identity)
            return directory
    else:
        _lock(directory)
    _resume(directory, manifest, geometry, port_base)
    return directory


def _refuse_running(directory: Directory) -> None:
    pid = directory.supervisor()
    if pid is not None:
        where = directory.path
        raise LocalError(
            f"a local cluster is running already in {where} (supervisor: process {pid}). See "
            f"`distkv local status --dir {where}`, stop it with `distkv local down --dir {where}`, "
            "or give another --dir and --port-base"
        )


def _lock(directory: Directory) -> None:
    if not directory.try_lock():
        _refuse_running(directory)
        raise LocalError(f"another process is just starting in {directory.path}")


def _new_identity(
    directory: Directory,
    manifest: Cluster | None,
    geometry: tuple[int | None, int | None],
    port_base: int | None,
) -> Identity:
    if manifest is None:
        k, m = (DEFAULT_GEOMETRY[i] if g is None else g for i, g in enumerate(geometry))
        manifest = cluster_of("local", k, m)
    elif any(g is not None for g in geometry):
        raise WrongUse("give either a manifest (-f) or --data-shards and --parity-shards")
    if directory.path.exists() and any(directory.path.iterdir()):
        names = {entry.name for entry in directory.path.iterdir()} - {"lock"}
        if names:
            raise LocalError(
                f"{directory.path} is not empty and holds no local cluster: choose another --dir"
            )
    spec = manifest.spec
    return Identity(
        manifest.metadata.name,
        secrets.token_hex(16),
        spec.data_shards,
        spec.parity_shards,
        DEFAULT_PORT_BASE if port_base is None else port_base,
        spec.storage.engine,
        spec.tuning().model_dump(mode="json", exclude_unset=True, exclude_defaults=True),
    )


def _resume(
    directory: Directory,
    manifest: Cluster | None,
    geometry: tuple[int | None, int | None],
    port_base: int | None,
) -> None:
    """The directory's cluster stays what it is; ports and tuning may change."""
    known = directory.identity()
    k, m = geometry
    if manifest is not None:
        k, m = manifest.spec.data_shards, manifest.spec.parity_shards
    k, m = known.data_shards if k is None else k, known.parity_shards if m is None else m
    if (k, m) != (known.data_shards, known.parity_shards):
        raise LocalError(
            f"{directory.path} holds a cluster of {known.data_shards} + {known.parity_shards} "
            f"shards, not {k} + {m}: leave the geometry out to resume it, or give another --dir"
        )
    changed = known
    if port_base is not None:
        changed = changed._replace(port_base=port_base)
    if manifest is not None:
        tuning = manifest.spec.tuning().model_dump(mode="json", exclude_defaults=True)
        changed = changed._replace(tuning=tuning)
    if changed != known:
        directory.write_identity(changed)


def run(directory: Directory, say: Callable[[str], None], ready: Callable[[], None]) -> None:
    """Be the supervisor until told to stop. Raises LocalError."""
    asyncio.run(_supervise(directory, say, ready))


async def _supervise(
    directory: Directory, say: Callable[[str], None], ready: Callable[[], None]
) -> None:
    await Supervisor(directory, say).run(ready, READY_SECONDS)


def detach(directory: Directory) -> int:
    """Leave a supervisor in the background; returns its process id once it is ready.

    Raises LocalError if it does not become ready.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _background(directory, writing)
    os.close(writing)
    directory.unlock()
    with os.fdopen(reading) as stream:
        raw = stream.read()
    answer = json.loads(raw) if raw else {"error": "the supervisor ended unexpectedly"}
    if "error" in answer:
        os.waitpid(child, 0)
        raise LocalError(answer["error"])
    return child


def _background(directory: Directory, writing: int) -> None:
    """The forked process: never returns."""
    code = 1
    try:
        os.setsid()
        directory.sign()
        nothing = os.open(os.devnull, os.O_RDONLY)
        log = os.open(directory / "supervisor.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(nothing, 0)
        os.dup2(log, 1)
        os.dup2(log, 2)

        def tell(answer: dict[str, object]) -> None:
            os.write(writing, json.dumps(answer).encode())
            os.close(writing)

        try:
            run(
                directory,
                lambda text: print(text, file=sys.stderr, flush=True),
                lambda: tell({"ready": True}),
            )
            code = 0
        except LocalError as error:
            print(error, file=sys.stderr, flush=True)
            tell({"error": str(error)})
        except OSError as error:
            where = error.filename or directory.path
            tell({"error": f"{where}: {error.strerror or error}"})
            traceback.print_exc()
    finally:
        os._exit(code)
