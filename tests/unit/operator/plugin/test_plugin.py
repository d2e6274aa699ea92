"""`kubectl distkv`: what it shows, asks for and says, with a kubectl that plays back answers."""

from __future__ import annotations

import datetime
import io
import json
import stat
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from distkv_operator import names
from distkv_operator.plugin import screens, view
from distkv_operator.plugin.kubectl import Kubectl, PluginError
from distkv_operator.plugin.main import root
from distkv_operator.plugin.waiting import is_repaired, wait_for_repair

SCRIPT = """#!/usr/bin/env python3
import json, pathlib, sys
home = pathlib.Path(__file__).parent
with (home / "calls").open("a") as calls:
    calls.write(json.dumps(sys.argv[1:]) + chr(10))
for line in (home / "answers").read_text().splitlines():
    word, code, output = json.loads(line)
    if word in " ".join(sys.argv[1:]):
        (sys.stderr if code else sys.stdout).write(output)
        sys.exit(code)
sys.exit("no answer for " + " ".join(sys.argv[1:]))
"""


class Player:
    """Answers the first line whose word is part of the command."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.program = home / "kubectl"
        self.program.write_text(SCRIPT)
        self.program.chmod(self.program.stat().st_mode | stat.S_IXUSR)
        self.answers: list[tuple[str, int, str]] = []

    def say(self, word: str, output: Any, code: int = 0) -> None:
        text = output if isinstance(output, str) else json.dumps(output)
        self.answers.append((word, code, text))
        lines = [json.dumps(answer) for answer in self.answers]
        (self.home / "answers").write_text("\n".join(lines))

    @property
    def calls(self) -> list[list[str]]:
        return [json.loads(line) for line in (self.home / "calls").read_text().splitlines()]


@pytest.fixture
def player(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Player:
    found = Player(tmp_path)
    monkeypatch.setenv("KUBECTL", str(found.program))
    return found


def member(ordinal: int, **changes: Any) -> dict[str, Any]:
    return {
        "ordinal": ordinal,
        "pod": f"store-{ordinal}",
        "role": "leader" if ordinal == 1 else "follower",
        "state": "serving",
        "ready": True,
        "node": f"host{ordinal}",
        "zone": "a",
        "shardsHeld": 10,
        "shardsMissing": 0,
        **changes,
    }


def cluster(**changes: Any) -> dict[str, Any]:
    status = {
        "observedGeneration": 3,
        "layoutSummary": "1+2",
        "nodesSummary": "3/3",
        "version": "0.1.0",
        "leader": 1,
        "layout": {
            "epoch": 1,
            "members": [{"ordinal": o, "incarnation": str(2**61 + o)} for o in range(3)],
        },
        "members": [member(o) for o in range(3)],
        "shards": {"held": 30, "missing": 0, "corrupt": 0, "bytes": 3 * 1024 * 1024},
        "failures": {"tolerated": 1, "survivable": 1},
        "gateway": {"replicas": 2, "ready": 2},
        "conditions": [
            {
                "type": "Ready",
                "status": "True",
                "reason": "AllWell",
                "message": "every node serves",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }
        ],
        **changes.pop("status", {}),
    }
    metadata = {
        "name": "store",
        "namespace": "space",
        "generation": 3,
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "annotations": changes.pop("annotations", {}),
    }
    return {"metadata": metadata, "spec": {"dataShards": 1, **changes}, "status": status}


def run(*arguments: str, **options: Any) -> Any:
    return CliRunner().invoke(root, [*arguments], catch_exceptions=True, **options)


def drawn(renderable: Any) -> str:
    written = io.StringIO()
    Console(width=160, file=written).print(renderable)
    return written.getvalue()


def test_a_healthy_cluster_at_a_glance(player: Player) -> None:
    player.say("get distkvclusters.distkv.io store", cluster())
    done = run("status", "store", "-n", "space")
    assert done.exit_code == 0, done.output
    for word in ("space/store", "ready: yes", "1+2", "3/3", "leader: 1", "1 of 1 nodes now"):
        assert word in done.output
    assert "30 held (3.0 MiB)  0 missing" in done.output


def test_what_is_not_well_is_said_in_words() -> None:
    ill = cluster(
        annotations={names.PAUSED_ANNOTATION: "true", names.REPLACE_ANNOTATION: "2=77"},
        status={"members": [member(0), member(2, state="", ready=False, shardsMissing=4)]},
    )
    text = drawn(screens.cluster_screen(ill, view.members(ill, {}), _now()))
    assert "paused: the operator changes nothing" in text
    assert "node 2 was given up" in text
    assert "does not answer" in text


def _now() -> datetime.datetime:
    return datetime.datetime(2026, 1, 1, 3, 12, tzinfo=datetime.UTC)


def test_a_cluster_that_no_operator_has_seen() -> None:
    new = {"metadata": {"name": "store", "namespace": "space"}, "spec": {}}
    text = drawn(screens.cluster_screen(new, view.members(new, {}), _now()))
    assert "the operator has not said anything yet" in text
    assert "no node was seen yet" in text
    assert "ready: ?" in text


def test_the_only_cluster_needs_no_name_and_several_do(player: Player) -> None:
    player.say("get distkvclusters.distkv.io --namespace", {"items": [cluster(), cluster()]})
    done = run("status", "-n", "space")
    assert isinstance(done.exception, PluginError)
    assert "which one? There are store, store" in str(done.exception)
    player.answers.clear()
    player.say("get distkvclusters.distkv.io --namespace", {"items": []})
    assert "there is no DistKVCluster in namespace space" in str(
        run("status", "-n", "space").exception
    )
    player.answers.clear()
    player.say("get distkvclusters.distkv.io --namespace", {"items": [cluster()]})
    assert json.loads(run("status", "-n", "space", "--json").output)["name"] == "store"


def test_the_namespace_of_the_context_is_used(player: Player) -> None:
    player.say("config view", "team-a")
    assert Kubectl().namespace == "team-a"
    player.answers.clear()
    player.say("config view", "")
    assert Kubectl().namespace == "default"


def test_context_and_kubeconfig_go_to_kubectl(player: Player) -> None:
    player.say("get distkvclusters", cluster())
    run("status", "store", "-n", "space", "--context", "far", "--kubeconfig", "file", "--json")
    (call,) = player.calls
    assert call[:4] == ["--context", "far", "--kubeconfig", "file"]
    assert "--namespace" in call


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ('error: the server doesn\'t have a resource type "x"', "install the operator first"),
        ("Unable to connect to the server: refused", "kubectl config get-contexts"),
        ("error: current-context must exist in order to minify", "set KUBECONFIG, or give --kube"),
        ('Error from server (Forbidden): user "a" cannot get', 'user "a" cannot get'),
        ("", "said nothing"),
    ],
)
def test_refusals_are_explained(player: Player, said: str, words: str) -> None:
    player.say("get", said, code=1)
    with pytest.raises(PluginError, match=words):
        Kubectl(namespace="space").cluster("store")


def test_without_kubectl(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("KUBECTL", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PluginError, match="not on the PATH"):
        Kubectl()


def test_members_are_asked_themselves_where_that_is_possible(player: Player) -> None:
    player.say("get distkvclusters", cluster())
    player.say("pods/store-0:8080/proxy", {"role": "follower", "state": "serving", "shards": 99})
    player.say("pods/store-1:8080/proxy", {"role": "leader", "state": "serving", "shards": 98})
    player.say("pods/store-2:8080/proxy", "Error from server (NotFound): gone", code=1)
    done = run("members", "store", "-n", "space", "--json")
    found = json.loads(done.output)
    assert [m["shardsHeld"] for m in found["members"]] == [99, 98, 10]
    assert [m["asked"] for m in found["members"]] == [True, True, False]
    assert "gone" in found["not_asked"]["store-2"]


def patches(player: Player) -> list[Any]:
    return [json.loads(call[-1]) for call in player.calls if "patch" in call]


def test_pause_and_resume(player: Player) -> None:
    player.say("get distkvclusters", cluster(paused=True))
    player.say("patch", "")
    assert "resume store ends it" in run("pause", "store", "-n", "space").output
    assert run("resume", "store", "-n", "space").exit_code == 0
    first, second = patches(player)
    assert first == {"metadata": {"annotations": {names.PAUSED_ANNOTATION: "true"}}}
    assert second["metadata"]["annotations"] == {names.PAUSED_ANNOTATION: None}
    assert second["spec"] == {"paused": False}


def test_giving_up_a_volume_names_the_incarnation_and_asks_first(player: Player) -> None:
    player.say("get distkvclusters", cluster(annotations={names.REPLACE_ANNOTATION: "0=5"}))
    player.say("patch", "")
    refused = run("repair", "store", "2", "-n", "space", "--no-wait", input="n\n")
    assert "Give up the volume of node 2 (data-store-2) for good?" in refused.output
    assert patches(player) == []
    run("repair", "store", "2", "-n", "space", "--no-wait", "--yes")
    (patch,) = patches(player)
    text = patch["metadata"]["annotations"][names.REPLACE_ANNOTATION]
    assert names.replacements(text) == {0: 5, 2: 2**61 + 2}


def test_a_node_that_does_not_exist_cannot_be_given_up(player: Player) -> None:
    player.say("get distkvclusters", cluster())
    done = run("repair", "store", "7", "-n", "space", "--yes")
    assert "has no node 7: it has nodes 0 to 2" in str(done.exception)


def test_a_repair_is_over_when_nothing_is_missing_and_the_seat_is_taken_anew() -> None:
    old = cluster(annotations={names.REPLACE_ANNOTATION: f"2={2**61 + 2}"})
    assert not is_repaired(old, 2)
    assert is_repaired(cluster(annotations={names.REPLACE_ANNOTATION: "2=9"}), 2)
    assert is_repaired(cluster(), None)
    lacking = cluster(status={"shards": {"missing": 3}})
    assert not is_repaired(lacking, None)
    away = cluster(status={"members": [member(0, ready=False)]})
    assert not is_repaired(away, None)


def test_waiting_for_a_repair_ends_with_it_or_says_what_it_waited_for() -> None:
    states = [cluster(status={"shards": {"missing": 3}}), cluster()]
    found = wait_for_repair(lambda: states.pop(0), None, 60, show=False, pause=lambda _: None)
    assert found["name"] == "store"
    away = cluster(status={"members": [member(0, ready=False, state="catching up")]})
    with pytest.raises(PluginError, match="node 0: catching up"):
        wait_for_repair(lambda: away, None, -1, show=False)


def test_help_teaches() -> None:
    for command in ("status", "members", "repair", "pause", "resume"):
        assert command in run("--help").output
        assert "--namespace" in run(command, "--help").output
