"""The volume provisioner: claims become XFS file systems on the disk of the node that was chosen.

    python -m testbed.agents.provisioner SERVER PKI NODES-FILE DISKS

It waits for the scheduler's choice (WaitForFirstConsumer), pins the volume to that node, grows it
while in use, and removes it when its claim is gone and the policy is Delete. Every step looks at
what is there first, so a step that was interrupted is simply taken again.
"""

from __future__ import annotations

import functools
import http.client
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from testbed.agents.api import Api, ApiError, Credentials, Mirror, Object
from testbed.agents.disks import SMALLEST, DiskFolder
from testbed.agents.names import PROVISIONER
from testbed.agents.nodes import NodeFile
from testbed.agents.quantity import to_bytes, to_quantity
from testbed.errors import LabError
from testbed.namespaces.nodeconfig import VOLUMES

SELECTED_NODE = "volume.kubernetes.io/selected-node"
PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"
RECHECK = 2.0


def disk_folder(nodes: Path, node: str) -> DiskFolder:
    return DiskFolder(nodes / node / "disk", nodes / node / "dev")


def target(volume: str) -> str:
    """Where a node sees a volume."""
    return f"{VOLUMES}/{volume}"


class Provisioner:
    def __init__(self, api: Api, nodes: NodeFile, disks: Path) -> None:
        self._api, self._nodes, self._disks = api, nodes, disks
        self._changed = threading.Event()
        self._classes = Mirror(api, "/apis/storage.k8s.io/v1/storageclasses", self._changed.set)
        self._claims = Mirror(api, "/api/v1/persistentvolumeclaims", self._changed.set)
        self._volumes = Mirror(api, "/api/v1/persistentvolumes", self._changed.set)

    def run(self) -> None:
        for mirror in (self._classes, self._claims, self._volumes):
            mirror.synced.wait()
        while True:
            self._changed.wait(RECHECK)
            self._changed.clear()
            volumes = {volume["metadata"]["name"]: volume for volume in self._volumes.all()}
            for claim in self._claims.all():
                self._attempt(claim, functools.partial(self._serve, claim, volumes))
            for volume in volumes.values():
                self._attempt(volume, functools.partial(self._reclaim, volume))

    def _attempt(self, thing: Object, step: Callable[[], None]) -> None:
        """One claim that cannot be served must not keep the others waiting."""
        try:
            step()
        except (LabError, ApiError, OSError, http.client.HTTPException) as error:
            print(f"{thing['metadata']['name']}: {error}", flush=True)

    def _serve(self, claim: Object, volumes: dict[str, Object]) -> None:
        storage_class = self._class_of(claim)
        if storage_class is None:
            return
        wanted = to_bytes(claim["spec"]["resources"]["requests"]["storage"])
        bound = claim["spec"].get("volumeName")
        if not bound:
            node = (claim["metadata"].get("annotations") or {}).get(SELECTED_NODE)
            if node and volume_name(claim) not in volumes:
                self._provision(claim, storage_class, node, max(wanted, SMALLEST))
        elif bound in volumes and claim.get("status", {}).get("phase") == "Bound":
            has = to_bytes(claim["status"].get("capacity", {}).get("storage", "0"))
            if wanted > has:
                self._grow(claim, volumes[bound], wanted)

    def _class_of(self, claim: Object) -> Object | None:
        for each in self._classes.all():
            named = each["metadata"]["name"] == claim["spec"].get("storageClassName")
            if named and each["provisioner"] == PROVISIONER:
                return each
        return None

    def _provision(self, claim: Object, storage_class: Object, node: str, size: int) -> None:
        pid = self._nodes.read().get(node)
        if pid is None:
            return  # the node is down; it or another choice will come
        name = volume_name(claim)
        disk = disk_folder(self._disks, node)
        disk.create(name, size)
        disk.mount(name, pid, target(name))
        volume = manifest(claim, storage_class, node, size)
        try:
            self._api.request("POST", "/api/v1/persistentvolumes", volume)
        except ApiError as error:
            if error.status != http.HTTPStatus.CONFLICT:
                raise
        print(f"{name}: {to_quantity(size)} on {node}", flush=True)

    def _grow(self, claim: Object, volume: Object, size: int) -> None:
        name, node = volume["metadata"]["name"], node_of(volume)
        pid = self._nodes.read().get(node)
        if pid is None:
            return
        disk_folder(self._disks, node).grow(name, size, pid, target(name))
        capacity = {"storage": to_quantity(size)}
        self._api.merge(f"/api/v1/persistentvolumes/{name}", {"spec": {"capacity": capacity}})
        meta = claim["metadata"]
        path = (
            f"/api/v1/namespaces/{meta['namespace']}/persistentvolumeclaims/{meta['name']}/status"
        )
        self._api.merge(path, {"status": {"capacity": capacity, "conditions": []}})
        print(f"{name}: grown to {to_quantity(size)}", flush=True)

    def _reclaim(self, volume: Object) -> None:
        meta, spec = volume["metadata"], volume["spec"]
        if (meta.get("annotations") or {}).get(PROVISIONED_BY) != PROVISIONER:
            return
        released = volume.get("status", {}).get("phase") in ("Released", "Failed")
        if not released or spec["persistentVolumeReclaimPolicy"] != "Delete":
            return
        if meta.get("deletionTimestamp"):
            return
        node = node_of(volume)
        disk = disk_folder(self._disks, node)
        if pid := self._nodes.read().get(node):
            disk.unmount(pid, target(meta["name"]))
        disk.remove(meta["name"])  # of a node that is down too: its disk is a folder here
        self._api.request("DELETE", f"/api/v1/persistentvolumes/{meta['name']}")
        print(f"{meta['name']}: removed from {node}", flush=True)


def volume_name(claim: Object) -> str:
    return f"pvc-{claim['metadata']['uid']}"


def node_of(volume: Object) -> str:
    term = volume["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"][0]
    return str(term["matchExpressions"][0]["values"][0])


def manifest(claim: Object, storage_class: Object, node: str, size: int) -> Object:
    """A `local` volume, pinned to its node: pods that use it can run nowhere else."""
    name, meta = volume_name(claim), claim["metadata"]
    pinned = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name, "annotations": {PROVISIONED_BY: PROVISIONER}},
        "spec": {
            "capacity": {"storage": to_quantity(size)},
            "accessModes": claim["spec"]["accessModes"],
            "volumeMode": "Filesystem",
            "storageClassName": storage_class["metadata"]["name"],
            "persistentVolumeReclaimPolicy": storage_class.get("reclaimPolicy", "Delete"),
            "local": {"path": target(name)},
            "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "namespace": meta["namespace"],
                "name": meta["name"],
                "uid": meta["uid"],
            },
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [pinned]}]}},
        },
    }


def main(server: str, pki: str, nodes: str, disks: str) -> None:
    api = Api(Credentials(server, Path(pki), "admin"))
    Provisioner(api, NodeFile(Path(nodes)), Path(disks)).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
