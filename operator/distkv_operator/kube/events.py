"""Events of a cluster: few, with stable reasons; saying the same again makes no second one."""

from __future__ import annotations

import datetime
import hashlib
import logging

from distkv_operator.kube.errors import ApiError
from distkv_operator.kube.gate import Gate
from distkv_operator.kube.kinds import CLUSTER, EVENT, Manifest

log = logging.getLogger("distkv.operator.events")

NOTE_LENGTH = 1000


class Events:
    """`instance` names this operator in the events."""

    def __init__(self, gate: Gate, instance: str) -> None:
        self._gate = gate
        self._instance = instance[:128]

    async def tell(
        self,
        namespace: str,
        name: str,
        uid: str,
        reason: str,
        note: str,
        about: str,
        warning: bool = False,
    ) -> None:
        """`about`: what makes this event another one than the last of that reason and note."""
        digest = hashlib.sha256(f"{uid} {reason} {note} {about}".encode()).hexdigest()[:16]
        manifest: Manifest = {
            "apiVersion": EVENT.api_version,
            "kind": EVENT.name,
            "metadata": {"namespace": namespace, "name": f"{name}.{digest}"},
            "regarding": {
                "apiVersion": CLUSTER.api_version,
                "kind": CLUSTER.name,
                "namespace": namespace,
                "name": name,
                "uid": uid,
            },
            "eventTime": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "type": "Warning" if warning else "Normal",
            "reason": reason,
            "note": note[:NOTE_LENGTH],
            "action": "Reconcile",
            "reportingController": "distkv.io/operator",
            "reportingInstance": self._instance,
        }
        try:
            await self._gate.create(manifest)
        except ApiError as error:
            log.warning("event %s of %s/%s was not written: %s", reason, namespace, name, error)
