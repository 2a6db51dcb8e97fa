"""What a costing asks of whatever predicts the times that nobody measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ...platform import Device
from .kernel_costs import Implementation


class Predictor(Protocol):
    """Predicts what implementations take; `tvm_sphinx.cost.model.predictor` has the one that learns."""

    def can_predict(self, device: Device) -> bool:
        """Return whether it knows kernels that are compiled for such a device."""

    def predict(self, implementations: Sequence[Implementation]) -> Sequence[tuple[int, int]]:
        """Return time and spread in ns of each, on its own device; all have a PrimFunc.

        Of one that calls TVM's runtime (`tvm_sphinx.kernels.hides_work`), which does work that cannot
        be seen in it, the least time, and a spread as large.
        """
