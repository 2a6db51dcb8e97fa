"""Runs a PrimFunc with and without the rules, and compares the numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import tvm
from tvm import tirx
from tvm.target.codegen import llvm_get_system_cpu
from tvm_ffi import structural_equal

from tests.kernels.races import arguments, run_apart
from tvm_sphinx.kernels import schedule, schedule_kernel

TARGET = tvm.target.Target({"kind": "llvm", "mcpu": llvm_get_system_cpu()})
TOLERANCE = {"float32": 2e-5, "float64": 1e-10, "float16": 4e-3}


def draw(shape: tuple[int, ...], dtype: str, rng: np.random.Generator) -> np.ndarray:
    if dtype == "bool":
        return rng.integers(0, 2, shape).astype("bool")
    if dtype.startswith("float"):
        return rng.standard_normal(shape).astype(dtype)
    return rng.integers(-8, 8, shape).astype(dtype)


def run(func: tirx.PrimFunc, inputs: list[np.ndarray], target: Any = TARGET) -> list[np.ndarray]:
    """Build and call a PrimFunc; return what its remaining parameters hold afterwards."""
    built = tvm.build(tvm.IRModule({"main": func}), target=target)
    args = arguments(func, inputs)
    built["main"](*args)
    return [arg.numpy() for arg in args[len(inputs) :]]


def check(
    func: tirx.PrimFunc, inputs: list[np.ndarray], cores: int = 1, target: Any = TARGET
) -> tirx.PrimFunc:
    """Assert that a rule fits and changes no number; return the scheduled function."""
    func = func.with_attr("global_symbol", "main")
    scheduled = schedule_kernel(func, target, cores)
    assert scheduled is not None, "no rule fits"
    schedule._CACHE.clear()  # or the second would be the first
    again = schedule_kernel(func, target, cores)
    assert structural_equal(scheduled, again), "two runs gave two schedules"
    is_shared = "T.parallel" in scheduled.script()
    assert is_shared <= (cores > 1)
    if is_shared:
        found, races = run_apart(scheduled, inputs, target)
        assert not races, races[0]
    else:
        found = run(scheduled, inputs, target)
    for got, expected in zip(found, run(func, inputs, target), strict=True):
        compare(got, expected)
    return scheduled


def compare(got: Any, expected: Any) -> None:
    """Assert equality, up to the order of summation in floating point."""
    assert got.shape == expected.shape
    assert got.dtype == expected.dtype
    tolerance = TOLERANCE.get(str(expected.dtype))
    if tolerance is None:
        np.testing.assert_array_equal(got, expected)
        return
    scale = max(1.0, float(np.abs(expected[np.isfinite(expected)], dtype="float64").max(initial=0)))
    np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance * scale)
