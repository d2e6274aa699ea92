"""The steps of `up`: hub, control plane, nodes, add-ons, and then waiting until all are Ready."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
from pathlib import Path

from testbed.agents.api import Api, ApiError, Credentials, Object
from testbed.errors import LabError
from testbed.image.oci import identity
from testbed.namespaces import addons, cgroups, control, network
from testbed.namespaces.boxes import open_box
from testbed.namespaces.images import Stores
from testbed.namespaces.kubeconfig import write_kubeconfig
from testbed.namespaces.lab import HUB, Lab
from testbed.namespaces.node import Node
from testbed.namespaces.nodeconfig import SOCKET
from testbed.namespaces.pki import Authority, Identity, write_service_account_key
from testbed.namespaces.tools import Tools
from testbed.progress import Progress
from testbed.run import run, wait_until

CONTEXT = "distkv-testbed"
VOID = "void"  # a bridge whose ports cannot talk to each other: where a cut-off node's link ends
PATIENCE = 120.0


def start_cluster(lab: Lab, tools: Tools, store: Path, count: int, progress: Progress) -> None:
    lab.begin(count, tools)
    _write_identities(lab, count)
    cgroups.create(lab.cgroup)
    _open_hub(lab, tools, count)
    Stores(lab.root).open(lab.box(HUB), store)
    _start_control_plane(lab, tools)
    progress.step("hub is up, API server is starting")
    nodes = [Node(lab.root, number, tools, lab.cgroup) for number in range(1, count + 1)]
    for node in nodes:
        _open_node(lab, node)
    progress.step(f"{count} nodes have their namespaces")
    api = Api(Credentials(f"https://127.0.0.1:{lab.record.port}", lab.root / "pki", "admin"))
    log = lab.log(HUB, "kube-apiserver")
    wait_until("the API server to be ready", lambda: _serves(api), PATIENCE, hint=f"see {log}")
    progress.step("API server is ready")
    _start_controllers(lab, tools)
    for node in nodes:
        _start_kubelet(lab, node)
    _apply_addons(lab, tools, count)
    _await_ready(api, count, progress)
    lab.record.complete = True
    lab.save()
    progress.step(f"{count} nodes are Ready")


def _write_identities(lab: Lab, count: int) -> None:
    pki = lab.root / "pki"
    authority = Authority(pki, "ca", "distkv-testbed")
    identities = control.identities(count)
    for each in identities:
        authority.issue(each)
    Authority(pki, "front", "distkv-testbed-front").issue(
        Identity("front-client", "front-proxy-client")
    )
    write_service_account_key(pki)
    for each in identities:
        path = pki / f"{each.file}.kubeconfig"
        write_kubeconfig(path, pki, each.file, network.API_SERVER, CONTEXT)


def _open_hub(lab: Lab, tools: Tools, count: int) -> None:
    routes = "".join(
        f"ip route add {network.pod_range(n)} via {network.node_address(n)}\n"
        for n in range(1, count + 1)
    )
    script = f"""mount -t tmpfs tmpfs /run
hostname testbed-hub
ip link set lo up
ip link add {network.BRIDGE} type bridge
ip link add {VOID} type bridge
ip addr add {network.HUB_ADDRESS}/24 dev {network.BRIDGE}
ip link set {network.BRIDGE} up
ip link set {VOID} up
echo 0 > /proc/sys/net/bridge/bridge-nf-call-iptables 2>/dev/null || true
{routes}"""
    lab.add_box(HUB, open_box(HUB, script, lab.root / "run", tools["pause"]))


def _start_control_plane(lab: Lab, tools: Tools) -> None:
    pki, kubebox = lab.root / "pki", tools["kubebox"]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        lab.record.port = listener.getsockname()[1]
        server = f"https://127.0.0.1:{lab.record.port}"
        write_kubeconfig(lab.root / "kubeconfig", pki, "admin", server, CONTEXT)
        target = f"{network.HUB_ADDRESS}:{network.API_PORT}"
        number = listener.fileno()
        lab.spawn(HUB, "relay", [tools["relay"], f"-fd={number}", f"-to={target}"], [number])
    lab.save()
    lab.spawn(HUB, "etcd", [kubebox, *control.etcd(lab.root / "etcd")])
    lab.spawn(HUB, "kube-apiserver", [kubebox, *control.apiserver(pki)])


def _start_controllers(lab: Lab, tools: Tools) -> None:
    pki, kubebox, run_folder = lab.root / "pki", tools["kubebox"], lab.root / "run"
    manager = control.controller_manager(pki, lab.root)
    lab.spawn(HUB, "kube-controller-manager", [kubebox, *manager])
    lab.spawn(HUB, "kube-scheduler", [kubebox, *control.scheduler(pki)])
    common = (network.API_SERVER, pki, run_folder / "nodes.json")
    lab.spawn_agent("enforcer", *common, run_folder / "admit.sock")
    lab.spawn_agent("provisioner", *common, lab.root / "nodes")


def _open_node(lab: Lab, node: Node) -> bool:
    """True if the node came with nothing on its disk."""
    node.prepare()
    fresh = Stores(lab.root).ensure(lab.box(HUB), node.name)
    cgroups.create(node.cgroup)
    lab.add_box(node.name, node.open(lab.box(HUB), lab.record.nodes))
    lab.spawn(node.name, "containerd", node.daemons()["containerd"])
    return fresh


def _start_kubelet(lab: Lab, node: Node) -> None:
    """A kubelet ends at once when it finds containerd up but not yet initialised, for which there
    is no sign to wait for; so it is started again, as on any machine."""
    for daemon, command in node.daemons().items():
        if daemon != "containerd":
            lab.spawn(node.name, daemon, command, again=daemon == "kubelet")


def start_node(lab: Lab, node: Node) -> None:
    """Brings a node back that was stopped, with what its disk still holds."""
    if _open_node(lab, node):
        for archive in sorted((lab.root / "images").iterdir()):
            import_image(lab, node.name, archive)
    _start_kubelet(lab, node)


def import_image(lab: Lab, name: str, archive: Path) -> None:
    """Through standard input, because the node need not see the folder of the archive."""
    client = [*lab.box(name).enter("mount"), "ctr", "-a", SOCKET, "-n", "k8s.io"]
    wait_until(
        f"containerd of {name} to answer",
        lambda: run([*client, "version"], check=False).returncode == 0,
        30,
    )
    known = identity(archive)
    if known is not None and " ".join(known) in _images(client):
        return
    with archive.open("rb") as content:
        done = subprocess.run([*client, "image", "import", "-"], stdin=content, capture_output=True)
    if done.returncode != 0:
        raise LabError(f"{archive} cannot be imported: {done.stderr.decode().strip()[-1000:]}")


def _images(client: list[str]) -> set[str]:
    """Name and digest of every image that a containerd has."""
    lines = run([*client, "image", "list"]).stdout.splitlines()[1:]
    return {f"{words[0]} {words[2]}" for line in lines if len(words := line.split()) > 2}


def cut_link(lab: Lab, name: str) -> None:
    """The node keeps its carrier and hears nothing, as behind a switch that failed."""
    lab.box(name)
    command = ["ip", "link", "set", name, "master", VOID]
    lab.box(HUB).run(command, "net")
    lab.box(HUB).run(["ip", "link", "set", name, "type", "bridge_slave", "isolated", "on"], "net")


def mend_link(lab: Lab, name: str) -> None:
    lab.box(name)
    lab.box(HUB).run(["ip", "link", "set", name, "master", network.BRIDGE], "net")


def _apply_addons(lab: Lab, tools: Tools, count: int) -> None:
    listing = {"apiVersion": "v1", "kind": "List", "items": addons.manifests(count)}
    kubectl = [str(tools["kubectl"]), "--kubeconfig", str(lab.root / "kubeconfig")]
    command = [*kubectl, "apply", "--server-side", "-f", "-"]
    said = ""

    def applied() -> bool:
        nonlocal said
        done = run(command, stdin=json.dumps(listing), check=False)
        said = done.stderr
        return done.returncode == 0

    try:
        wait_until("DNS and storage class to be accepted", applied, 30, every=0.2)
    except LabError as late:
        raise LabError(late.problem, said) from late


def _serves(api: Api) -> bool:
    try:
        return api.send("GET", "/readyz")[0] == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False


def _answers(api: Api, path: str) -> bool:
    return _get(api, path) is not None


def _get(api: Api, path: str) -> Object | None:
    try:
        return api.request("GET", path)
    except (ApiError, OSError, ValueError, http.client.HTTPException):
        return None


def _await_ready(api: Api, count: int, progress: Progress) -> None:
    def nodes_ready() -> bool:
        items = (_get(api, "/api/v1/nodes") or {"items": []})["items"]
        return len(items) == count and all(is_ready(item) for item in items)

    def dns_ready() -> bool:
        found = _get(api, "/apis/apps/v1/namespaces/kube-system/deployments/kube-dns")
        return bool(found) and found["status"].get("readyReplicas", 0) == min(2, count)  # type: ignore[index]

    hint = "hack/kube logs kubelet, hack/kube kubectl get events -A"
    wait_until(f"{count} nodes to be Ready", nodes_ready, PATIENCE, hint=hint)
    progress.step("nodes are Ready, waiting for DNS")
    wait_until("DNS to be ready", dns_ready, PATIENCE, hint=hint)
    # Pods are refused in a namespace until its service account has been made.
    account = "/api/v1/namespaces/default/serviceaccounts/default"
    wait_until("the default service account", lambda: _answers(api, account), PATIENCE, hint=hint)


def is_ready(item: Object) -> bool:
    conditions = item.get("status", {}).get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
