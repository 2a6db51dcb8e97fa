"""Durations on the command line."""

from __future__ import annotations

import re

from ..errors import SphinxError

_UNIT_S = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}


def optional_duration(text: str | None, option: str) -> float | None:
    """Return what `parse_duration` does, or None where the option was not given."""
    return None if text is None else parse_duration(text, option)


def parse_duration(text: str, option: str) -> float:
    """Return the seconds of ``"30s"``, ``"2m"``, ``"1.5h"``, ``"500ms"``, or of a number of seconds.

    Raises
    ------
    SphinxError
        If the text has another form.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?|\.\d+)\s*(ms|s|m|h|)\s*", text)
    if match is None:
        raise SphinxError(f"Expected {option} as a duration such as '30s', '2m' or '0'; got {text!r}.")
    return float(match[1]) * _UNIT_S[match[2]]
