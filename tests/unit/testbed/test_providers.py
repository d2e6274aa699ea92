"""Which provider is taken, what kind would run, and which clusters are left alone."""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest
import yaml
from testbed import kind
from testbed.agents.names import STORAGE_CLASS
from testbed.choose import auto
from testbed.cli import main, parser, split_foreign
from testbed.current import ALLOWED, CurrentProvider, schedulable
from testbed.errors import LabError
from testbed.namespaces import limits
from testbed.namespaces.addons import storage_class
from testbed.namespaces.network import zone_of
from testbed.paths import cluster_root
from testbed.progress import Progress
from testbed.provider import NODE_VERBS


def test_auto_prefers_a_container_daemon_then_root_then_says_what_is_missing() -> None:
    assert auto("docker", root=True) == "kind"
    assert auto("podman", root=False) == "kind"
    assert auto(None, root=True) == "namespaces"
    with pytest.raises(LabError, match=r"no Docker or Podman daemon answers, and you are not root"):
        auto(None, root=False)


def test_the_kind_cluster_has_six_workers_in_three_zones() -> None:
    config = yaml.safe_load(kind.cluster_config(6))
    roles = Counter(node["role"] for node in config["nodes"])
    assert roles == {"control-plane": 1, "worker": 6}
    workers = [node for node in config["nodes"] if node["role"] == "worker"]
    zones = [node["labels"]["topology.kubernetes.io/zone"] for node in workers]
    assert zones == [zone_of(number) for number in range(1, 7)]


def test_the_kind_cluster_loses_nodes_as_quickly_as_the_other_provider() -> None:
    config = yaml.safe_load(kind.cluster_config(1))
    patches = [yaml.safe_load(patch) for patch in config["kubeadmConfigPatches"]]
    cluster = next(p for p in patches if p["kind"] == "ClusterConfiguration")
    assert cluster["controllerManager"]["extraArgs"]["node-monitor-grace-period"] == "8s"
    assert cluster["apiServer"]["extraArgs"]["default-unreachable-toleration-seconds"] == "5"
    assert config["featureGates"] == {"MaxUnavailableStatefulSet": True}


def fake(folder: Path, name: str, body: str) -> None:
    path = folder / name
    path.write_text(f'#!/bin/sh\necho {name} "$@" >> {folder}/calls\n{body}\n')
    path.chmod(0o755)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand-ins on PATH that write down how they were called: this machine may have no Docker."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def calls(folder: Path) -> list[str]:
    return (folder / "calls").read_text().splitlines()


def test_a_client_whose_daemon_does_not_answer_is_no_container_daemon(programs: Path) -> None:
    fake(programs, "docker", "exit 1")
    fake(programs, "podman", "exit 0")
    assert kind.container_daemon() == "podman"
    fake(programs, "podman", "exit 1")
    assert kind.container_daemon() is None


def test_kind_is_told_of_podman_where_only_that_answers(programs: Path) -> None:
    fake(programs, "docker", "exit 1")
    fake(programs, "podman", "exit 0")
    fake(programs, "kind", f'echo "$KIND_EXPERIMENTAL_PROVIDER" >> {programs}/provider')
    kind.KindProvider("lab", Progress(quiet=True)).down()
    fake(programs, "docker", "exit 0")
    kind.KindProvider("lab", Progress(quiet=True)).down()
    assert (programs / "provider").read_text() == "podman\n\n"


def test_up_creates_the_cluster_with_its_own_kubeconfig(programs: Path) -> None:
    fake(programs, "kind", "")
    fake(programs, "kubectl", "cat > /dev/null")
    provider = kind.KindProvider("lab", Progress(quiet=True))
    provider.up(6)
    root = cluster_root("lab")
    assert calls(programs) == [
        "kind get clusters",
        f"kind create cluster --name lab --config {root}/kind.yaml"
        f" --kubeconfig {root}/kubeconfig --wait 180s",
        f"kubectl --kubeconfig {root}/kubeconfig apply --server-side -f -",
        f"kubectl --kubeconfig {root}/kubeconfig wait --for=condition=Ready nodes --all"
        " --timeout=180s",
    ]
    assert (root / "kind.yaml").read_text() == kind.cluster_config(6)


def test_up_keeps_a_cluster_that_is_as_asked_for_and_replaces_another(programs: Path) -> None:
    fake(programs, "kind", '[ "$*" != "get clusters" ] || echo lab')
    fake(programs, "kubectl", "cat > /dev/null")
    provider = kind.KindProvider("lab", Progress(quiet=True))
    provider.up(6)
    assert "kind delete cluster --name lab" in calls(programs)  # its configuration was unknown
    (programs / "calls").unlink()
    provider.up(6)
    assert not any("delete" in call or "create" in call for call in calls(programs))
    provider.up(3)
    assert "kind delete cluster --name lab" in calls(programs)


def test_kind_without_its_programs_says_which(programs: Path) -> None:
    with pytest.raises(LabError, match="kind is not on PATH"):
        kind.KindProvider("lab", Progress(quiet=True)).up(6)


def test_down_and_images_go_through_kind(programs: Path) -> None:
    fake(programs, "kind", "")
    provider = kind.KindProvider("lab", Progress(quiet=True))
    provider.load_image(Path("image.tar"))
    provider.down()
    assert calls(programs) == [
        "kind load image-archive image.tar --name lab",
        "kind delete cluster --name lab",
    ]
    assert not cluster_root("lab").exists()


@pytest.mark.parametrize(
    ("verb", "wipe", "wanted"),
    [
        ("stop", False, ["docker kill w1"]),
        (
            "stop",
            True,
            ["docker exec w1 sh -c rm -rf /var/local-path-provisioner/*", "docker kill w1"],
        ),
        ("start", False, ["docker start w1"]),
        ("freeze", False, ["docker pause w1"]),
        (
            "partition",
            False,
            [
                "docker exec w1 iptables -t raw -I PREROUTING -i eth0 -j DROP",
                "docker exec w1 iptables -t mangle -I POSTROUTING -o eth0 -j DROP",
            ],
        ),
        (
            "heal",
            False,
            [
                "docker unpause w1",
                "docker exec w1 iptables -t raw -D PREROUTING -i eth0 -j DROP",
                "docker exec w1 iptables -t mangle -D POSTROUTING -o eth0 -j DROP",
            ],
        ),
    ],
)
def test_node_verbs_on_kind(verb: str, wipe: bool, wanted: list[str]) -> None:
    assert verb in NODE_VERBS
    found = kind.node_commands("docker", verb, "w1", wipe)
    assert [" ".join(command) for command, _ in found] == wanted
    assert all(required for _, required in found) is (verb != "heal")


def test_an_outage_of_the_control_plane_on_kind(programs: Path) -> None:
    fake(programs, "docker", "")
    provider = kind.KindProvider("lab", Progress(quiet=True))
    provider.control("freeze", "kube-apiserver")
    provider.control("heal", "kube-apiserver")
    inside = "docker exec -i lab-control-plane pkill"
    assert [call for call in calls(programs) if "info" not in call] == [
        f"{inside} -STOP -x kube-apiserver",
        f"{inside} -CONT -x kube-apiserver",
    ]


def test_kind_refuses_a_node_that_is_not_there(programs: Path) -> None:
    fake(programs, "kind", "echo lab-worker")
    with pytest.raises(LabError, match="the nodes are lab-worker"):
        kind.KindProvider("lab", Progress(quiet=True)).node("stop", "node1")


def test_current_touches_only_contexts_that_were_allowed(
    programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = '{"status":{"conditions":[{"type":"Ready","status":"True"}]},"spec":{}}'
    answer = f"""case "$*" in
        "config current-context") echo production;;
        *) echo '{{"items":[{node}]}}';;
    esac"""
    fake(programs, "kubectl", answer)
    monkeypatch.setenv(ALLOWED, "lab,staging")
    with pytest.raises(LabError, match=f"'production' is not on the list of {ALLOWED}"):
        CurrentProvider("lab").up(1)
    assert calls(programs) == ["kubectl config current-context"]
    monkeypatch.setenv(ALLOWED, "lab,production")
    CurrentProvider("lab").up(1)
    assert calls(programs)[-1] == "kubectl --context production get nodes -o json"
    with pytest.raises(LabError, match="has 1 Ready nodes that pods may be put on, not 2"):
        CurrentProvider("lab").up(2)


def test_current_counts_no_node_that_keeps_pods_away() -> None:
    ready = {"conditions": [{"type": "Ready", "status": "True"}]}
    assert schedulable({"status": ready, "spec": {}})
    assert not schedulable({"status": ready, "spec": {"unschedulable": True}})
    assert not schedulable({"status": ready, "spec": {"taints": [{"effect": "NoSchedule"}]}})
    lost = {"conditions": [{"type": "Ready", "status": "Unknown"}]}
    assert not schedulable({"status": lost, "spec": {}})


def test_current_leaves_nodes_and_images_alone() -> None:
    provider = CurrentProvider("lab")
    with pytest.raises(LabError, match="not ours to stop"):
        provider.node("stop", "node1")
    with pytest.raises(LabError, match=r"push image\.tar to a registry"):
        provider.load_image(Path("image.tar"))


def test_what_follows_kubectl_is_not_read_as_ours() -> None:
    words = ["--name", "a", "kubectl", "-n", "b", "get", "pods", "--", "-x"]
    assert split_foreign(words) == (words[:3], words[3:])
    assert split_foreign(["helm", "--debug"]) == (["helm"], ["--debug"])
    assert split_foreign(["up", "--nodes", "3"]) == (["up", "--nodes", "3"], [])
    assert split_foreign(["--name", "kubectl", "status"]) == (["--name", "kubectl", "status"], [])


def test_help_names_every_verb() -> None:
    text = parser().format_help()
    for verb in (
        "up",
        "down",
        "status",
        "load-image",
        "kubectl",
        "helm",
        "node",
        "control",
        "logs",
    ):
        assert re.search(rf"\n +{verb}\b", text)


def test_without_a_cluster_verbs_say_how_to_get_one(
    programs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["node", "stop", "node1"]) == 1
    assert "start one: hack/kube up" in capsys.readouterr().err
    assert main(["down"]) == 0


def test_both_providers_have_the_same_storage_class() -> None:
    assert storage_class()["metadata"]["name"] == STORAGE_CLASS


def test_places_that_nodes_cover_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/var/lib/ci")
    with pytest.raises(LabError, match="set XDG_STATE_HOME to a folder outside /var/lib"):
        cluster_root("lab")
    monkeypatch.setenv("XDG_STATE_HOME", os.fspath(Path("/home/ci")))
    with pytest.raises(LabError, match="--name 'No Name' is no cluster name"):
        cluster_root("No Name")


def test_a_limit_of_the_machine_is_raised_for_the_first_cluster_and_put_back_after_the_last(
    tmp_path: Path,
) -> None:
    setting, state = tmp_path / "setting", tmp_path / "state"
    setting.write_text("128\n")
    for name in ("first", "second"):
        (state / name / "run").mkdir(parents=True)
    assert limits.raise_limit(state, setting)
    assert not limits.raise_limit(state, setting)
    assert setting.read_text() == f"{limits.ENOUGH}\n"
    shutil.rmtree(state / "first")
    assert not limits.restore_limit(state, setting)
    shutil.rmtree(state / "second")
    assert limits.restore_limit(state, setting)
    assert setting.read_text() == "128\n"
    assert list(state.iterdir()) == []


def test_a_limit_that_is_high_enough_or_was_changed_since_is_left_alone(tmp_path: Path) -> None:
    setting = tmp_path / "setting"
    setting.write_text("8192\n")
    assert not limits.raise_limit(tmp_path, setting)
    assert not limits.restore_limit(tmp_path, setting)
    setting.write_text("128\n")
    limits.raise_limit(tmp_path, setting)
    setting.write_text("4096\n")
    assert not limits.restore_limit(tmp_path, setting)
    assert setting.read_text() == "4096\n"
