"""`kubectl distkv`: its commands."""

from __future__ import annotations

import datetime
import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import click
from rich.console import Console
from rich.live import Live

from distkv_operator import names
from distkv_operator.plugin import screens, view
from distkv_operator.plugin.kubectl import Kubectl, PluginError
from distkv_operator.plugin.waiting import wait_for_repair

Manifest = dict[str, Any]
WATCH_SECONDS = 2.0
EXITS = "Exit codes: 0 done; 1 refused or failed, with the reason; 2 wrong usage."


@click.group(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=EXITS,
    name="kubectl distkv",
)
@click.version_option(package_name="distkv", prog_name="kubectl distkv")
def root() -> None:
    """DistKV clusters at a glance, and what only a person can decide.

    CLUSTER may be left out where the namespace has only one.
    """


def _options(command: Any) -> Any:
    """What every command takes; the same names as kubectl's."""
    for option in (
        click.argument("cluster", required=False),
        click.option("-n", "--namespace", help="Namespace (default: that of the context)."),
        click.option("--context", help="Context of the kubeconfig."),
        click.option("--kubeconfig", help="Path of the kubeconfig."),
        click.option("--json", "as_json", is_flag=True, help="JSON, for programs."),
    ):
        command = option(command)
    return command


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _print_json(content: Any) -> None:
    click.echo(json.dumps(content, indent=2))


@root.command()
@_options
@click.option("-A", "--all-namespaces", is_flag=True, help="One line for each cluster there is.")
@click.option("-w", "--watch", is_flag=True, help="Go on, every two seconds, until interrupted.")
def status(
    cluster: str | None,
    namespace: str | None,
    context: str | None,
    kubeconfig: str | None,
    as_json: bool,
    all_namespaces: bool,
    watch: bool,
) -> None:
    """Show a cluster: health, what may be lost, conditions, nodes.

    Everything is what the operator last wrote into the resource, a few seconds old at most.
    """
    if watch and as_json:
        raise click.UsageError("--watch shows screens: leave out --json")
    kubectl = Kubectl(context, kubeconfig, namespace)
    if all_namespaces:
        found = kubectl.clusters(all_namespaces=True)
        if as_json:
            _print_json([view.summary(item) for item in found])
        else:
            _console().print(screens.clusters_table(found, _now()))
        return
    if as_json:
        _print_json(view.summary(kubectl.cluster(cluster)))
        return

    def screen() -> Any:
        seen = kubectl.cluster(cluster)
        return screens.cluster_screen(seen, view.members(seen, {}), _now())

    _show(screen, watch)


def _console() -> Console:
    """As wide as the terminal; output for a file is not cut."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else 160)


def _show(screen: Callable[[], Any], watch: bool) -> None:
    console = _console()
    if not watch:
        console.print(screen())
        return
    with Live(screen(), console=console, auto_refresh=False) as live:
        while True:
            time.sleep(WATCH_SECONDS)
            live.update(screen(), refresh=True)


@root.command()
@_options
def members(
    cluster: str | None,
    namespace: str | None,
    context: str | None,
    kubeconfig: str | None,
    as_json: bool,
) -> None:
    """Ask every node itself, through the API server, and show what each says now.

    A node that cannot be asked (no permission for pods/proxy, a network policy, a pod that is
    gone) is shown as the operator last saw it.
    """
    kubectl = Kubectl(context, kubeconfig, namespace)
    seen = kubectl.cluster(cluster)
    live, faults = _ask(kubectl, seen)
    found = view.members(seen, live)
    if as_json:
        _print_json({"members": found, "not_asked": faults})
        return
    _console().print(screens.members_table(found))
    for pod, fault in sorted(faults.items()):
        click.echo(f"{pod} could not be asked: {fault}", err=True)


def _ask(kubectl: Kubectl, cluster: Manifest) -> tuple[dict[str, Manifest], dict[str, str]]:
    """Status documents by pod, and why the others gave none."""
    pods = [m["pod"] for m in cluster.get("status", {}).get("members", []) if m.get("pod")]
    live: dict[str, Manifest] = {}
    faults: dict[str, str] = {}
    assert kubectl.namespace  # looked up once, before threads do
    with ThreadPoolExecutor(max_workers=8) as pool:
        for pod, answer in zip(
            pods, pool.map(lambda pod: _ask_one(kubectl, pod), pods), strict=True
        ):
            if isinstance(answer, str):
                faults[pod] = answer
            else:
                live[pod] = answer
    return live, faults


def _ask_one(kubectl: Kubectl, pod: str) -> Manifest | str:
    try:
        return kubectl.node_status(pod)
    except (PluginError, ValueError) as error:
        return str(error)


@root.command()
@_options
@click.argument("node", type=click.IntRange(0, 63), required=False)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--wait/--no-wait", default=True, help="Stay until no shard is missing (default).")
@click.option("--timeout", default=3600.0, show_default=True, help="Seconds to wait at most.")
def repair(
    cluster: str | None,
    node: int | None,
    namespace: str | None,
    context: str | None,
    kubeconfig: str | None,
    as_json: bool,
    yes: bool,
    wait: bool,
    timeout: float,
) -> None:
    """Follow a repair; with NODE, give up that node's volume first.

    NODE is its ordinal. The operator then deletes pod and claim, when the other nodes can do
    without it and not before; a fresh pod takes the seat and its shards are brought back. Do
    this only if the disk is lost for good: what it held is not used again.
    """
    kubectl = Kubectl(context, kubeconfig, namespace)
    seen = kubectl.cluster(_cluster_of(cluster, node))
    if cluster is not None and cluster.isdecimal() and node is None:
        node = int(cluster)
    name = seen["metadata"]["name"]
    if node is not None:
        _give_up(kubectl, seen, node, yes)
    if wait:
        found = wait_for_repair(lambda: kubectl.cluster(name), node, timeout, show=not as_json)
    else:
        found = view.summary(kubectl.cluster(name))
    if as_json:
        _print_json(found)


def _cluster_of(cluster: str | None, node: int | None) -> str | None:
    """`repair 3` names a node, for a cluster's name begins with a letter."""
    return None if cluster is not None and cluster.isdecimal() and node is None else cluster


def _give_up(kubectl: Kubectl, cluster: Manifest, node: int, yes: bool) -> None:
    name = cluster["metadata"]["name"]
    old = view.seat(cluster, node)
    if old is None:
        last = len((cluster.get("status", {}).get("layout") or {}).get("members", [])) - 1
        known = f"it has nodes 0 to {last}" if last >= 0 else "its layout is not known yet"
        raise PluginError(f"cluster {name} has no node {node}: {known}")
    if not yes:
        click.confirm(
            f"Give up the volume of node {node} ({names.Names(name).claim(node)}) for good?",
            abort=True,
        )
    wanted = {**view.replacing(cluster), node: old}
    text = names.replacements_text(wanted)
    kubectl.patch(name, {"metadata": {"annotations": {names.REPLACE_ANNOTATION: text}}})
    click.echo(f"node {node} is given up; the operator replaces it when that is safe", err=True)


def _set_paused(kubectl: Kubectl, name: str | None, paused: bool) -> Manifest:
    seen = kubectl.cluster(name)
    mark = "true" if paused else None
    patch: Manifest = {"metadata": {"annotations": {names.PAUSED_ANNOTATION: mark}}}
    if not paused and seen.get("spec", {}).get("paused"):
        patch["spec"] = {"paused": False}
    kubectl.patch(seen["metadata"]["name"], patch)
    return view.summary(kubectl.cluster(seen["metadata"]["name"]))


@root.command()
@_options
def pause(
    cluster: str | None,
    namespace: str | None,
    context: str | None,
    kubeconfig: str | None,
    as_json: bool,
) -> None:
    """Let the operator change nothing; the store goes on, and is not healed."""
    found = _set_paused(Kubectl(context, kubeconfig, namespace), cluster, True)
    if as_json:
        _print_json(found)
    else:
        click.echo(f"{found['name']} is paused: kubectl distkv resume {found['name']} ends it")


@root.command()
@_options
def resume(
    cluster: str | None,
    namespace: str | None,
    context: str | None,
    kubeconfig: str | None,
    as_json: bool,
) -> None:
    """Let the operator go on; spec.paused is taken back too."""
    found = _set_paused(Kubectl(context, kubeconfig, namespace), cluster, False)
    if as_json:
        _print_json(found)
    else:
        click.echo(f"{found['name']} is looked after again")


def main() -> None:
    """Entry point; errors are one message, not a traceback."""
    try:
        root(prog_name="kubectl distkv", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except PluginError as error:
        click.echo(f"kubectl distkv: {error}", err=True)
        sys.exit(1)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)


if __name__ == "__main__":
    main()
