"""What the operator may do is what it does: no more, and no less."""

from __future__ import annotations

import pytest

from distkv_operator.builders import children
from distkv_operator.install import permissions
from distkv_operator.kube.kinds import (
    ALL,
    BY_NAME,
    CLAIM,
    CLUSTER,
    EVENT,
    LEASE,
    NODE,
    POD,
    SECRET,
    STORAGE_CLASS,
    VOLUME,
    WATCHED,
    Kind,
)

from .builders.support import cluster, context

READ = {"get", "list", "watch"}
MADE = sorted({BY_NAME[child["kind"]] for child in children(cluster(), context(cluster()))})
WANTED: dict[Kind, set[str]] = {
    CLUSTER: READ,
    **dict.fromkeys(WATCHED, READ),
    **{kind: READ | {"create", "patch", "delete"} for kind in MADE},
    # Made once; the record of the formation is replaced with its resourceVersion.
    SECRET: READ | {"create", "update", "delete"},
    POD: READ | {"delete"},
    CLAIM: READ | {"patch", "delete"},
    EVENT: {"create"},
    LEASE: READ | {"create", "update"},
    NODE: {"get"},
    VOLUME: {"get"},
    STORAGE_CLASS: {"get"},
}


def granted() -> dict[tuple[str, str], set[str]]:
    """Verbs by (group, resource)."""
    found: dict[tuple[str, str], set[str]] = {}
    for rules in (
        permissions.CLUSTERS,
        permissions.ELECTION,
        permissions.LEASES_SEEN,
        permissions.HOSTS,
    ):
        for rule in rules:
            for group in rule["apiGroups"]:
                for resource in rule["resources"]:
                    found.setdefault((group, resource), set()).update(rule["verbs"])
    return found


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)
def test_each_kind_has_the_verbs_that_are_used(kind: Kind) -> None:
    assert granted()[kind.group, kind.plural] == WANTED[kind]


def test_nothing_else_is_granted() -> None:
    known = {(kind.group, kind.plural) for kind in ALL}
    status = (CLUSTER.group, f"{CLUSTER.plural}/status")
    assert set(granted()) == known | {status}
    assert granted()[status] == {"patch"}
