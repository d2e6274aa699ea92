"""Configuration files of one node's daemons, as plain values; the traps are told beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from testbed.namespaces import network
from testbed.namespaces.images import PAUSE

SOCKET = "/run/containerd/containerd.sock"
VOLUMES = "/var/lib/volumes"  # where a node sees the file systems of its persistent volumes

# The kubelet wants these values and writes them where it finds others. They belong to the whole
# machine, so a node gets small files mounted over them that already say what is wanted.
KERNEL_SETTINGS = {
    "vm/overcommit_memory": 1,
    "vm/panic_on_oom": 0,
    "kernel/panic": 10,
    "kernel/panic_on_oops": 1,
    "kernel/keys/root_maxkeys": 1_000_000,
    "kernel/keys/root_maxbytes": 25_000_000,
}


def containerd(cni_plugins: Path, cni_config: Path) -> str:
    """oom_score 0 and restrict_oom_score_adj: lowering a score needs CAP_SYS_RESOURCE, which root
    in a container often lacks; unprivileged ports let CoreDNS have port 53 without being root."""
    return f"""version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
oom_score = 0
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.internal.v1.opt"]
[grpc]
  address = "{SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  restrict_oom_score_adj = true
  enable_unprivileged_ports = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{cni_plugins}"
    conf_dir = "{cni_config}"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
"""


def cni(number: int, admit_socket: Path) -> dict[str, Any]:
    """Each pod is routed (ptp), so its packets pass the forward hook, where policy is enforced."""
    addresses = {
        "type": "host-local",
        "ranges": [[{"subnet": network.pod_range(number)}]],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dataDir": "/var/lib/cni/networks",
    }
    plugins = [
        {"type": "ptp", "ipMasq": False, "ipam": addresses},
        {"type": "admit", "socket": str(admit_socket)},
    ]
    return {"cniVersion": "0.4.0", "name": "testbed", "plugins": plugins}


def kubelet(name: str, pki: Path, cgroup: str) -> dict[str, Any]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "failCgroupV1": False,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{cgroup}",  # kubelets remove pod groups that they do not know
        "containerRuntimeEndpoint": f"unix://{SOCKET}",
        "failSwapOn": False,
        "oomScoreAdj": 0,
        "maxOpenFiles": 20_000,
        "resolvConf": "",
        "clusterDNS": [network.DNS_SERVICE],
        "clusterDomain": network.DOMAIN,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": f"{pki}/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": f"{pki}/{name}.crt",
        "tlsPrivateKeyFile": f"{pki}/{name}.key",
        "nodeLeaseDurationSeconds": 4,
        "nodeStatusUpdateFrequency": "2s",
        "nodeStatusReportFrequency": "60s",
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        "imageGCHighThresholdPercent": 100,  # there is nowhere to pull an image from again
        "imageGCLowThresholdPercent": 99,
        "evictionHard": {
            "memory.available": "50Mi",
            "nodefs.available": "1%",
            "nodefs.inodesFree": "1%",
            "imagefs.available": "1%",
        },
        "seccompDefault": True,
        "serializeImagePulls": False,
        "containerLogMaxSize": "4Mi",
    }


def kube_proxy(name: str, kubeconfig: Path) -> dict[str, Any]:
    """Zeros and "0s" mean: leave the machine's connection tracking limits as they are."""
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "nftables": {"minSyncPeriod": "100ms", "syncPeriod": "30s"},
        "clusterCIDR": network.POD_RANGE,
        "hostnameOverride": name,
        "clientConnection": {"kubeconfig": str(kubeconfig)},
        "oomScoreAdj": 0,
        "conntrack": {
            "maxPerCore": 0,
            "min": 0,
            "tcpEstablishedTimeout": "0s",
            "tcpCloseWaitTimeout": "0s",
        },
        "metricsBindAddress": "127.0.0.1:10249",
        "healthzBindAddress": "127.0.0.1:10256",
    }
