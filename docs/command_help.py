"""The help of every subcommand, as a page."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

from tvm_sphinx.cli import COMMANDS, main

_ACTIONS = {"bench": ("kernels",), "records": ("list", "merge", "prune", "export")}


def write_command_help(path: Path) -> None:
    """Write what ``--help`` prints for each command and action."""
    parts = []
    for command in COMMANDS:
        for words in ([command], *([command, action] for action in _ACTIONS.get(command, ()))):
            parts.append(f"## {' '.join(words)}\n\n```text\n{_help(words)}```\n")
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(parts), "utf-8")


def _help(words: list[str]) -> str:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        main([*words, "--help"])
    return printed.getvalue()
