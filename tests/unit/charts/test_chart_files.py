"""What of the charts is generated from the resource's definition and from comments."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
CHARTS = ROOT / "charts"
NAMES = ("distkv-operator", "distkv-cluster")


@pytest.fixture
def chart_files(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "hack"))
    return importlib.import_module("chart_files")


def values_of(chart: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((CHARTS / chart / "values.yaml").read_text())
    return found


def schema_of(chart: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((CHARTS / chart / "values.schema.json").read_text())
    return found


def unknown(values: Any, schema: dict[str, Any], path: str = "") -> Iterator[str]:
    """Values that the schema does not know, and parts of it that would take anything."""
    if isinstance(values, dict) and "properties" in schema:
        assert schema["additionalProperties"] is False, path
        for name, value in values.items():
            if name not in schema["properties"]:
                yield f"{path}.{name}"
            else:
                yield from unknown(value, schema["properties"][name], f"{path}.{name}")


@pytest.mark.parametrize("chart", NAMES)
def test_the_schema_knows_every_value_and_no_other(chart: str) -> None:
    values, schema = values_of(chart), schema_of(chart)
    assert list(unknown(values, schema)) == []
    assert set(schema["properties"]) - {"global"} == set(values)


@pytest.mark.parametrize("chart", NAMES)
def test_every_value_is_in_the_readme(chart: str) -> None:
    text = (CHARTS / chart / "README.md").read_text()
    rows = re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE)
    assert len(rows) == len(set(rows))
    tops = {row.split(".")[0] for row in rows}
    assert tops == set(values_of(chart))


def test_charts_have_the_version_of_the_project() -> None:
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    for chart in NAMES:
        found = yaml.safe_load((CHARTS / chart / "Chart.yaml").read_text())
        assert (found["version"], found["appVersion"]) == (version[1], version[1])


def test_a_comment_is_about_the_value_right_below_it(chart_files: Any) -> None:
    text = "# Not about anything.\n\na: 1\n# About b,\n# in two lines.\nb:\n  # Of c.\n  c: x\n"
    found = [tuple(row) for row in chart_files.table(text)]
    assert found == [
        ("b", '`{"c": "x"}`', "About b, in two lines."),
        ("b.c", '`"x"`', "Of c."),
    ]


def test_kubernetes_schemas_become_json_schemas(chart_files: Any) -> None:
    size = {"x-kubernetes-int-or-string": True, "anyOf": [{}, {}], "pattern": "^[0-9]+$"}
    rule = {"rule": "self >= 1", "message": "more"}
    count = {"type": "integer", "format": "int32", "x-kubernetes-validations": [rule]}
    found = chart_files.json_schema(
        {"type": "object", "default": {}, "properties": {"size": size, "count": count}}
    )
    assert found["additionalProperties"] is False
    assert found["properties"]["count"] == {"type": ["integer", "null"], "minimum": 1}
    assert found["properties"]["size"]["type"] == ["integer", "number", "string", "null"]
    assert "default" not in found
