"""The binding under attack: a Python exception each time, never a crash."""

from __future__ import annotations

import gc
import subprocess
import sys
from dataclasses import astuple
from typing import Any

import numpy as np
import pytest

from tvm_sphinx.cpga_ext import _cpga
from tvm_sphinx.cpga_ext._cpga import Problem, Search
from tvm_sphinx.search import CpgaParams

PARAMS = np.array(astuple(CpgaParams()), dtype=np.int64)


def arguments(num_tasks: int = 6, num_devices: int = 2) -> dict[str, Any]:
    """Return valid arguments of `Problem`: a chain of tasks."""
    num_edges = max(0, num_tasks - 1)
    cells = (num_tasks, num_devices)
    return {
        "exec_ns": np.full(cells, 10, dtype=np.int64),
        "release_ns": np.zeros(cells, dtype=np.int64),
        "delivery_ns": np.zeros(cells, dtype=np.int64),
        "edges": np.array([[i, i + 1] for i in range(num_edges)], dtype=np.int64).reshape(-1, 2),
        "copy_class": np.zeros(num_edges, dtype=np.int64),
        "copy_ns": 5 * (1 - np.eye(num_devices, dtype=np.int64))[None],
        "resource_begin": np.arange(num_devices + 1, dtype=np.int64),
        "resources": np.arange(num_devices, dtype=np.int64),
        "set_of_task": np.arange(num_tasks, dtype=np.int64),
        "memory_bytes": np.full(num_devices, -1, dtype=np.int64),
        "weight_bytes": np.zeros(cells, dtype=np.int64),
        "output_bytes": np.zeros(num_tasks, dtype=np.int64),
        "num_resources": num_devices,
        "num_sets": num_tasks,
    }


ARRAYS = [name for name in arguments() if not name.startswith("num_")]


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("wrong", [None, 3, "text", [[1]], object()])
def test_arguments_that_are_no_buffers_are_refused(name: str, wrong: object) -> None:
    with pytest.raises(TypeError):
        Problem(**{**arguments(), name: wrong})


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("dtype", [np.int32, np.uint64, np.float64, np.bool_, np.complex128, ">i8"])
def test_other_dtypes_are_refused(name: str, dtype: Any) -> None:
    with pytest.raises(TypeError, match=name):
        Problem(**{**arguments(), name: arguments()[name].astype(dtype)})


@pytest.mark.parametrize("name", ARRAYS)
def test_other_shapes_are_refused(name: str) -> None:
    array = arguments()[name]
    longer = np.concatenate([array, array[-1:]])
    for wrong in (longer, array[None], array[..., None], array[:-1]):
        if name in ("copy_ns", "exec_ns") and wrong.ndim == array.ndim:
            continue  # these two say how many classes and tasks there are
        with pytest.raises(ValueError, match=r"matching extents|resource_begin to end"):
            Problem(**{**arguments(), name: wrong})


@pytest.mark.parametrize("name", ["exec_ns", "edges", "copy_ns", "set_of_task"])
def test_buffers_that_are_not_contiguous_are_refused(name: str) -> None:
    array = arguments()[name]
    spread = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), dtype=np.int64)[..., ::2]
    spread[...] = array
    with pytest.raises((ValueError, BufferError)):
        Problem(**{**arguments(), name: spread})
    if array.ndim == 2 and array.shape[0] > 1:
        with pytest.raises((ValueError, BufferError)):
            Problem(**{**arguments(), name: np.asfortranarray(array)})


BROKEN: list[tuple[str, Any, str]] = [
    ("exec_ns", -2, ">= 0"),
    ("exec_ns", 2**62, "sum below"),
    ("exec_ns", 2**60, "sum below"),
    ("release_ns", -1, ">= 0"),
    ("delivery_ns", 2**63 - 1, "sum below"),
    ("copy_ns", -1, ">= 0"),
    ("copy_ns", 7, "between a device and itself"),
    ("edges", 0, "lower to a higher"),
    ("edges", 6, "existing tasks"),
    ("edges", -(2**40), "existing tasks"),
    ("copy_class", 1, "name a row"),
    ("copy_class", -1, "name a row"),
    ("resources", 5, "resources in range"),
    ("resource_begin", 2, "resources in range"),
    ("set_of_task", 9, "labels"),
    ("set_of_task", -1, "labels"),
    ("memory_bytes", -2, ">= 0"),
    ("weight_bytes", -1, ">= 0"),
    ("output_bytes", 2**63 - 1, "sum below"),
]


@pytest.mark.parametrize(("name", "value", "message"), BROKEN)
def test_values_that_break_an_invariant_are_refused(name: str, value: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Problem(**{**arguments(), name: np.full_like(arguments()[name], value)})


def test_cycles_and_edges_given_twice_are_refused() -> None:
    backward = arguments()["edges"][:, ::-1].copy()
    with pytest.raises(ValueError, match="topological"):
        Problem(**{**arguments(), "edges": backward})
    twice = arguments()["edges"].copy()
    twice[1] = twice[0]
    with pytest.raises(ValueError, match="twice"):
        Problem(**{**arguments(), "edges": twice})


def test_zero_devices_are_refused_and_zero_tasks_are_fine() -> None:
    with pytest.raises(ValueError, match="at least one device"):
        Problem(**arguments(num_devices=0))
    empty = Problem(**arguments(num_tasks=0))
    search = Search(empty, PARAMS, 0)
    search.run(1000, 1000)
    assert search.best() == (0, b"", b"", b"")


@pytest.mark.parametrize(("name", "value"), [("num_resources", 0), ("num_sets", -1), ("num_sets", 7)])
def test_counts_out_of_range_are_refused(name: str, value: int) -> None:
    with pytest.raises(ValueError, match="expected"):
        Problem(**{**arguments(), name: value})


def test_a_buffer_freed_after_construction_changes_nothing() -> None:
    given = arguments(num_tasks=300)
    problem = Problem(**given)
    expected = problem.heuristic(0)
    for array in given.values():
        if isinstance(array, np.ndarray):
            array[...] = 10**15
    del given
    gc.collect()
    assert problem.heuristic(0) == expected
    search = Search(problem, PARAMS, 0)
    del problem
    gc.collect()
    search.run(5_000, 5_000)
    assert search.best()[0] <= expected[0]


def test_decoding_refuses_what_is_no_chromosome() -> None:
    problem = Problem(**arguments())
    order, device = np.arange(6), np.zeros(6, dtype=np.int64)
    assert problem.decode(order, device, 0)[0] == 60
    for wrong in (order[::-1].copy(), np.zeros(6, dtype=np.int64), order + 1, order - 2**40):
        with pytest.raises(ValueError, match="topological"):
            problem.decode(wrong, device, 0)
    for wrong in (device + 2, device - 1, device + 2**33):
        with pytest.raises(ValueError, match="device"):
            problem.decode(order, wrong, 0)
        with pytest.raises(ValueError, match="device"):
            problem.memory_overflow(wrong, device)
    for bad in (2, -1):
        with pytest.raises(ValueError, match="in its range"):
            problem.decode(order, device, bad)
        with pytest.raises(ValueError, match="in its range"):
            problem.heuristic(bad + 5 if bad == 2 else bad)
    with pytest.raises(ValueError, match="in its range"):
        problem.heuristic(4, 2)
    with pytest.raises(ValueError, match="extents"):
        problem.decode(order[:5].copy(), device, 0)
    with pytest.raises(TypeError):
        problem.decode(order.astype(np.int32), device, 0)


def test_refuting_takes_a_bound_and_work_in_range() -> None:
    problem = Problem(**arguments())
    for known, work in ((-1, 10), (2**62 + 1, 10), (0, -1)):
        with pytest.raises(ValueError, match="range"):
            problem.refute(known, work)
    for wrong in (("1", 1), (1, None), (1.5, 1), (1,), (1, 2, 3)):
        with pytest.raises(TypeError):
            problem.refute(*wrong)  # type: ignore[arg-type]
    cheap = problem.lower_bound()
    assert problem.refute(cheap, 0) >= cheap
    assert cheap <= problem.refute(0, 100_000) <= problem.heuristic(0)[0]


def test_series_refuses_budgets_out_of_range() -> None:
    problem = Problem(**arguments())
    for states, placements in ((0, 10), (2**40, 10), (10, -1), (-(2**40), 10)):
        with pytest.raises(ValueError, match="range"):
            problem.series(states, placements)
    for wrong in (("1", 1), (1, None), (1.5, 1), (1,), (1, 2, 3)):
        with pytest.raises(TypeError):
            problem.series(*wrong)  # type: ignore[arg-type]
    assert problem.series(10, 0)[0] is None
    assert problem.series(10, 10_000)[0] is not None


def test_search_refuses_what_is_no_problem_and_starts_beyond_two() -> None:
    problem = Problem(**arguments())
    with pytest.raises(TypeError):
        Search(None, PARAMS, 0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="extents"):
        Search(problem, PARAMS[:-1].copy(), 0)
    search = Search(problem, PARAMS, 0)
    for run in ((-1, 10), (10, -1), (2**60, 10)):
        with pytest.raises(ValueError, match="in its range"):
            search.run(*run)
    order, device = np.arange(6), np.zeros(6, dtype=np.int64)
    for _ in range(2):
        search.start(order, device)
    with pytest.raises(ValueError, match="up to two starts"):
        search.start(order, device)


def test_types_cannot_be_altered_or_made_without_arguments() -> None:
    for kind in (Problem, Search):
        with pytest.raises(TypeError):
            kind()  # type: ignore[call-arg]
        with pytest.raises(TypeError):
            kind.spam = 1  # type: ignore[attr-defined]


def test_the_module_imports_twice_and_in_a_subinterpreter_free_process() -> None:
    code = "import tvm_sphinx.cpga_ext._cpga as a; assert a.Problem and a.Search; print('ok')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr
    assert _cpga.__doc__
