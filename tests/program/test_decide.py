"""The best single device is one that has room for the model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.scheduling.test_schedule import PROBLEM
from tvm_sphinx.platform import Device, Platform
from tvm_sphinx.program.decide import best_single_device, near_single_devices
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


def test_rivals_are_of_other_classes_and_predicted_nearly_as_fast() -> None:
    problem = replace(
        PROBLEM,
        device_cores=((0,), (1,), (0, 1)),
        exec_ns=np.full_like(PROBLEM.exec_ns, 100) + np.array([0, 0, 14]),
    )
    one = Device("one", '{"kind": "llvm"}', "cpu:0", (0,))
    platform = Platform(
        (one, replace(one, name="two", cores=(1,)), replace(one, name="both", cores=(0, 1)))
    )
    best, _ = best_single_device(problem)
    (rival,) = near_single_devices(problem, platform, best)
    assert (rival.best.device == 2).all()
    assert rival.best.makespan_ns == 114 * problem.num_tasks
    assert rival.best.lower_bound_ns == best.best.lower_bound_ns
    for far in (problem.exec_ns + np.array([0, 0, 2]), np.where([0, 0, 1], CANNOT_RUN, problem.exec_ns)):
        assert near_single_devices(replace(problem, exec_ns=far), platform, best) == ()
    full = replace(problem, memory_bytes=np.array([-1, -1, 64]))
    assert near_single_devices(full, platform, best) == ()
