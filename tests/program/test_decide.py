"""The best single device is one that has room for the model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.scheduling.test_schedule import PROBLEM
from tvm_sphinx.program.decide import best_single_device
from tvm_sphinx.scheduling.problem import CANNOT_RUN


# In all 65 bytes of weights lie on the device, and 18 of outputs at the most; "ab" cannot run task 2.
@pytest.mark.parametrize(
    ("memory_bytes", "device", "fits"),
    [
        ((-1, -1, -1), 0, True),
        ((82, -1, -1), 1, True),
        ((64, 64, -1), 0, False),
        ((100, 64, -1), 0, True),
    ],
)
def test_a_device_without_the_memory_is_no_best_one(
    memory_bytes: tuple[int, ...], device: int, fits: bool
) -> None:
    problem = replace(PROBLEM, memory_bytes=np.array(memory_bytes))
    found, holds_it = best_single_device(problem)
    assert (found.best.device == device).all()
    assert holds_it == fits
    assert PROBLEM.exec_ns[2, 2] == CANNOT_RUN
