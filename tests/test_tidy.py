"""The shape of the repository: sizes, layers' small print, pins."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
MODULE_LINES_MAX = 500
MODULE_LINES_MEDIAN = 200
FUNCTION_LINES_MAX = 70
SANS_IO = ("core", "machine", "coding", "data", "wire", "member")
SANS_IO_MODULES = ("ids", "errors", "kernel", "operations")
BANNED = {
    *("asyncio", "socket", "time", "os", "threading", "selectors", "ssl", "subprocess"),
    *("concurrent", "uvloop", "logging", "secrets", "uuid", "datetime"),
}


def tracked() -> list[Path]:
    """Files of the project: what git knows or would add; in an export, every file."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode == 0:
        return [
            path for name in done.stdout.split("\0") if name and (path := ROOT / name).is_file()
        ]
    skipped = {".venv", ".cache", ".git"}
    return [
        path
        for path in ROOT.rglob("*")
        if path.is_file() and not skipped & set(path.relative_to(ROOT).parts)
    ]


FILES = tracked()
PRODUCTION = [
    path
    for path in FILES
    if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in ("node", "operator")
]
PYTHON = [path for path in FILES if path.suffix == ".py"]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def sans_io() -> list[Path]:
    package = ROOT / "node" / "distkv"
    found = [package / f"{name}.py" for name in SANS_IO_MODULES]
    for name in SANS_IO:
        found += [path for path in PRODUCTION if (package / name) in path.parents]
    return found


@pytest.mark.parametrize("path", PYTHON, ids=name_of)
def test_modules_and_functions_are_small(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= MODULE_LINES_MAX, "split it: one idea each"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            assert lines <= FUNCTION_LINES_MAX, f"{node.name} has {lines} lines"


def test_the_median_module_is_small() -> None:
    sizes = sorted(len(path.read_text().splitlines()) for path in PRODUCTION)
    assert sizes[len(sizes) // 2] < MODULE_LINES_MEDIAN


@pytest.mark.parametrize("path", PRODUCTION, ids=name_of)
def test_every_module_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text())), "a module docstring is missing"


def imported(tree: ast.Module) -> Iterator[str]:
    """Top-level names of absolute imports, wherever they stand."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


@pytest.mark.parametrize("path", sans_io(), ids=name_of)
def test_sans_io_packages_do_no_io(path: Path) -> None:
    tree = ast.parse(path.read_text())
    banned = sorted(set(imported(tree)) & BANNED)
    assert not banned, f"imports {banned}"
    for node in ast.walk(tree):
        assert not (isinstance(node, ast.Call) and getattr(node.func, "id", "") == "open"), "open()"
        if isinstance(node, ast.ImportFrom) and node.module == "random":
            assert [alias.name for alias in node.names] == ["Random"]
        if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "random":
            assert node.attr == "Random", "randomness is a generator passed in"
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in ("random.Random", "Random"), "the generator is passed in"


@pytest.mark.parametrize("directory", ["node", "operator"])
def test_no_package_shadows_the_standard_library(directory: str) -> None:
    assert not (ROOT / directory / "__init__.py").exists()


def test_every_package_directory_has_an_init_with_a_docstring() -> None:
    for directory in {path.parent for path in PRODUCTION}:
        init = directory / "__init__.py"
        assert init.exists(), f"{directory} has no __init__.py"
        assert ast.get_docstring(ast.parse(init.read_text())), f"{init} has no docstring"


ADDRESS = re.compile(r"https?://", re.IGNORECASE)
PINS = re.compile(r"(^|/)(constraints[^/]*|requirements[^/]*|[^/]*\.lock|pip\.conf|\.npmrc)$")
REGISTRY = re.compile(
    r"(pypi\.org|pythonhosted\.org|index[-_]url\s*=|--index-url|--extra-index-url|proxy\.golang\.org"
    r"|registry\.npmjs\.org)",
    re.IGNORECASE,
)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_address_of_a_registry_and_no_path_of_a_machine(path: Path) -> None:
    if path == Path(__file__).resolve():
        return
    try:
        text = path.read_text()
    except UnicodeDecodeError:
        return
    if PINS.search(name_of(path)):
        assert not ADDRESS.search(text), "pins hold names, versions and hashes only"
    if path.name != "go.sum":
        found = REGISTRY.search(text)
        assert not found, f"names a registry: {found and found[0]}"
    assert not re.search(r"(^|[^\w.-])/(root|home/\w+)/", text), "a path of one machine"


def pins() -> dict[str, str]:
    """name -> version of constraints.txt."""
    found = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if not line.startswith((" ", "#")) and line:
            name, separator, version = line.rstrip(" \\").partition("==")
            assert separator, f"not pinned: {line}"
            found[canonicalize_name(name)] = version
    return found


def wanted() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = project["dependencies"] + project["optional-dependencies"]["test"]
    return [Requirement(line) for line in lines]


def test_the_constraints_meet_what_the_project_asks_for() -> None:
    known = pins()
    for requirement in wanted():
        name = canonicalize_name(requirement.name)
        assert name in known, f"{name} is not in constraints.txt: run hack/lock"
        assert known[name] in requirement.specifier, f"{name}: run hack/lock"


def test_the_constraints_hold_nothing_else() -> None:
    known = pins()
    needed: set[str] = set()
    queue = [(canonicalize_name(r.name), frozenset(r.extras)) for r in wanted()]
    seen = set(queue)
    while queue:
        name, extras = queue.pop()
        needed.add(name)
        try:
            lines = requires(name) or []
        except PackageNotFoundError:
            continue
        for line in lines:
            requirement = Requirement(line)
            marker = requirement.marker
            if marker and not any(marker.evaluate({"extra": e}) for e in (extras or {""})):
                continue
            entry = (canonicalize_name(requirement.name), frozenset(requirement.extras))
            if entry not in seen:
                seen.add(entry)
                queue.append(entry)
    assert set(known) - needed == set(), "not needed: run hack/lock"
    assert needed - set(known) <= {"pip", "setuptools"}, "missing: run hack/lock"


def test_every_pin_has_a_hash() -> None:
    blocks = re.split(r"\n(?=\S)", (ROOT / "constraints.txt").read_text().strip())
    for block in blocks:
        assert "--hash=sha256:" in block, block.splitlines()[0]
