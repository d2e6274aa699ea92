"""Tables and sentences for people, of what `distkv local status` and `distkv status` found."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from distkv.cli.words import duration, missing_line, repair_line, size, survival_line, text

SUSPICIONS_SHOWN = 10
WIDTH = 140
"""At least so wide tables are made: on a narrower terminal a long line goes on in the next one,
which is better than half a state or half a port."""
NARROW = 100


def console() -> Console:
    """Where tables go."""
    found = Console()
    return found if found.is_terminal and found.width >= WIDTH else Console(width=WIDTH)


def _show_table(out: Console, headings: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """Without columns that are empty; on a narrow terminal closer, and without process ids."""
    terminal = Console()
    narrow = terminal.is_terminal and terminal.width < NARROW
    table = Table(box=None, pad_edge=False, padding=(0, 1 if narrow else 2, 0, 0))
    wanted = [i for i, heading in enumerate(headings) if not (narrow and heading == "pid")]
    shown = [i for i in wanted if any(row[i] for row in rows)]
    for i in shown:
        table.add_column(headings[i], no_wrap=True)
    for row in rows:
        table.add_row(*(row[i] for i in shown))
    out.print(table)


def show_cluster(found: dict[str, Any]) -> None:
    """The answer of the supervisor's status command."""
    out = console()
    formed = "formed" if found["formed"] else "not formed yet"
    head = f"cluster [bold]{escape(found['name'])}[/] {found['data_shards']}+"
    head += f"{found['parity_shards']}, {formed}, leader {text(found['leader'])}"
    out.print(head, highlight=False)
    show_health(out, found, found["nodes"])
    rows = []
    for node in found["nodes"]:
        ports = node["ports"]
        doors = str(ports["resp"]), str(ports["http"])
        rows.append(
            (
                *(str(node["ordinal"]), _process(node["process"])),
                *(*_cells(node), *doors, text(node["pid"])),
            )
        )
    gateway = found["gateway"]
    doors = gateway["resp"].rpartition(":")[2], gateway["http"].rpartition(":")[2]
    rows.append(
        (
            *("gateway", _process(gateway["process"])),
            *("", gateway["state"], *[""] * (len(HEADINGS) - 2)),
            *(*doors, text(gateway["pid"])),
        )
    )
    _show_table(out, ("node", "process", *HEADINGS, "RESP", "HTTP", "pid"), rows)
    for node in found["nodes"]:
        detail = node["detail"] if node["replacement"] is None else node["replacement"]["detail"]
        if detail:
            _line(out, f"node {node['ordinal']}: {detail}")
    show_suspicions(out, found["suspicions"])


def show_node(found: dict[str, Any]) -> None:
    """The status of a node that has a seat."""
    out = console()
    layout, view = found["layout"], found["cluster_view"]
    _line(
        out,
        f"node {found['ordinal']} of cluster {found['cluster']}: {found['state']}, "
        f"{found['role']}, incarnation {found['incarnation']}, boot {found['boot']}",
    )
    if found["detail"]:
        _line(out, found["detail"])
    formed = "formed" if found["formed"] else "not formed yet"
    _line(
        out,
        f"cluster {layout['data_shards']}+{layout['parity_shards']} (layout epoch "
        f"{layout['epoch']}), {formed}, owner {text(found['owner'])}, leader "
        f"{text(found['leader'])}, {found['keys']} keys",
    )
    show_health(out, view, view["members"])
    scrub = found["health"]["scrub"]
    rotten = sum(scrub["rotten"].values()) + sum(scrub["rotten_met"].values())
    _line(
        out,
        f"scrub of this node: {scrub['share']:.0%} of round {scrub['rounds'] + 1} read again, "
        f"{rotten} rotten rows found, {scrub['mended']} mended",
    )
    rows = []
    for member in view["members"]:
        up = "[green]yes[/]" if member["up"] else "[red]no[/]"
        state = "[red]disk lost[/]" if member["disk_lost"] else up
        rows.append((str(member["ordinal"]), state, *_cells(member)))
    _show_table(out, ("node", "up", *HEADINGS), rows)
    show_suspicions(out, found["suspicions"])


def show_health(out: Console, whole: dict[str, Any], nodes: list[dict[str, Any]]) -> None:
    """What is missing, what repair does, and what more can be borne."""
    line = missing_line(whole, nodes)
    if whole["values_lost"]:
        line += f", [bold red]values lost {whole['values_lost']} (see `distkv admin lost`)[/]"
    out.print(line + repair_line(whole), highlight=False, soft_wrap=True)
    _line(out, survival_line(whole["survives"]))


def show_suspicions(out: Console, suspicions: list[dict[str, Any]]) -> None:
    """What only faulty peers do, if there is any."""
    for entry in suspicions[:SUSPICIONS_SHOWN]:
        seen_by = f"node {entry['node']}: " if "node" in entry else ""
        _line(
            out,
            f"suspicious: {seen_by}{entry['source']}: {entry['kind']}, {entry['count']} times "
            f"({entry['detail']})",
        )
    if len(suspicions) > SUSPICIONS_SHOWN:
        _line(out, f"... and {len(suspicions) - SUSPICIONS_SHOWN} more kinds (--json)")


HEADINGS = ("role", "state", "applied", "shards", "missing", "corrupt", "repair")


def _cells(node: dict[str, Any]) -> tuple[str, ...]:
    """Of one node or member, under HEADINGS."""
    missing = text(node["shards_missing"])
    return (
        text(node["role"]),
        text(node["state"]),
        text(node["applied"]),
        text(node["shards"]),
        f"[yellow]{missing}[/]" if node["shards_missing"] else missing,
        text(node["shards_corrupt"]),
        _repair(node) if node["shards_missing"] else "",
    )


def _repair(node: dict[str, Any]) -> str:
    left, seconds = node["repair_bytes_left"], node["repair_seconds_left"]
    if left is None:
        return ""
    return f"{size(left)} left" + (f", {duration(seconds)}" if seconds else "")


def _line(out: Console, line: str) -> None:
    out.print(line, highlight=False, markup=False, soft_wrap=True)


def _process(process: str) -> str:
    colours = {"running": "green", "down": "yellow", "stopped": "yellow", "exited": "red"}
    return f"[{colours[process]}]{process}[/]"
