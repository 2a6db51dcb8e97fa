"""What a costing asks of whatever predicts the times that nobody measured. [TVM]"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ...kernels import hides_work, is_staged
from ...platform import Device
from .kernel_costs import Implementation


class Predictor(Protocol):
    """Predicts what implementations take; `tvm_sphinx.cost.model.predictor` has the one that learns."""

    @property
    def label(self) -> str:
        """What has predicted the times that were asked for, as people are told."""

    def can_predict(self, device: Device) -> bool:
        """Return whether it knows kernels that are compiled for such a device."""

    def predict(self, implementations: Sequence[Implementation]) -> Sequence[tuple[int, int]]:
        """Return time and spread in ns of each, on its own device; all have a PrimFunc.

        Of one that calls TVM's runtime (`tvm_sphinx.kernels.hides_work`), which does work that cannot
        be seen in it, the least time, and a spread as large.
        """


def is_known(predictor: Predictor, rule: Implementation) -> bool:
    """Return whether a predictor tells anything of a kernel: it is a PrimFunc for a device it knows.

    Which of its branches a kernel takes is nothing that it could tell.
    """
    is_hidden = rule.kernel.is_external or is_staged(rule.kernel.function)
    return predictor.can_predict(rule.device) and not is_hidden


def is_bounded(predictor: Predictor, rule: Implementation) -> bool:
    """Return whether a predictor tells no more of a kernel than its least time."""
    return is_known(predictor, rule) and hides_work(rule.kernel.function)


def is_described(predictor: Predictor, rule: Implementation) -> bool:
    """Return whether a predictor tells what a kernel takes, and no mere bound of it."""
    has_code = rule.candidate.function is not None
    return has_code and is_known(predictor, rule) and not is_bounded(predictor, rule)
