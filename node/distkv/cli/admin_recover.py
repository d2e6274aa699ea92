"""`distkv admin recover`: a new generation from the directories that are left, offline."""

from __future__ import annotations

from pathlib import Path

import click

from distkv.cli.exits import EXIT_USAGE, Failure
from distkv.cli.recovering import carry_out, confirm, engine_of, opened, show, survey

DIRECTORY = click.Path(path_type=Path, exists=True, file_okay=False)


@click.command()
@click.option(
    "--survivor",
    "survivors",
    type=DIRECTORY,
    multiple=True,
    required=True,
    help="Data directory (storage.directory) of a stopped node that is left. Repeat it for all.",
)
@click.option(
    "--fresh",
    multiple=True,
    metavar="ORDINAL=DIR",
    help="Where the new data directory of a lost node is made. Repeat it for all.",
)
@click.option("--yes", "phrase", metavar="PHRASE", help="Do it; the phrase is printed without.")
@click.option("--json", "as_json", is_flag=True, help="The findings for programs.")
def recover(
    survivors: tuple[Path, ...], fresh: tuple[str, ...], phrase: str | None, as_json: bool
) -> None:
    """Recover a cluster that lost its quorum for good, from the directories that are left.

    Only for clusters with m > f (such as 2 + 3 or 1 + 1) that lost more than f disks: while a
    quorum is left, nodes are replaced one by one (`distkv admin replace`).

    \b
    1. Stop every node that is left, and make sure that the lost ones stay away.
    2. Bring all directories to one machine (copies will do).
    3. Run this without --yes: it says what will be kept and what is lost.
    4. Run it again with the phrase that it printed, and a --fresh directory for each lost
       node. Broken off, it goes on with the same command.
    5. Bring the directories back to their nodes and start all of them.

    Lost keys answer `data_lost` until they are written or deleted. Every node of the former
    generation is refused from then on, whatever it holds.
    """
    targets = dict(map(_fresh, fresh))
    with opened({str(path): path for path in survivors}) as engines:
        recovery = survey(engines)
        findings = recovery.findings()
        show(findings, as_json)
        if not confirm(findings, phrase):
            return
        missing = [m.ordinal for m in recovery.lost_members if m.ordinal not in targets]
        if missing:
            raise Failure(
                f"give a directory for each lost node: --fresh {missing[0]}=DIR"
                + (f" and for {missing[1:]}" if missing[1:] else ""),
                EXIT_USAGE,
            )
        carry_out(recovery, targets, engine_of(survivors[0]))
    click.echo(f"done: generation {findings.generation}; start all nodes now", err=True)


def _fresh(text: str) -> tuple[int, Path]:
    ordinal, equals, path = text.partition("=")
    if not equals or not ordinal.isdecimal() or not path:
        raise Failure(f"--fresh {text}: write ORDINAL=DIR, such as 3=/data/node-3", EXIT_USAGE)
    return int(ordinal), Path(path)
