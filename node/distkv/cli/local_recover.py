"""`distkv local recover`: the directories of a cluster that is down, and lost its quorum."""

from __future__ import annotations

import contextlib

import click

from distkv.cli.exits import Failure
from distkv.cli.recovering import carry_out, confirm, engine_of, opened, show, survey
from distkv.local.directory import Directory
from distkv.local.errors import LocalError
from distkv.member.survivors import Empty, Survivor


def recover_local(directory: Directory, phrase: str | None, as_json: bool) -> None:
    """Say what would be done, or do it. Raises LocalError, Failure."""
    identity = directory.identity()
    if not directory.try_lock():
        raise LocalError(
            f"the cluster runs: `distkv local down --dir {directory.path}` first; a recovery "
            "needs all nodes stopped"
        )
    try:
        _recover(directory, directory.nodes, identity.engine, phrase, as_json)
    finally:
        directory.unlock()


def _recover(
    directory: Directory, nodes: int, engine: str | None, phrase: str | None, as_json: bool
) -> None:
    present = {
        f"node-{ordinal}": directory.node(ordinal)
        for ordinal in range(nodes)
        if (directory.node(ordinal) / "engine").exists()
    }
    with opened(present) as engines:
        for name in list(engines):
            with contextlib.suppress(Empty):
                Survivor(name, engines[name])
                continue
            del engines[name]
        if not engines:
            raise Failure(f"no directory of a member is left in {directory.path}")
        recovery = survey(engines)
        findings = recovery.findings()
        show(findings, as_json)
        if not confirm(findings, phrase):
            return
        kind = engine or engine_of(next(iter(present.values())))
        lost = [member.ordinal for member in recovery.lost_members]
        ownership = directory.ownership()
        for ordinal in lost:
            # Durable first: the supervisor must not have it replaced once more.
            ownership = ownership.without_lost(ordinal)
        directory.write_ownership(ownership)
        for ordinal in lost:
            directory.wipe(ordinal)  # at most a stranger's, or a recovery's that was broken off
        carry_out(recovery, {ordinal: directory.node(ordinal) for ordinal in lost}, kind)
    click.echo(f"done; start it: distkv local up --dir {directory.path}", err=True)
