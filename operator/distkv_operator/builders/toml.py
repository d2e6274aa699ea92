"""Writing a configuration file in TOML: sections of plain values."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any


def document(sections: Mapping[str, Mapping[str, Any]], heading: str) -> str:
    """Text of a TOML file; empty sections are left out. `heading`: a comment's lines."""
    return "\n".join(_lines(sections, heading)) + "\n"


def _lines(sections: Mapping[str, Mapping[str, Any]], heading: str) -> Iterator[str]:
    for line in heading.splitlines():
        yield f"# {line}"
    for section, fields in sections.items():
        if fields:
            yield ""
            yield f"[{section}]"
            for field, value in fields.items():
                yield f"{field} = {_value(value)}"


def _value(value: Any) -> str:
    if isinstance(value, list | tuple):
        if len(value) < 2:
            return f"[{', '.join(map(_value, value))}]"
        items = "".join(f"  {_value(item)},\n" for item in value)
        return f"[\n{items}]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    assert isinstance(value, str), value
    # A JSON string is a TOML basic string, but for DEL, which TOML wants escaped too.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
