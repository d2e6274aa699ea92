"""`distkv admin layout`: order another layout, and watch it come true."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from distkv.cli.admin_api import AdminApi, Refused, admin_options
from distkv.cli.exits import EXIT_USAGE, Failure
from distkv.local import control
from distkv.local.directory import Directory, Layout
from distkv.local.errors import LocalError

POLL_SECONDS = 0.25
PATIENCE_SECONDS = 60.0


class State(NamedTuple):
    """How far it is. `left` and `total`: values; total 0: not known."""

    done: bool
    doing: str
    left: int
    total: int


@click.command()
@click.option("--data-shards", "k", type=click.IntRange(1), help="k of the new layout.")
@click.option("--parity-shards", "m", type=click.IntRange(0), help="m of the new layout.")
@click.option(
    "--member",
    "named",
    multiple=True,
    metavar="ORDINAL=INCARNATION",
    help="Which directory takes a new ordinal; else the one that waits there.",
)
@click.option("--no-wait", is_flag=True, help="Do not wait until it is complete.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@admin_options
def layout(
    k: int | None,
    m: int | None,
    named: tuple[str, ...],
    no_wait: bool,
    as_json: bool,
    api: AdminApi,
) -> None:
    """Change the layout of a running cluster, or (without numbers) show how far a change is.

    All values are striped anew in the background; reads and writes go on. Ctrl-C leaves the
    change going on. To go back half-way, give the old numbers.

    \b
    Laptop mode:     further nodes are started, surplus ones removed at the end.
    Other clusters:  start further nodes first, with empty directories at the next ordinals
                     (peers.addresses names the others); remove surplus nodes once they say
                     `retired`, not earlier.
    """
    if k is None and m is None:
        _show(api, as_json)
        return
    wanted = _wanted(api, k, m)
    if api.directory is not None:
        if named:
            raise Failure("--member is not for laptop mode: it starts the nodes itself", EXIT_USAGE)
        said = _local(control.command, api.directory, "layout", **wanted._asdict())
        state = _local_state(api.directory)
    else:
        said = _push(api, wanted, named)
        state = _cluster_state(api, wanted)
    if not as_json:
        click.echo(said, err=True)
    if not no_wait:
        try:
            _watch(state, quiet=as_json)
        except KeyboardInterrupt:
            where = "" if api.directory is None else f" --dir {api.directory.path}"
            click.echo(f"\nit goes on; `distkv admin layout{where}` shows how far it is", err=True)
            raise
    if as_json:
        click.echo(json.dumps(_picture(api)))
    elif not no_wait:
        click.echo(f"the layout is {wanted}")


def _wanted(api: AdminApi, k: int | None, m: int | None) -> Layout:
    """What is not given stays as it is."""
    if k is None or m is None:
        newest = api.leader("GET", "/v1/admin/layout")
        k = newest["data_shards"] if k is None else k
        m = newest["parity_shards"] if m is None else m
    return Layout(k, m)


def _local(call: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    try:
        return call(*arguments, **named)
    except LocalError as error:
        raise Failure(str(error)) from None


# -- where it stands


def _picture(api: AdminApi) -> dict[str, Any]:
    """GET /v1/admin/layout of the leader; in laptop mode with what its owner wants."""
    if api.directory is not None:
        found: dict[str, Any] = _local(control.command, api.directory, "layout-progress")
        return found
    return {"wanted": None, "doing": "", "cluster": _newest(api)}


def _newest(api: AdminApi) -> dict[str, Any]:
    """The leader's picture, or that of the node that knows the newest epoch."""
    said = [answer for _, answer in api.all("GET", "/v1/admin/layout") if isinstance(answer, dict)]
    if not said:
        raise Failure("no node that could say what the layout is answers")
    return max(said, key=lambda answer: (answer["leads"], answer["epoch"]))


def _show(api: AdminApi, as_json: bool) -> None:
    picture = _picture(api)
    cluster = picture["cluster"] or _newest(api)
    if as_json:
        click.echo(json.dumps(picture | {"cluster": cluster}))
        return
    lines = [
        f"layout {cluster['data_shards']} + {cluster['parity_shards']} (epoch {cluster['epoch']}); "
        f"{cluster['failures']} nodes may fail now"
        + (
            f", {cluster['failures_wanted']} when the change is complete"
            if cluster["failures"] < cluster["failures_wanted"]
            else ""
        )
    ]
    if picture["wanted"] is not None:
        lines.append(f"changing to {Layout(*picture['wanted'])}: {picture['doing']}")
    if cluster["changing"]:
        lines += [
            f"  epoch {e['epoch']}: {e['data_shards']} + {e['parity_shards']}, "
            f"{e['records']} values, {e['bytes']} bytes"
            for e in cluster["epochs"]
        ]
    for ordinal, _ in cluster["leaving"]:
        lines.append(f"  node {ordinal} leaves once no value needs it")
    for node in cluster["waiting"]:
        state = "has retired, may be removed" if node["removed"] else "waits for a seat"
        lines.append(f"  node {node['ordinal']} (incarnation {node['incarnation']}) {state}")
    click.echo("\n".join(lines))


def _local_state(directory: Directory) -> Callable[[], State]:
    def look() -> State:
        found = _local(control.command, directory, "layout-progress")
        left, total = _counts(found["cluster"])
        return State(found["wanted"] is None, found["doing"], left, total)

    return look


def _cluster_state(api: AdminApi, wanted: Layout) -> Callable[[], State]:
    def look() -> State:
        found = _newest(api)
        left, total = _counts(found)
        reached = Layout(found["data_shards"], found["parity_shards"]) == wanted
        doing = f"{left} values of the old layout are left" if reached else "the entry is applied"
        return State(reached and not found["changing"], doing, left, total)

    return look


def _counts(cluster: dict[str, Any] | None) -> tuple[int, int]:
    if cluster is None or not cluster["changing"]:
        return 0, 0
    return cluster["records_left"], sum(epoch["records"] for epoch in cluster["epochs"])


# -- watching


def _watch(look: Callable[[], State], quiet: bool) -> None:
    """Until it is complete: a bar on a terminal, else a line whenever something changes."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        said = ""
        while not (state := look()).done:
            if state.doing != said and not quiet:
                said = state.doing
                print(said, file=sys.stderr, flush=True)
            time.sleep(POLL_SECONDS)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=None)
        while not (state := look()).done:
            progress.update(
                task,
                description=state.doing,
                total=state.total or None,
                completed=state.total - state.left,
            )
            time.sleep(POLL_SECONDS)


# -- clusters whose owner is not laptop mode


def _push(api: AdminApi, wanted: Layout, named: tuple[str, ...]) -> str:
    """Ask the leader until the epoch is applied. Raises Failure."""
    chosen = dict(map(_member, named))
    deadline = time.monotonic() + PATIENCE_SECONDS
    reason = ""
    while True:
        newest = _newest(api)
        members = _members(newest, wanted, chosen)
        request = {
            "owner": api.owner(),
            **wanted._asdict(),
            "members": members,
            "epoch": newest["epoch"],
        }
        try:
            answer = api.leader("POST", "/v1/admin/layout", request)
            if answer["done"]:
                return f"the layout is {wanted} (epoch {answer['epoch']}); values are striped anew"
            reason = "proposed, not applied yet"
        except Refused as refused:
            if refused.code != "not_yet":
                raise
            reason = str(refused)
        if time.monotonic() > deadline:
            raise Failure(f"the layout is not changed after {PATIENCE_SECONDS:.0f} s: {reason}")
        time.sleep(POLL_SECONDS)


def _members(newest: dict[str, Any], wanted: Layout, named: dict[int, int]) -> list[list[int]]:
    seats: dict[int, int] = dict([*newest["members"], *newest["leaving"]])
    for node in newest["waiting"]:
        if not node["removed"]:
            seats.setdefault(node["ordinal"], node["incarnation"])
    seats |= named
    missing = [ordinal for ordinal in range(wanted.nodes) if ordinal not in seats]
    if missing:
        raise Failure(
            f"no node waits at ordinal {missing[0]}: start it with an empty directory first, and "
            "with the addresses of the others in peers.addresses"
        )
    return [[ordinal, seats[ordinal]] for ordinal in range(wanted.nodes)]


def _member(text: str) -> tuple[int, int]:
    ordinal, equals, incarnation = text.partition("=")
    if not equals or not ordinal.isdecimal() or not incarnation.isdecimal():
        raise Failure(f"--member {text}: write ORDINAL=INCARNATION", EXIT_USAGE)
    return int(ordinal), int(incarnation)
