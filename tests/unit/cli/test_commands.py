"""The distkv command as a person meets it: real processes, exit codes, messages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from distkv.cli import admin
from distkv.cli.main import COMMANDS
from distkv.local.ports import PortPlan, free_base


def distkv(
    *arguments: str, where: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if "DISTKV" not in name}
    inherited["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    return subprocess.run(
        [sys.executable, "-m", "distkv", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
        env=inherited | environment,
        cwd=where,
    )


def test_help_lists_every_command_and_the_exit_codes() -> None:
    done = distkv("--help")
    assert done.returncode == 0
    for name, (_, _, purpose) in COMMANDS.items():
        assert name in done.stdout
        assert purpose in done.stdout
    assert "outcome unknown" in done.stdout


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "simulate"])
def test_every_command_explains_itself(name: str) -> None:
    done = distkv(name, "--help")
    assert done.returncode == 0, done.stderr
    assert "Usage:" in done.stdout


def test_an_unknown_command_is_wrong_usage() -> None:
    done = distkv("frobnicate")
    assert done.returncode == 2
    assert "No such command" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_valid_file_is_said_to_be_valid(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text("[limits]\npipeline_max = 3\n")
    done = distkv("config", "validate", str(path))
    assert (done.returncode, done.stderr) == (0, "")
    assert "valid" in done.stdout


def test_a_wrong_file_is_refused_with_every_reason(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text("[limits]\npipelin_max = 3\n")
    done = distkv(
        "config", "validate", str(path), "--role", "gateway", DISTKV_LIMITS__SCAN_COUNT_MAX="many"
    )
    assert done.returncode == 2
    assert f"file {path}, key limits.pipelin_max" in done.stderr
    assert "did you mean limits.pipeline_max?" in done.stderr
    assert "environment variable DISTKV_LIMITS__SCAN_COUNT_MAX" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("role", ["node", "gateway"])
def test_a_process_does_not_start_on_a_wrong_configuration(role: str) -> None:
    done = distkv(role, "--set", "limits.pipeline_max=0")
    assert done.returncode == 2
    assert "limits.pipeline_max (flag --set limits.pipeline_max)" in done.stderr


def test_explain_is_there_for_programs() -> None:
    done = distkv("config", "explain", "--json")
    fields = {entry["field"]: entry for entry in json.loads(done.stdout)}
    assert fields["dispersal.inline_max"]["default"] == 4096
    assert fields["dispersal.inline_max"]["variable"] == "DISTKV_DISPERSAL__INLINE_MAX"
    assert distkv("config", "explain", "nothing").returncode == 2


def test_explain_takes_the_name_that_a_message_gives() -> None:
    done = distkv("config", "explain", "limits.key_bytes_max", "--json")
    assert [entry["field"] for entry in json.loads(done.stdout)] == ["limits.key_bytes_max"]
    done = distkv("config", "explain", "limits.key_bytes")
    assert done.returncode == 2
    assert "there is no field 'limits.key_bytes': limits.key_bytes_max, " in done.stderr


@pytest.mark.parametrize("command", ["status", "down", "kill", "start", "wipe"])
def test_local_commands_without_a_cluster_say_how_to_start_one(
    tmp_path: Path, command: str
) -> None:
    ordinal = ["0"] if command in ("kill", "start", "wipe") else []
    done = distkv("local", command, *ordinal, "--dir", str(tmp_path))
    assert done.returncode == 1
    assert f"distkv local up --dir {tmp_path}" in done.stderr


def test_wrong_manifests_are_wrong_usage(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("kind: DistKVCluster\nspec: {dataShard: 3}\n")
    done = distkv("local", "up", "-f", str(path), "--dir", str(tmp_path / "d"))
    assert done.returncode == 2
    assert "did you mean dataShards?" in done.stderr
    assert not (tmp_path / "d").exists()


def test_a_signal_that_is_none_is_wrong_usage(tmp_path: Path) -> None:
    done = distkv("local", "kill", "0", "--signal", "SIGFOO", "--dir", str(tmp_path))
    assert done.returncode == 2
    assert "SIGFOO" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("get", ""), "KEY"),
        (("set", "", "x"), "KEY"),
        (("set", "a", "b", "--if-absent", "--if-version", "1"), "--if-version"),
        (("set", "a", "b", "--if-version", "x"), "--if-version"),
        (("delete", "a", "--if-version", '"1"'), "--if-version"),
        (("get", "a", "--server", "http://127.0.0.1:99999"), "--server"),
        (("get", "a", "--server", "https://127.0.0.1:1"), "--server"),
        (("scan", "--server", "http://127.0.0.1:1/v1"), "--server"),
        (("import", ".", "--server", "ftp://x", "--listing", "/dev/null"), "--server"),
        (("import", ".", "--patience", "-1"), "--patience"),
    ],
)
def test_wrong_arguments_are_named(arguments: tuple[str, ...], named: str, tmp_path: Path) -> None:
    done = distkv("kv", *arguments, where=tmp_path)
    assert done.returncode == 2, done.stderr
    assert named in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("local", "up", "--dir", "/proc/nothing/here"),
        ("kv", "import", ".", "--listing", "/proc/nothing/here"),
    ],
)
def test_a_file_that_cannot_be_written_is_named(arguments: tuple[str, ...], tmp_path: Path) -> None:
    if arguments[0] == "local":  # somebody else's cluster may run on this machine
        arguments += ("--port-base", str(free_base(PortPlan(30000, 5))))
    done = distkv(*arguments, where=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "/proc/nothing" in done.stderr
    assert "No such file or directory" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--seeds", "0"), "--seeds"),
        (("--jobs", "0"), "--jobs"),
        (("--clients", "0", "--seed", "1"), "--clients"),
        (("--geometry", "9+9", "--seed", "1"), "at most 12 nodes"),
        (("--duration", "-1", "--seed", "1"), "--duration"),
        (("--trace",), "--seed"),
    ],
)
def test_a_simulation_that_cannot_be_run_is_wrong_usage_and_breaks_no_promise(
    arguments: tuple[str, ...], named: str
) -> None:
    done = distkv("simulate", *arguments)
    assert done.returncode == 2, done.stdout
    assert named in done.stderr.splitlines()[-1]


def test_a_local_cluster_that_can_never_be_is_wrong_usage(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(
        "apiVersion: distkv.io/v1alpha1\nkind: DistKVCluster\nmetadata: {name: a}\n"
        "spec: {dataShards: 3, parityShards: 2}\n"
    )
    for arguments in (("-f", str(path), "--data-shards", "3"), ("--port-base", "65500")):
        done = distkv("local", "up", *arguments, "--dir", str(tmp_path / "d"))
        assert done.returncode == 2
        assert arguments[-2] in done.stderr
        assert not (tmp_path / "d").exists()


def test_bench_names_its_options() -> None:
    for option, value in (("--resp", "nowhere"), ("--size", "many"), ("--size", "1 TiB")):
        done = distkv("bench", option, value)
        assert done.returncode == 2
        assert f"{option} {value}" in done.stderr
    done = distkv("bench", "--resp", "127.0.0.1:1")
    assert done.returncode == 7
    assert "(--resp)" in done.stderr


@pytest.mark.parametrize("arguments", [("get", "a"), ("set", "a", "b"), ("delete", "a"), ("scan",)])
def test_no_server_is_an_exit_code_of_its_own(arguments: tuple[str, ...]) -> None:
    done = distkv("kv", *arguments, "--server", "http://127.0.0.1:1")
    assert done.returncode == 7
    assert "no answer from 127.0.0.1:1" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_address_is_wrong_usage() -> None:
    done = distkv("kv", "get", "a", "--server", "ftp://x")
    assert done.returncode == 2
    assert "http://host:port" in done.stderr


def test_every_admin_command_is_listed_and_explains_itself() -> None:
    listed = distkv("admin", "--help").stdout
    assert admin.COMMANDS
    for name in admin.COMMANDS:
        assert name in listed
        done = distkv("admin", name, "--help")
        assert done.returncode == 0, done.stderr
        # What works offline, on the directories of stopped nodes, asks nobody.
        assert ("--survivor" if name == "recover" else "--token-file") in done.stdout


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        ((), "--admin HOST:PORT"),
        (("--admin", "127.0.0.1:1"), "--token-file FILE"),
        (("--admin", "127.0.0.1", "--token-file", "token"), "host:port"),
        (("--admin", "127.0.0.1:1", "--token-file", "absent"), "absent"),
        (("--admin", "127.0.0.1:1", "--dir", "x"), "not both"),
    ],
)
def test_admin_commands_say_which_option_is_missing(
    tmp_path: Path, arguments: tuple[str, ...], remedy: str
) -> None:
    (tmp_path / "token").write_text("secret")
    done = distkv("admin", "replace", "1", *arguments, where=tmp_path)
    assert done.returncode == 2, done.stderr
    assert remedy in done.stderr
    assert "Traceback" not in done.stderr
