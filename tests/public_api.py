"""What users may rely on, as text: run it after a change that is meant, and look at the difference.

python -m tests.public_api > tests/data/public_api.txt
"""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from typing import Any

from tvm_sphinx.cli import COMMANDS, make_parser

_DOCUMENT = Path(__file__).parent.parent / "docs" / "api.md"


def documented_names() -> list[str]:
    """Return the full names of all functions and classes of the API reference."""
    names, module = [], ""
    for line in _DOCUMENT.read_text("utf-8").splitlines():
        if found := re.match(r"\.\. (currentmodule|autofunction|autoclass):: (\S+)", line):
            if found[1] == "currentmodule":
                module = found[2]
            else:
                names.append(found[2] if "." in found[2] else f"{module}.{found[2]}")
    return names


def resolve(name: str) -> Any:
    """Return what a full name stands for."""
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def describe_api() -> str:
    """Return the names, parameters and defaults of the API, and the options of the command."""
    lines = []
    for name in documented_names():
        found = resolve(name)
        lines.append(f"{name}({', '.join(_parameters(found))})")
        if inspect.isclass(found):
            public = (key for key in vars(found) if not key.startswith("_"))
            lines += [f"  .{key}" for key in sorted(public)]
    for command in COMMANDS:
        lines.append(f"tvm-sphinx {command}")
        lines += [f"  {option}" for option in sorted(_options(command))]
    return "\n".join(lines) + "\n"


def _parameters(found: Any) -> list[str]:
    told = []
    for parameter in inspect.signature(found).parameters.values():
        has_default = parameter.default is not parameter.empty
        told.append(f"{parameter.name}={parameter.default!r}" if has_default else parameter.name)
    return told


def _options(command: str) -> set[str]:
    (subparsers,) = (a for a in make_parser(command)._actions if hasattr(a, "choices") and a.choices)
    found: set[str] = set()
    todo = [subparsers.choices[command]]
    while todo:
        for action in todo.pop()._actions:
            found.update(action.option_strings or [action.dest])
            if isinstance(action.choices, dict):
                todo += action.choices.values()
    return found - {"-h", "--help"}


if __name__ == "__main__":
    print(describe_api(), end="")
