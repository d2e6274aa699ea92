"""The custom resource definition, as far as it can be judged without an API server."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from distkv_operator.crd import definition

ROOT = Path(__file__).resolve().parents[4]
Schema = dict[str, Any]


def test_generated_files_are_what_would_be_generated_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "hack"))
    generate = importlib.import_module("generate")
    for name, content in generate.files().items():
        assert (ROOT / name).read_text() == content, f"{name}: run hack/generate"


def schemas() -> Iterator[tuple[str, Schema]]:
    (version,) = definition()["spec"]["versions"]
    yield from walk("", version["schema"]["openAPIV3Schema"])


def walk(path: str, schema: Schema) -> Iterator[tuple[str, Schema]]:
    yield path, schema
    for name, part in schema.get("properties", {}).items():
        yield from walk(f"{path}.{name}", part)
    for key in ("items", "additionalProperties"):
        if key in schema:
            yield from walk(f"{path}[]", schema[key])


def test_every_field_is_described() -> None:
    for path, schema in schemas():
        for name, part in schema.get("properties", {}).items():
            if path or name not in ("apiVersion", "kind", "metadata"):
                assert part.get("description"), f"{path}.{name}"


def test_everything_has_a_type_and_a_bound() -> None:
    for path, schema in schemas():
        if path.lstrip(".") in ("apiVersion", "kind"):
            continue
        kind = schema.get("type")
        assert kind or schema.get("x-kubernetes-int-or-string"), path
        if kind == "string" and "enum" not in schema:
            assert "maxLength" in schema, path
        if kind == "array":
            assert "maxItems" in schema, path
        if "additionalProperties" in schema:
            assert "maxProperties" in schema, path
        assert "$ref" not in schema, path


def test_there_is_no_phase_and_the_status_has_no_defaults() -> None:
    for path, schema in schemas():
        assert not path.endswith(".phase")
        if path.startswith(".status"):
            assert "default" not in schema, path


def test_configuration_has_no_defaults_that_a_release_could_not_improve() -> None:
    for path, schema in schemas():
        if path.startswith((".spec.config", ".spec.repair")):
            assert "default" not in schema, path
