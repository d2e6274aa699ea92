"""`distkv admin` against real nodes: finding the leader, the token, the owner."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from integration.cluster.harness import HOST, OWNER, Cluster, wait_until
from integration.local.cluster import environment


class Admin:
    """The command, with the options that find `cluster`."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.where: list[str] = ["--token-file", str(cluster.path / "token")]
        for node in cluster.nodes:
            self.where += ["--admin", f"{HOST}:{node.ports['admin']}"]

    def __call__(self, *arguments: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "distkv", "admin", arguments[0], *self.where, *arguments[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            env=environment(),
        )
        assert done.returncode == code, done.stdout
        return done.stdout


@pytest.fixture
def admin(cluster: Cluster) -> Admin:
    return Admin(cluster)


def test_a_new_directory_is_admitted_by_command(admin: Admin, tmp_path: Path) -> None:
    cluster = admin.cluster
    assert "nothing to do" in admin("replace", "2")
    cluster.kill(2)
    assert "node 2 does not answer" in admin("replace", "2", code=2)
    cluster.wipe(2)
    cluster.start(2)
    said = admin("replace", "2", "--owner", "somebody", code=1)
    assert "foreign_owner" in said
    wrong = tmp_path / "token"
    wrong.write_text("wrong")
    said = admin("replace", "2", "--token-file", str(wrong), code=1)
    assert "unauthorized" in said
    assert "there is no ordinal 5" in admin("replace", "5", "--new", "7", code=2)
    done = json.loads(admin("replace", "2", "--json", "--owner", OWNER).splitlines()[-1])
    assert done == {"ordinal": 2, "incarnation": cluster.incarnation(2), "replaced": True}
    cluster.wait_serving()
    assert "nothing to do" in admin("replace", "2")


def test_what_is_not_safe_is_refused_with_the_reason(admin: Admin) -> None:
    """With two more nodes dead the change would leave too few that are caught up."""
    cluster = admin.cluster
    cluster.kill(4)
    cluster.wipe(4)
    cluster.start(4)
    others = [ordinal for ordinal in cluster.followers() if ordinal != 4][:2]
    cluster.kill(*others)
    said = admin("replace", "4", "--wait", "1", code=1)
    assert "are needed" in said or "no leader" in said
    cluster.start(*others)
    admin("replace", "4")
    wait_until(lambda: len(cluster.statuses()) == 5, "all five")
    cluster.wait_serving()
