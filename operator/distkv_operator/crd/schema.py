"""From pydantic models to a structural schema, as the API server takes it.

Everything is inlined (no `$ref`), an optional field is one that is not required (no `anyOf` with
null), and every text, list and map has a bound, because the API server prices rules by the
largest object that it could be sent.

Sizes and durations are text in a manifest; their bounds are rules, for `minimum` knows numbers
only. Configuration sections get no defaults: they stand in the descriptions instead, so that
what a resource holds is what its user set, and a new release may choose better.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable
from typing import Any, NamedTuple

import annotated_types
from pydantic import BaseModel, BeforeValidator, WithJsonSchema
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from distkv.config.sections import Section
from distkv.config.units import parse_seconds, parse_size
from distkv.manifest.parts import KEY_PATTERN
from distkv.manifest.status import Condition, LayoutMember, MemberStatus
from distkv_operator.crd.units import (
    DURATION_LENGTH_MAX,
    DURATION_PATTERN,
    SIZE_PATTERN,
    duration_text,
    size_text,
)

Schema = dict[str, Any]
Rules = dict[tuple[str, ...], list[Schema]]
INT32_MAX = 2**31 - 1
MAP_KEYS: dict[Any, list[str]] = {
    Condition: ["type"],
    MemberStatus: ["ordinal"],
    LayoutMember: ["ordinal"],
}
"""Lists whose items are told apart by a field: what is applied is merged item by item."""


KEY_RULE = {
    "rule": f"self.all(key, size(key) <= 317 && key.matches('{KEY_PATTERN}'))",
    "message": "keys must look like example.org/name: letters, digits, hyphens, dots, underscores",
}
"""The API server has no pattern for keys."""


class Bounds(NamedTuple):
    """Of a number: inclusive, None where there is none."""

    least: float | None
    most: float | None


def object_schema(model: type[BaseModel], rules: Rules, path: tuple[str, ...] = ()) -> Schema:
    """Of a model. `rules`: by path of field names; those used are taken out of it."""
    properties: Schema = {}
    required = []
    for name, info in model.model_fields.items():
        key = info.alias or name
        properties[key] = _field(info, model, rules, (*path, key))
        if info.is_required():
            required.append(key)
    schema: Schema = {"type": "object", "properties": properties}
    if required:
        schema["required"] = required
    return schema


def _field(info: FieldInfo, model: type[BaseModel], rules: Rules, path: tuple[str, ...]) -> Schema:
    schema = _convert(info.annotation, info.metadata, rules, path)
    described = info.description or schema.get("description", "")
    assert described, f"{'.'.join(path)} has no description"
    default = _default(info, schema)
    notes = [described, _range_note(info)]
    if issubclass(model, Section) and default is not None:
        notes.append(f"Default: {default}.")
        default = None
    found: Schema = {"description": " ".join(note for note in notes if note)}
    if default is not None:
        found["default"] = default
    if isinstance(info.json_schema_extra, dict):
        schema.update(info.json_schema_extra)
    own = rules.pop(path, [])
    if any("minimum" in rule for rule in own):
        schema.pop("minimum", None)
    validations = [
        {k: v for k, v in rule.items() if k != "minimum"}
        for rule in (*schema.pop("x-kubernetes-validations", ()), *own)
    ]
    if validations:
        found["x-kubernetes-validations"] = validations
    return {**{k: v for k, v in schema.items() if k != "description"}, **found}


def _convert(
    annotation: Any, metadata: Iterable[Any], rules: Rules, path: tuple[str, ...]
) -> Schema:
    flat = list(_flatten(metadata))
    origin = typing.get_origin(annotation)
    arguments = typing.get_args(annotation)
    if origin is typing.Annotated:
        return _convert(arguments[0], [*arguments[1:], *flat], rules, path)
    if origin in (typing.Union, types.UnionType):
        chosen = [a for a in arguments if a is not type(None)]
        assert len(chosen) == 1, f"{path}: a union is not structural"
        return _convert(chosen[0], flat, rules, path)
    if origin is typing.Literal:
        return {"type": "string", "enum": list(arguments)}
    if origin is dict:
        values = _convert(arguments[1], [], rules, (*path, "*"))
        most = _length(flat)[1]
        assert most, f"{path}: no bound"
        found: Schema = {"type": "object", "additionalProperties": values, "maxProperties": most}
        if _pattern(_flatten(typing.get_args(arguments[0])[1:])) == KEY_PATTERN:
            found["x-kubernetes-validations"] = [KEY_RULE]
        return found
    if origin in (list, tuple):
        return _list(arguments[0], flat, rules, path)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        schema = object_schema(annotation, rules, path)
        return {"description": " ".join((annotation.__doc__ or "").split()), **schema}
    return _scalar(annotation, flat, path)


def _list(item: Any, metadata: list[Any], rules: Rules, path: tuple[str, ...]) -> Schema:
    most = _length(metadata)[1]
    assert most, f"{path}: no bound"
    items = _convert(item, [], rules, (*path, "*"))
    items.pop("description", None)
    own = rules.pop((*path, "*"), None)
    if own:
        items["x-kubernetes-validations"] = own
    schema: Schema = {"type": "array", "items": items, "maxItems": most}
    if item in MAP_KEYS:
        schema["x-kubernetes-list-type"] = "map"
        schema["x-kubernetes-list-map-keys"] = MAP_KEYS[item]
    else:
        schema["x-kubernetes-list-type"] = "set" if items["type"] == "string" else "atomic"
    return schema


def _scalar(annotation: Any, metadata: list[Any], path: tuple[str, ...]) -> Schema:
    bounds = _bounds(metadata)
    parsers = [m.func for m in metadata if isinstance(m, BeforeValidator)]
    if parse_seconds in parsers:
        return _duration(bounds)
    if parse_size in parsers:
        return _size(bounds, SIZE_PATTERN)
    pattern = _pattern(metadata)
    if any(isinstance(m, WithJsonSchema) for m in metadata):  # amounts of Kubernetes
        return _size(Bounds(None, None), pattern or SIZE_PATTERN)
    if annotation is bool:
        return {"type": "boolean"}
    if annotation is int:
        return _integer(bounds)
    assert annotation is str, f"{path}: {annotation} has no schema"
    least, most = _length(metadata)
    assert most, f"{path}: no bound"
    schema: Schema = {"type": "string", "maxLength": most}
    if least:
        schema["minLength"] = least
    if pattern:
        schema["pattern"] = pattern
    return schema


def _pattern(metadata: Iterable[Any]) -> str | None:
    return next((m.pattern for m in metadata if getattr(m, "pattern", None)), None)


def _integer(bounds: Bounds) -> Schema:
    wide = bounds.most is None or bounds.most > INT32_MAX
    schema: Schema = {"type": "integer", "format": "int64" if wide else "int32"}
    if bounds.least is not None:
        schema["minimum"] = int(bounds.least)
    if bounds.most is not None:
        schema["maximum"] = int(bounds.most)
    return schema


def _size(bounds: Bounds, pattern: str) -> Schema:
    value = "quantity(string(self))"
    tests = []
    if bounds.least:
        tests.append(f"{value}.compareTo(quantity('{size_text(int(bounds.least))}')) >= 0")
    if bounds.most is not None:
        tests.append(f"{value}.compareTo(quantity('{size_text(int(bounds.most))}')) <= 0")
    schema: Schema = {
        "x-kubernetes-int-or-string": True,
        "anyOf": [{"type": "integer"}, {"type": "string"}],
        "pattern": pattern,
        "maxLength": 32,
    }
    if tests:
        schema["x-kubernetes-validations"] = [
            {"rule": " && ".join(tests), "message": _bounds_message(bounds, size_text)}
        ]
    return schema


def _duration(bounds: Bounds) -> Schema:
    tests = []
    if bounds.least:
        tests.append(f"duration(self) >= duration('{duration_text(bounds.least)}')")
    if bounds.most is not None:
        tests.append(f"duration(self) <= duration('{duration_text(bounds.most)}')")
    schema: Schema = {
        "type": "string",
        "pattern": DURATION_PATTERN,
        "maxLength": DURATION_LENGTH_MAX,
    }
    if tests:
        schema["x-kubernetes-validations"] = [
            {"rule": " && ".join(tests), "message": _bounds_message(bounds, duration_text)}
        ]
    return schema


def _bounds_message(bounds: Bounds, text: Any) -> str:
    least = (
        None
        if not bounds.least
        else text(bounds.least if text is duration_text else int(bounds.least))
    )
    most = (
        None
        if bounds.most is None
        else text(bounds.most if text is duration_text else int(bounds.most))
    )
    if least and most:
        return f"must be from {least} to {most}"
    return f"must be at least {least}" if least else f"must be at most {most}"


def _range_note(info: FieldInfo) -> str:
    """Bounds in words, because `kubectl explain` does not show them."""
    metadata = list(_flatten([*_inner(info.annotation), *info.metadata]))
    bounds = _bounds(metadata)
    parsers = [m.func for m in metadata if isinstance(m, BeforeValidator)]
    if parse_seconds in parsers:
        text = _bounds_message(bounds, duration_text) if any(bounds) else ""
    elif parse_size in parsers:
        text = _bounds_message(bounds, size_text) if any(bounds) else ""
    else:
        return ""
    return f"It {text}." if text else ""


def _inner(annotation: Any) -> list[Any]:
    return (
        list(typing.get_args(annotation)[1:])
        if typing.get_origin(annotation) is typing.Annotated
        else []
    )


def _default(info: FieldInfo, schema: Schema) -> Any:
    value = info.get_default(call_default_factory=True)
    if value is PydanticUndefined or value is None:
        return None
    if isinstance(value, Section):
        return None
    if isinstance(value, BaseModel):
        given = value.model_dump(mode="json", by_alias=True, exclude_unset=True)
        return {**filled(schema), **given} or None
    if isinstance(value, dict | list | tuple):
        return list(value) or None if not isinstance(value, dict) else value or None
    if schema.get("pattern") == DURATION_PATTERN:
        return duration_text(value)
    if "x-kubernetes-int-or-string" in schema and isinstance(value, int):
        return size_text(value)
    return value


def filled(schema: Schema) -> Schema:
    """The defaults of an object's fields, which its own default must repeat: the API server
    judges a default by the rules before it fills it in."""
    return {
        name: part["default"] for name, part in schema["properties"].items() if "default" in part
    }


def _flatten(metadata: Iterable[Any]) -> Iterable[Any]:
    for item in metadata:
        if isinstance(item, FieldInfo):
            yield from _flatten(item.metadata)
        else:
            yield item


def _bounds(metadata: list[Any]) -> Bounds:
    least: float | None = None
    most: float | None = None
    for item in metadata:
        if isinstance(item, annotated_types.Ge):
            least = typing.cast(float, item.ge)
        elif isinstance(item, annotated_types.Le):
            most = typing.cast(float, item.le)
        elif isinstance(item, annotated_types.Lt):
            most = typing.cast(float, item.lt) - 1  # only ever used with whole numbers
        elif isinstance(item, annotated_types.Gt):
            least = typing.cast(float, item.gt) + 1
    return Bounds(least, most)


def _length(metadata: list[Any]) -> tuple[int | None, int | None]:
    least = most = None
    for item in metadata:
        if isinstance(item, annotated_types.MinLen):
            least = item.min_length
        elif isinstance(item, annotated_types.MaxLen):
            most = item.max_length
    return least, most
