"""What is known of a program's outputs: two questions and their answers, for the report and the file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from .tolerance import OutputCheck, worst


@dataclass(frozen=True)
class Verification:
    """Whether the model is right, and whether the schedule is.

    Parameters
    ----------
    outputs
        Each output beside that of the source framework; empty where it was not verified.
    reason
        Why it was not, else empty.
    runtime, inputs
        What the source was run by, and on which inputs.
    schedule
        Largest difference from the build for one device, as a share of an output's largest value; None
        where there is none, or it is the program itself.
    """

    outputs: tuple[OutputCheck, ...] = ()
    reason: str = ""
    runtime: str = ""
    inputs: str = ""
    schedule: float | None = None

    @property
    def is_verified(self) -> bool:
        """Whether the outputs were compared with the source's."""
        return not self.reason

    @property
    def difference(self) -> float | None:
        """The largest difference of an output, as a share of its largest value; None if not verified."""
        return (
            max((check.difference for check in self.outputs), default=0.0) if not self.reason else None
        )

    @property
    def summary(self) -> str:
        """The answer in a few words."""
        if self.reason:
            return f"not verified: {self.reason}"
        return f"verified: largest difference {self.difference:.1g}"

    def describe(self) -> list[tuple[str, str]]:
        """Return headings and texts for a report."""
        farthest = worst(self.outputs)
        if self.reason:
            model = f"not verified: {self.reason}"
        elif farthest is None:
            model = f"equals {self.runtime}: it has no outputs"
        else:
            model = (
                f"equals {self.runtime} on {self.inputs}: largest difference {self.difference:.2g} of "
                f"an output's largest value (at most {farthest.tolerance:g})"
            )
        rows = [("model", model)]
        if self.schedule is not None:
            told = f"equals the build for one device: largest difference {self.schedule:.2g}"
            rows.append(("schedule", told))
        return rows

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-serialisable form."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Verification:
        """Rebuild it from `to_json`."""
        outputs = tuple(OutputCheck(**check) for check in content["outputs"])
        return cls(**{**content, "outputs": outputs})
