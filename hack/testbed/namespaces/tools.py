"""The Kubernetes tools: built once from pinned Go modules, kept in the cache, found by content.

The key of the cache is a digest of everything that goes into the build: the module's requirements
and checksums, its few lines of source, the compiler's version and flags. Go itself verifies each
module against go.sum.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from testbed.errors import LabError
from testbed.locks import exclusive
from testbed.paths import PACKAGE, cache_root
from testbed.progress import Progress
from testbed.run import run

MODULE = PACKAGE / "tools"
TARGETS = ("./cmd/...", "helm.sh/helm/v3/cmd/helm")
BINARIES = ("kubebox", "kubectl", "coredns", "helm", "pause", "relay", "admit", "probe")
TAGS = "providerless"  # leaves out what talks to clouds
REPORT_EVERY = 30.0


@dataclass(frozen=True)
class Tools:
    """A folder with every binary, and the version of Kubernetes that they are."""

    folder: Path
    key: str
    kubernetes: str

    def __getitem__(self, name: str) -> Path:
        return self.folder / name


def kubernetes_version(go_mod: str) -> str:
    found = re.search(r"^\s*k8s\.io/kubernetes (v\S+)", go_mod, re.MULTILINE)
    if not found:
        raise LabError("go.mod requires no k8s.io/kubernetes", f"restore {MODULE}/go.mod")
    return found.group(1)


def required_go(go_mod: str) -> tuple[int, ...]:
    found = re.search(r"^go (\d+(?:\.\d+)+)", go_mod, re.MULTILINE)
    if not found:
        raise LabError("go.mod names no Go version", f"restore {MODULE}/go.mod")
    return tuple(int(part) for part in found.group(1).split("."))


def linker_flags(version: str) -> str:
    """Without these the daemons say they are version 0.0.0, which kubectl and kubeadm distrust."""
    major, minor = version.removeprefix("v").split(".")[:2]
    package = "k8s.io/component-base/version"
    values = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
    return " ".join(["-s", "-w", *(f"-X {package}.{k}={v}" for k, v in values.items())])


def source_files() -> list[Path]:
    return [MODULE / "go.mod", MODULE / "go.sum", *sorted(MODULE.glob("cmd/*/*.go"))]


def lock_key(compiler: str) -> str:
    digest = hashlib.sha256()
    version = kubernetes_version((MODULE / "go.mod").read_text())
    for text in (compiler, TAGS, linker_flags(version), *TARGETS):
        digest.update(text.encode() + b"\0")
    for path in source_files():
        digest.update(str(path.relative_to(MODULE)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:20]


def find_go() -> tuple[Path, str]:
    """The newest Go on this machine that is new enough, and what it says its version is."""
    wanted = required_go((MODULE / "go.mod").read_text())
    name = ".".join(map(str, wanted))
    candidates = [Path(found)] if (found := shutil.which("go")) else []
    candidates += [Path("/usr/local/go/bin/go"), *sorted(Path("/usr/lib").glob("go-*/bin/go"))]
    seen = {}
    for path in candidates:
        if path.exists():
            said = run([path, "env", "GOVERSION"], env={**os.environ, "GOTOOLCHAIN": "local"})
            version = said.stdout.strip().removeprefix("go")
            seen[path] = version
            numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:3])
            if numbers >= wanted:
                return path, version
    there = ", ".join(f"{path} is {version}" for path, version in seen.items()) or "none found"
    raise LabError(
        f"building the Kubernetes tools needs Go {name} or newer ({there})",
        f"install Go {name}, or put its bin folder on PATH; --provider kind needs no Go",
    )


def ensure_tools(progress: Progress) -> Tools:
    """The tools from the cache, else built: about ten minutes on two cores from an empty cache."""
    go, compiler = find_go()
    version = kubernetes_version((MODULE / "go.mod").read_text())
    key = lock_key(compiler)
    tools = Tools(cache_root() / "tools" / key, key, version)
    with exclusive(cache_root() / "tools.lock"):
        if tools.folder.exists():
            return tools
        progress.step(f"building Kubernetes {version} with Go {compiler} into {tools.folder}")
        tools.folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=tools.folder.parent) as scratch:
            _build(go, linker_flags(version), Path(scratch) / "bin", progress)
            os.rename(Path(scratch) / "bin", tools.folder)
    progress.step("tools built")
    return tools


def _build(go: Path, flags: str, target: Path, progress: Progress) -> None:
    settings = {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off", "GOFLAGS": ""}
    environment = {**os.environ, **settings}
    common = ["-mod=readonly", "-tags", TAGS]
    listing = run([go, "list", *common, "-deps", *TARGETS], cwd=MODULE, env=environment)
    total = len(set(listing.stdout.split()))
    progress.step(f"modules are there, checksums hold; compiling at most {total} packages")
    target.mkdir()
    command = [str(go), "build", *common, "-v", "-buildvcs=false", "-trimpath"]
    command += ["-ldflags", flags, "-o", f"{target}/", *TARGETS]
    said: list[str] = []
    reported = time.monotonic()
    with subprocess.Popen(
        command, cwd=MODULE, env=environment, stderr=subprocess.PIPE, text=True
    ) as build:
        assert build.stderr is not None
        for line in build.stderr:
            said.append(line)
            if time.monotonic() - reported > REPORT_EVERY:
                reported = time.monotonic()
                progress.step(f"compiled {len(said)} packages of at most {total}")
    if build.returncode != 0:
        raise LabError(f"go build failed:\n{''.join(said[-30:])}")
    absent = [name for name in BINARIES if not (target / name).exists()]
    if absent:
        raise LabError(f"go build made no {', '.join(absent)}", f"look into {MODULE}")
