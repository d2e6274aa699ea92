"""Reading the world for one cluster: always from the API server and the nodes themselves."""

from __future__ import annotations

import asyncio
import datetime
from base64 import b64decode
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from distkv.manifest import Cluster, parse
from distkv.manifest.reading import ManifestError
from distkv_operator import names
from distkv_operator.kube.errors import ApiError
from distkv_operator.kube.gate import Gate
from distkv_operator.kube.kinds import (
    CHILDREN,
    CLAIM,
    CLUSTER,
    NODE,
    POD,
    SECRET,
    SERVICE_MONITOR,
    STORAGE_CLASS,
    VOLUME,
    Kind,
    Manifest,
)
from distkv_operator.kube.nodes import Answer, NodeClient, Place
from distkv_operator.kube.readings import Readings
from distkv_operator.names import Names
from distkv_operator.planning.layout import LAYOUT_PATH
from distkv_operator.planning.observed import (
    KubeNode,
    Observed,
    Seat,
    condition_of,
    labels_of,
    parse_time,
)
from distkv_operator.planning.record import Record, from_secret
from distkv_operator.planning.report import NodeReport

SELECTED_NODE_ANNOTATION = "volume.kubernetes.io/selected-node"
STATUS_PATH = "/v1/admin/status"

Clock = Callable[[], datetime.datetime]
T = TypeVar("T")


def utc_now() -> datetime.datetime:
    """The time, for conditions and delays."""
    return datetime.datetime.now(datetime.UTC)


class InvalidSpec(Exception):
    """The specification is refused, although the API server took it."""

    def __init__(self, resource: Manifest, message: str) -> None:
        super().__init__(message)
        self.resource = resource


class Gaps:
    """What could not be read in one round: `unread` by kind, with the reason."""

    def __init__(self) -> None:
        self.unread: dict[str, str] = {}

    async def read(self, kind: Kind, asked: Awaitable[T], unknown: T) -> T:
        """The answer; `unknown` if there is none."""
        try:
            return await asked
        except ApiError as error:
            self.unread[kind.name] = str(error)
            return unknown


class Observer:
    """`observe` makes one Observed; `ask_all` asks the nodes alone."""

    def __init__(
        self, gate: Gate, nodes: NodeClient, readings: Readings, clock: Clock = utc_now
    ) -> None:
        self._gate = gate
        self._nodes = nodes
        self._readings = readings
        self._clock = clock

    def now(self) -> datetime.datetime:
        """The time."""
        return self._clock()

    async def observe(self, namespace: str, name: str) -> Observed | None:
        """None: there is no such resource. Raises ApiError (the resource itself cannot be read),
        InvalidSpec. What else cannot be read is named in the result, and unknown there."""
        resource = await self._gate.get(CLUSTER, namespace, name)
        if resource is None or "deletionTimestamp" in resource["metadata"]:
            return None
        try:
            cluster = parse(resource | {"kind": CLUSTER.name, "apiVersion": CLUSTER.api_version},
                            name)  # fmt: skip
        except ManifestError as error:
            raise InvalidSpec(resource, str(error)) from error
        gaps = Gaps()
        monitors = await gaps.read(SERVICE_MONITOR, self._readings.service_monitors(), False)
        children, pods, claims = await self._read_objects(namespace, name, monitors, gaps)
        record, fault = _record(children, name)
        seats = await self._seats(cluster, pods, claims, gaps)
        token = admin_token(children, name)
        reports = await self.ask_all(namespace, seats, token)
        progress = await self._layout_progress(namespace, seats, reports, token)
        expandable = await gaps.read(STORAGE_CLASS, self._expandable(claims), None)
        meta = resource["metadata"]
        return Observed(
            now=self.now(),
            cluster=cluster,
            namespace=namespace,
            uid=meta["uid"],
            generation=int(meta.get("generation") or 0),
            status=resource.get("status") or {},
            annotations=meta.get("annotations") or {},
            record=record,
            record_fault=fault,
            children=children,
            seats=tuple(
                Seat(s.ordinal, s.pod, s.claim, s.host, s.volume_host, reports[s.ordinal])
                for s in seats
            ),
            layout_progress=progress,
            expandable=expandable,
            knows_service_monitors=monitors,
            unread=gaps.unread,
        )

    async def ask_all(
        self, namespace: str, seats: tuple[Seat, ...], token: str
    ) -> dict[int, NodeReport]:
        """What each node says of itself, asked at once."""
        reports = await asyncio.gather(*(self._ask(namespace, seat, token) for seat in seats))
        return {seat.ordinal: report for seat, report in zip(seats, reports, strict=True)}

    async def command(
        self, namespace: str, seat: Seat, token: str, path: str, body: Mapping[str, Any]
    ) -> Answer:
        """POST to one node's admin listener."""
        place = place_of(namespace, seat)
        if place is None:
            return Answer(0, "its pod has no address")
        return await self._nodes.ask(place, token, "POST", path, dict(body))

    async def _ask(self, namespace: str, seat: Seat, token: str) -> NodeReport:
        place = place_of(namespace, seat)
        if place is None:
            return NodeReport("its pod does not run")
        if not token:
            return NodeReport("the Secret of the admin token is missing")
        answer = await self._nodes.ask(place, token, "GET", STATUS_PATH)
        if not answer.ok:
            return NodeReport(answer.reason)
        there = answer.body.get("ordinal")
        if there is not None and there != seat.ordinal:
            # The pod is gone since it was listed, and another has its address.
            return NodeReport(f"node {there} answers at its address")
        return NodeReport("", answer.body)

    async def _layout_progress(
        self,
        namespace: str,
        seats: tuple[Seat, ...],
        reports: Mapping[int, NodeReport],
        token: str,
    ) -> Mapping[str, Any] | None:
        """The leader's word; of a node that only believes to lead, none."""
        for seat in seats:
            place = place_of(namespace, seat)
            if reports[seat.ordinal].role == "leader" and place is not None:
                answer = await self._nodes.ask(place, token, "GET", LAYOUT_PATH)
                if answer.ok and answer.body.get("leads"):
                    return dict(answer.body)
        return None

    async def _read_objects(
        self, namespace: str, name: str, monitors: bool, gaps: Gaps
    ) -> tuple[dict[tuple[str, str], Manifest], list[Manifest], list[Manifest]]:
        labels = f"{names.CLUSTER_LABEL}={name}"
        kinds = [*CHILDREN, *([SERVICE_MONITOR] if monitors else [])]
        lists = await asyncio.gather(
            *(
                gaps.read(kind, self._gate.list(kind, namespace, labels), [])
                for kind in [*kinds, POD, CLAIM]
            )
        )
        children = {
            (item["kind"], item["metadata"]["name"]): item
            for found in lists[: len(kinds)]
            for item in found
        }
        own = Names(name)
        for secret in (own.identity, own.cluster_key, own.admin_token, own.link_token):
            if ("Secret", secret) not in children and SECRET.name not in gaps.unread:
                # One that a person put back may lack the labels.
                found = await gaps.read(SECRET, self._gate.get(SECRET, namespace, secret), None)
                if found is not None:
                    children["Secret", secret] = found
        return children, lists[-2], lists[-1]

    async def _seats(
        self, cluster: Cluster, pods: list[Manifest], claims: list[Manifest], gaps: Gaps
    ) -> tuple[Seat, ...]:
        name = cluster.metadata.name
        own_pods = {
            ordinal: pod
            for pod in pods
            if labels_of(pod).get(names.COMPONENT_LABEL) == names.NODE
            and (ordinal := _ordinal(pod, f"{name}-")) is not None
        }
        prefix = f"{names.CLAIM_TEMPLATE}-{name}-"
        own_claims = {o: c for c in claims if (o := _ordinal(c, prefix)) is not None}
        last = max([cluster.spec.nodes - 1, *own_pods, *own_claims])
        return tuple(
            await asyncio.gather(
                *(self._seat(o, own_pods.get(o), own_claims.get(o), gaps) for o in range(last + 1))
            )
        )

    async def _seat(
        self, ordinal: int, pod: Manifest | None, claim: Manifest | None, gaps: Gaps
    ) -> Seat:
        volume_host = ""
        if pod is not None and not pod["spec"].get("nodeName") and claim is not None:
            volume_host = await gaps.read(VOLUME, self._volume_host(claim), "")
        name = (pod["spec"].get("nodeName") if pod is not None else None) or volume_host
        host = await gaps.read(NODE, self._host(name), _sound(name)) if name else None
        return Seat(ordinal, pod, claim, host, volume_host)

    async def _volume_host(self, claim: Manifest) -> str:
        volume = claim["spec"].get("volumeName")
        if not volume:
            return ""
        host = await self._readings.volume_host(volume)
        if host is None:
            said = claim["metadata"].get("annotations") or {}
            return str(said.get(SELECTED_NODE_ANNOTATION, ""))
        return host

    async def _host(self, name: str) -> KubeNode | None:
        try:
            found = await self._readings.host(name)
        except ApiError as error:
            if error.status != 403:
                raise
            return _sound(name)  # without the permission to read nodes
        return None if found is None else kube_node(found)

    async def _expandable(self, claims: list[Manifest]) -> bool | None:
        classes = {str(claim["spec"].get("storageClassName") or "") for claim in claims}
        answers = [await self._readings.expandable(name) for name in sorted(classes) if name]
        return False if False in answers else (answers[0] if answers else None)


def _sound(name: str) -> KubeNode:
    """A Kubernetes node that cannot be read: nothing is known to be wrong with it."""
    return KubeNode(name, True, None, False, "")


def place_of(namespace: str, seat: Seat) -> Place | None:
    """Where a node can be asked; None: its pod does not run."""
    if seat.pod is None:
        return None
    status = seat.pod.get("status", {})
    address = status.get("podIP")
    if not address or status.get("phase") != "Running":
        return None
    if seat.host is not None and not seat.host.ready and not seat.is_ready:
        return None  # the host is gone: asking would only cost the time-out
    return Place(namespace, seat.pod["metadata"]["name"], address)


def kube_node(node: Manifest) -> KubeNode:
    """The part of a Node that matters."""
    since = None
    for entry in node.get("status", {}).get("conditions") or []:
        if entry["type"] == "Ready":
            since = parse_time(str(entry.get("lastTransitionTime") or ""))
    return KubeNode(
        name=node["metadata"]["name"],
        ready=condition_of(node, "Ready") == "True",
        since=since,
        unschedulable=bool(node["spec"].get("unschedulable")),
        zone=labels_of(node).get(names.ZONE_KEY, ""),
    )


def admin_token(children: Mapping[tuple[str, str], Manifest], name: str) -> str:
    """What the nodes' admin listeners want to see; empty: the Secret is missing."""
    secret = children.get(("Secret", Names(name).admin_token))
    raw = (secret or {}).get("data", {}).get(names.TOKEN_FIELD, "")
    return b64decode(raw).decode().strip()


def _record(children: Mapping[tuple[str, str], Manifest], name: str) -> tuple[Record | None, str]:
    secret = children.get(("Secret", Names(name).identity))
    if secret is None:
        return None, ""
    try:
        return from_secret(secret), ""
    except ValueError as error:
        return None, str(error)


def _ordinal(item: Manifest, prefix: str) -> int | None:
    name = str(item["metadata"]["name"])
    digits = name.removeprefix(prefix)
    return int(digits) if digits != name and digits.isdecimal() else None
