"""Command lines of the control plane. All of it runs in the hub, in this order of starting."""

from __future__ import annotations

from pathlib import Path

from testbed.namespaces import network
from testbed.namespaces.pki import Identity

ETCD = "http://127.0.0.1:2379"

# In 1.35 this gate is beta and off; a StatefulSet's maxUnavailable is silently ignored without it.
GATES = "--feature-gates=MaxUnavailableStatefulSet=true"

# A node that does not answer for this long is NotReady; five seconds later its pods are evicted.
# Kubernetes' own figures (40 s and 5 min) would make every test of a lost node take minutes.
GRACE_SECONDS = 8
EVICTION_SECONDS = 5

DAEMONS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")


def identities(nodes: int) -> list[Identity]:
    """Every certificate that the cluster's authority signs."""
    api_names = ["kubernetes" + suffix for suffix in ("", ".default", ".default.svc")]
    api_names.append(f"kubernetes.default.svc.{network.DOMAIN}")
    api_hosts = (*api_names, network.HUB_ADDRESS, network.API_SERVICE, "127.0.0.1", "localhost")
    found = [
        Identity("apiserver", "kube-apiserver", hosts=api_hosts),
        Identity("apiserver-to-kubelet", "kube-apiserver", ("system:masters",)),
        Identity("admin", "testbed-admin", ("system:masters",)),
        Identity("kube-controller-manager", "system:kube-controller-manager"),
        Identity("kube-scheduler", "system:kube-scheduler"),
        Identity("kube-proxy", "system:kube-proxy"),
    ]
    for number in range(1, nodes + 1):
        name, address = network.node_name(number), network.node_address(number)
        user = f"system:node:{name}"
        found.append(Identity(name, user, ("system:nodes",), (name, address)))
    return found


def etcd(data: Path) -> list[str]:
    return [
        "etcd",
        f"--data-dir={data}",
        f"--listen-client-urls={ETCD}",
        f"--advertise-client-urls={ETCD}",
        "--listen-peer-urls=http://127.0.0.1:2380",
        "--unsafe-no-fsync",  # a crash of the machine ends the cluster anyway
        "--log-level=warn",
    ]


def apiserver(pki: Path) -> list[str]:
    headers = {
        "username-headers": "X-Remote-User",
        "group-headers": "X-Remote-Group",
        "extra-headers-prefix": "X-Remote-Extra-",
        "client-ca-file": f"{pki}/front.crt",
    }
    return [
        "kube-apiserver",
        f"--etcd-servers={ETCD}",
        f"--bind-address={network.HUB_ADDRESS}",
        f"--advertise-address={network.HUB_ADDRESS}",
        f"--secure-port={network.API_PORT}",
        f"--service-cluster-ip-range={network.SERVICE_RANGE}",
        f"--service-account-issuer=https://kubernetes.default.svc.{network.DOMAIN}",
        f"--service-account-signing-key-file={pki}/service-accounts.key",
        f"--service-account-key-file={pki}/service-accounts.key",
        f"--tls-cert-file={pki}/apiserver.crt",
        f"--tls-private-key-file={pki}/apiserver.key",
        f"--client-ca-file={pki}/ca.crt",
        f"--kubelet-certificate-authority={pki}/ca.crt",
        f"--kubelet-client-certificate={pki}/apiserver-to-kubelet.crt",
        f"--kubelet-client-key={pki}/apiserver-to-kubelet.key",
        "--kubelet-preferred-address-types=InternalIP",
        *(f"--requestheader-{name}={value}" for name, value in headers.items()),
        f"--proxy-client-cert-file={pki}/front-client.crt",
        f"--proxy-client-key-file={pki}/front-client.key",
        "--enable-aggregator-routing",  # no kube-proxy in the hub: webhooks go straight to pods
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged",
        f"--default-not-ready-toleration-seconds={EVICTION_SECONDS}",
        f"--default-unreachable-toleration-seconds={EVICTION_SECONDS}",
        "--profiling=false",
        GATES,
    ]


def controller_manager(pki: Path, folder: Path) -> list[str]:
    return [
        "kube-controller-manager",
        f"--kubeconfig={pki}/kube-controller-manager.kubeconfig",
        f"--service-account-private-key-file={pki}/service-accounts.key",
        f"--root-ca-file={pki}/ca.crt",
        f"--cluster-signing-cert-file={pki}/ca.crt",
        f"--cluster-signing-key-file={pki}/ca.key",
        f"--requestheader-client-ca-file={pki}/front.crt",
        f"--flex-volume-plugin-dir={folder}/flex",  # the default would be made on the host
        f"--node-monitor-grace-period={GRACE_SECONDS}s",
        "--node-monitor-period=1s",
        "--use-service-account-credentials",
        "--bind-address=127.0.0.1",
        "--leader-elect=false",
        "--profiling=false",
        GATES,
    ]


def scheduler(pki: Path) -> list[str]:
    return [
        "kube-scheduler",
        f"--kubeconfig={pki}/kube-scheduler.kubeconfig",
        "--bind-address=127.0.0.1",
        "--leader-elect=false",
        "--profiling=false",
    ]
