"""The Secrets: created once, never written again.

A formed cluster's missing key is not made anew: the nodes would be cut in two, those that
started with the old one and those with the new.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from typing import NamedTuple

from distkv_operator import names
from distkv_operator.names import Names
from distkv_operator.planning.observed import Manifest, Observed
from distkv_operator.planning.record import Record, to_data
from distkv_operator.planning.steps import CreateOnce


class Fresh(NamedTuple):
    """Random material for what has to be made; 32 and 64 hexadecimal digits."""

    cluster_id: str
    key: str
    admin_token: str
    link_token: str


def secret_steps(observed: Observed, fresh: Fresh, formed: bool) -> tuple[list[CreateOnce], str]:
    """Creations, and the message of condition KeyMissing (empty: none is missing)."""
    own = Names(observed.name)
    contents = {
        own.cluster_key: {names.CLUSTER_KEY_FIELD: fresh.key},
        own.admin_token: {names.TOKEN_FIELD: fresh.admin_token},
        own.link_token: {names.TOKEN_FIELD: fresh.link_token},
    }
    absent = [name for name in contents if observed.child("Secret", name) is None]
    if not formed:
        return [CreateOnce(_secret(observed, name, contents[name])) for name in absent], ""
    if not absent:
        return [], ""
    what = ", ".join(f"{name} (field {next(iter(contents[name]))})" for name in absent)
    return [], (
        f"Secret {what} is missing. It is not made anew, because nodes with different secrets "
        "would refuse each other. Put it back from a backup, or from a pod that still runs: "
        f"its files are below /etc/distkv/secrets in pod {own.pod(0)}"
    )


def record_secret(observed: Observed, record: Record) -> Manifest:
    """The Secret of the formation record. It has no owner, because it must outlive any."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": Names(observed.name).identity,
            "namespace": observed.namespace,
            "labels": names.labels(observed.name, names.NODE),
        },
        "type": "Opaque",
        "data": to_data(record),
    }


def _secret(observed: Observed, name: str, content: Mapping[str, str]) -> Manifest:
    """Without an owner too: a resource that is applied again finds its key."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": name,
            "namespace": observed.namespace,
            "labels": names.labels(observed.name, names.NODE),
        },
        "type": "Opaque",
        "data": {key: b64encode(value.encode()).decode() for key, value in content.items()},
    }
