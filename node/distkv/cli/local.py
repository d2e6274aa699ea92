"""`distkv local ...`: laptop mode."""

from __future__ import annotations

import functools
import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from distkv.cli.exits import EXIT_USAGE, OF_FILES, Failure
from distkv.local import control, up
from distkv.local.directory import Directory
from distkv.local.errors import LocalError, WrongUse
from distkv.local.ports import HOST, PortPlan
from distkv.manifest import ManifestError, read

F = TypeVar("F", bound=Callable[..., Any])
STOP_SECONDS = 30.0
WATCH_SECONDS = 1.0

DIRECTORY = click.option(
    "--dir",
    "path",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("distkv-data"),
    show_default=True,
    envvar="DISTKV_DIR",
    help="Directory of the cluster.",
)


def plain_errors(function: F) -> F:
    """Turn LocalError, and an error of a file in the directory, into a message."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except WrongUse as error:
            raise Failure(str(error), EXIT_USAGE) from None
        except LocalError as error:
            raise Failure(str(error)) from None
        except OSError as error:
            if error.errno not in OF_FILES:
                raise
            # A write that fails does not know the file's name.
            raise Failure(f"{error.filename or kwargs['path']}: {error.strerror}") from None

    return cast(F, wrapped)


@click.group()
def local() -> None:
    """Run a whole cluster on this machine: its nodes, a gateway, and their owner.

    \b
    Ports: the gateway has base (RESP) and base + 1 (HTTP); node i has
    base + 10 (i + 1) (RESP), + 1 (HTTP), + 2 (peers, UDP), + 3 (admin), + 4 (gateway link).
    """


@local.command("up")
@click.option(
    "-f",
    "--file",
    "manifest_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="DistKVCluster manifest (YAML), as Kubernetes takes it.",
)
@click.option("--data-shards", type=int, help="k: shards that rebuild a value.  [default: 3]")
@click.option(
    "--parity-shards", type=int, help="m: further shards; n = k + m is at most 12.  [default: 2]"
)
@DIRECTORY
@click.option("--port-base", type=int, help="First port.  [default: 7000, or as before]")
@click.option("--detach", is_flag=True, help="Return when it is ready and leave it running.")
@plain_errors
def start_cluster(
    manifest_file: Path | None,
    data_shards: int | None,
    parity_shards: int | None,
    path: Path,
    port_base: int | None,
    detach: bool,
) -> None:
    """Start a new cluster, or the one that is in the directory."""
    began = time.monotonic()
    try:
        manifest = read(manifest_file) if manifest_file is not None else None
        directory = up.prepare(path, manifest, (data_shards, parity_shards), port_base)
    except ManifestError as error:
        raise Failure(str(error), EXIT_USAGE) from None

    def ready() -> None:
        _print_ready(directory, time.monotonic() - began, detach)

    nodes = directory.identity().nodes
    click.echo(f"starting {nodes} nodes and a gateway in {directory.path} ...", err=True)
    if detach:
        up.detach(directory)
        ready()
    else:
        up.run(directory, lambda text: click.echo(text, err=True), ready)
        click.echo(f"stopped; `distkv local up --dir {directory.path}` resumes it", err=True)


def _print_ready(directory: Directory, seconds: float, detached: bool) -> None:
    identity = directory.identity()
    plan = PortPlan(identity.port_base, identity.nodes)
    where = f" --dir {directory.path}"
    k, m = identity.data_shards, identity.parity_shards
    f = min(m, (k + m - 1) // 2)
    click.echo(
        f"cluster {identity.name!r} is ready after {seconds:.1f} s: {k + m} nodes, {k} data and "
        f"{m} parity shards; any {f} may be down"
    )
    lines = [
        f"redis-cli -p {plan.gateway_resp} set greeting hello",
        f"curl http://{HOST}:{plan.gateway_http}/v1/kv/greeting",
        f"distkv local status{where}",
        f"distkv local kill 0{where}",
    ]
    lines.append(f"distkv local down{where}" if detached else "Ctrl-C stops it")
    click.echo("\n".join(["try next:", *(f"  {line}" for line in lines)]))


@local.command()
@DIRECTORY
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.option("--watch", is_flag=True, help="Show it again every second, until Ctrl-C.")
@plain_errors
def status(path: Path, as_json: bool, watch: bool) -> None:
    """Show the processes and what each node says of itself.

    \b
    --json has: name, directory, cluster_id, owner, formed, data_shards, parity_shards, leader
    (ordinal), ready, nodes (ordinal, process, pid, exit_code, ports, role, state, incarnation,
    applied, leader, formed, shards, shards_missing, replacement, ...), gateway, suspicions;
    of the whole cluster: shards_missing, shards_corrupt, under_coded, values_lost,
    repair_bytes_done, repair_bytes_left, repair_bytes_per_second, repair_seconds_left,
    survives (available: so many more nodes may stop; durable: so many more disks may be lost;
    durable_if_silent_return).
    What is not known is null.
    """
    if as_json and watch:
        raise click.UsageError("give either --json or --watch")
    found = control.command(Directory(path), "status")
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    from distkv.cli.tables import show_cluster

    while True:
        if watch:
            click.clear()
        show_cluster(found)
        if not watch:
            return
        time.sleep(WATCH_SECONDS)
        found = control.command(Directory(path), "status")


def _signal(_: click.Context, __: click.Parameter, value: str) -> int:
    name = value.upper().removeprefix("SIG")
    if value.isdecimal() and int(value) in signal.valid_signals():
        return int(value)
    try:
        return signal.Signals[f"SIG{name}"].value
    except KeyError:
        raise click.BadParameter(
            f"{value!r} is no signal: use KILL, TERM, STOP, CONT ..."
        ) from None


@local.command()
@click.argument("ordinal")
@click.option(
    "--signal",
    "number",
    metavar="NAME",
    default="KILL",
    show_default=True,
    callback=_signal,
    help="KILL, TERM, STOP, CONT ...",
)
@DIRECTORY
@plain_errors
def kill(ordinal: str, number: int, path: Path) -> None:
    """Take node ORDINAL (or "gateway") down.

    It stays down until `start`. --signal TERM stops it in order, STOP freezes it (and `start`
    lets it go on).
    """
    click.echo(control.command(Directory(path), "kill", who=ordinal, signal=number))


@local.command()
@click.argument("ordinal")
@click.option("--no-wait", is_flag=True, help="Do not wait until a wiped node is healed.")
@DIRECTORY
@plain_errors
def start(ordinal: str, no_wait: bool, path: Path) -> None:
    """Start node ORDINAL (or "gateway") again.

    After a `wipe` it comes back as a stranger: it catches up, the supervisor has it admitted
    in place of the old node, and it rebuilds its shards from the others. That is shown until
    it is done; Ctrl-C, or --no-wait, leaves it going on.
    """
    directory = Directory(path)
    click.echo(control.command(directory, "start", who=ordinal))
    if no_wait or ordinal == "gateway":
        return
    node = control.command(directory, "status")["nodes"][int(ordinal)]
    if node["replacement"] is None:
        return
    from distkv.cli.replacing import watch

    try:
        watch(directory, int(ordinal))
    except KeyboardInterrupt:
        click.echo(
            f"it goes on; `distkv local status --dir {directory.path}` shows how far it is",
            err=True,
        )
        raise


@local.command()
@click.argument("ordinal")
@DIRECTORY
@plain_errors
def wipe(ordinal: str, path: Path) -> None:
    """Lose the disk of node ORDINAL, which must be down.

    The next `start` brings it back with an empty one, and the cluster replaces the old node.
    """
    click.echo(control.command(Directory(path), "wipe", who=ordinal))


@local.command()
@DIRECTORY
@plain_errors
def down(path: Path) -> None:
    """Stop the cluster; its data stay."""
    _down(Directory(path))
    click.echo("stopped")


def _down(directory: Directory) -> None:
    control.command(directory, "down")
    deadline = time.monotonic() + STOP_SECONDS
    while directory.is_running():
        if time.monotonic() > deadline:
            raise LocalError(f"the supervisor still stops after {STOP_SECONDS:.0f} s: look again")
        time.sleep(0.02)


@local.command()
@DIRECTORY
@plain_errors
def clean(path: Path) -> None:
    """Stop the cluster and remove all its data."""
    directory = Directory(path)
    if not directory.exists:
        raise LocalError(f"{directory.path} has no local cluster: nothing to remove")
    if directory.is_running():
        _down(directory)
    if not directory.try_lock():
        raise LocalError(f"another process is just starting in {directory.path}")
    directory.remove()
    directory.unlock()
    click.echo(f"{directory.path} is removed")


@local.command()
@click.option("--yes", "phrase", metavar="PHRASE", help="Do it; the phrase is printed without.")
@click.option("--json", "as_json", is_flag=True, help="The findings for programs.")
@DIRECTORY
@plain_errors
def recover(phrase: str | None, as_json: bool, path: Path) -> None:
    """Go on with what is left after the quorum was lost for good.

    Only while the cluster is down. With more parity than data shards (such as 2 + 3) shards are
    left to rebuild values from; else only values that were small enough for the log are.
    Without --yes it says what would be kept and what is lost, and changes nothing. Lost keys
    answer `data_lost` until they are written or deleted.
    """
    from distkv.cli.local_recover import recover_local

    recover_local(Directory(path), phrase, as_json)
