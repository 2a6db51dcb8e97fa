"""A platform as the TOML text that `read_platform` takes."""

from __future__ import annotations

import json
from typing import Any

from .platform import Platform


def platform_text(platform: Platform) -> str:
    """Return a platform file's text; reading it gives an equal platform."""
    content = platform.to_json()
    lines = [f"host = {_value(content['host'])}"]
    for table in ("device", "link"):
        for entry in content[table]:
            lines += ["", f"[[{table}]]", *(f"{key} = {_value(entry[key])}" for key in entry)]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    """Return a value in TOML, whose strings, numbers and lists are written as JSON's."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {_value(v)}" for key, v in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_value, value)) + "]"
    return json.dumps(value)
