"""`distkv config explain`: every field with its type, default, bounds and meaning."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from distkv.config.loading import variable
from distkv.config.schema import Config
from distkv.config.units import Address


class Explanation(NamedTuple):
    """One field, for people and programs."""

    field: str
    variable: str
    type: str
    default: object
    bounds: str
    description: str


def section_models() -> Iterator[tuple[str, type[BaseModel], str]]:
    """(name, model, what it is for) of every section."""
    for name, info in sorted(Config.model_fields.items()):
        model = info.annotation
        assert isinstance(model, type)
        assert issubclass(model, BaseModel)
        yield name, model, (model.__doc__ or "").strip()


def explain() -> list[Explanation]:
    """All fields, by section."""
    found = []
    for section, model, _ in section_models():
        for name, info in model.model_fields.items():
            field = f"{section}.{name}"
            found.append(
                Explanation(
                    field,
                    variable(field),
                    _type_name(info),
                    _plain(info.default),
                    _bounds(info),
                    info.description or "",
                )
            )
    return found


def _plain(value: object) -> object:
    if isinstance(value, Address):
        return str(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def _type_name(info: FieldInfo) -> str:
    for item in info.metadata:
        name = getattr(getattr(item, "func", None), "__name__", "")
        known = {
            "parse_size": "size in bytes",
            "parse_seconds": "seconds",
            "parse_address": "host:port",
            "_split": "list",
        }.get(name)
        if known:
            return known
    annotation: Any = info.annotation
    choices = getattr(annotation, "__args__", None)
    if choices and all(isinstance(choice, str) for choice in choices):
        return " or ".join(choices)
    if choices and type(None) in choices:
        annotation = next(choice for choice in choices if choice is not type(None))
    names = {int: "whole number", str: "text", bool: "true or false", float: "number"}
    return names.get(annotation, str(annotation))


def _bounds(info: FieldInfo) -> str:
    words = []
    for attribute, word in (
        ("ge", "at least"),
        ("gt", "above"),
        ("le", "at most"),
        ("lt", "below"),
    ):
        for item in info.metadata:
            limit = getattr(item, attribute, None)
            if limit is not None:
                words.append(f"{word} {limit}")
    return ", ".join(words)
