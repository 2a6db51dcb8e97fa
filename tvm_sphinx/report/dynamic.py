"""What a report tells of the part of a model that depends on shapes that are known only at run time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from textwrap import shorten
from typing import Any

from .text import format_ns

_MOST_NAMED = 6  # operators that a sentence names
_WIDTH = 60  # of each


@dataclass(frozen=True)
class DynamicReport:
    """The dynamic part of a model, which runs after its schedule, by TVM's virtual machine.

    Parameters
    ----------
    operators
        As the source calls them, the one that it begins with first.
    reason
        Why that one is no task: the rest of a sentence that begins with it.
    device
        The CPU device that it is built for.
    median_ns
        What it took on drawn inputs, the median of some runs; None if it did not run on them.
    not_timed
        Why it did not, else empty.
    """

    operators: tuple[str, ...]
    reason: str
    device: str
    median_ns: int | None = None
    not_timed: str = ""

    @property
    def added_ns(self) -> int:
        """What it adds to the time of any schedule; 0 if that is not known."""
        return self.median_ns or 0

    def describe(self) -> str:
        """Return a sentence on it."""
        count = len(self.operators)
        named = [shorten(text, _WIDTH, placeholder=" ...") for text in self.operators[:_MOST_NAMED]]
        shown = ", ".join(named) + (", ..." if count > _MOST_NAMED else "")
        if self.median_ns is None:
            took = f"its time is not known and not counted ({self.not_timed.rstrip('.') or 'not run'})"
        else:
            took = f"it took {format_ns(self.median_ns)} on drawn inputs, which is counted"
        first = named[0] if named else "one of its operators"
        return (
            f"{count} operator{' runs' if count == 1 else 's run'} after the schedule as one part "
            f"({shown}), on {self.device!r} by TVM's virtual machine, where a trace ends: {first} "
            f"{self.reason}; {took}."
        )

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-serialisable form."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> DynamicReport:
        """Rebuild it from `to_json`."""
        return cls(**{**content, "operators": tuple(content["operators"])})
