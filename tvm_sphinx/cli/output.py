"""What commands print: colours on a terminal that wants them, and JSON for machines."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Any, TextIO

_CODES = {"bold": "1", "green": "32", "yellow": "33", "dim": "2"}


def is_coloured(stream: TextIO) -> bool:
    """Return whether a stream is a terminal that shows colours and nobody forbids them.

    See https://no-color.org: a ``NO_COLOR`` that is not empty turns them off.
    """
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def style(text: str, name: str, stream: TextIO | None = None) -> str:
    """Return a text in bold, green, yellow or dim, where the stream (by default stdout) shows it."""
    if not is_coloured(stream or sys.stdout):
        return text
    return f"\033[{_CODES[name]}m{text}\033[0m"


def add_json_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--json``."""
    parser.add_argument("--json", action="store_true", help="print one JSON object in place of text")


def print_json(content: Any) -> None:
    """Print one JSON object; what is no number in JSON is null."""
    print(json.dumps(_finite(content), indent=1, allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not abs(value) < float("inf"):
        return None
    return value
