"""Where a tensor of a program in two parts comes from."""

from __future__ import annotations

from typing import NamedTuple

#: What a tensor may be: an argument of the whole, or a result of one of its parts.
INPUT, STATIC, DYNAMIC = "input", "static", "dynamic"


class Wire(NamedTuple):
    """A tensor by its source, `INPUT`, `STATIC` or `DYNAMIC`, and its number there."""

    source: str
    number: int
