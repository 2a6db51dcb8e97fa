"""The schedule of a kernel is made once on a machine; what is kept is what would be made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tvm_ffi
from tvm import te, topi

from tvm_sphinx.kernels import implement
from tvm_sphinx.kernels.code_cache import CACHE_VARIABLE
from tvm_sphinx.platform import Device
from tvm_sphinx.platform.targets import device_target, host_target, make_target

TARGET = device_target(Device("one", host_target(), "cpu:0", (0,)))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    monkeypatch.setattr(implement, "_implemented", {})
    return tmp_path


@pytest.fixture
def scheduled(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return a list of the functions that are scheduled from here on."""
    functions: list[Any] = []
    schedule = implement.schedule_kernel

    def noting(function: Any, *rest: Any) -> Any:
        functions.append(function)
        return schedule(function, *rest)

    monkeypatch.setattr(implement, "schedule_kernel", noting)
    return functions


def kernels() -> list[Any]:
    data = te.placeholder((1, 16, 20, 20), name="data")
    weight = te.placeholder((8, 16, 3, 3), name="weight")
    rows = te.placeholder((4, 30), name="rows")
    made = [
        [data, weight, topi.nn.conv2d(data, weight, 1, 1, 1)],
        [rows, topi.nn.softmax(rows)],
        [data, topi.nn.relu(data)],
        [rows, topi.sinh(rows)],  # TVM has no code for it once it is scheduled
    ]
    return [te.create_prim_func(each) for each in made]


def test_a_schedule_is_read_and_equals_what_would_be_made(
    scheduled: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [implement.implement_kernel(kernel, TARGET) for kernel in kernels()]
    assert scheduled
    scheduled.clear()
    monkeypatch.setattr(implement, "_implemented", {})  # as in another process
    read = [implement.implement_kernel(kernel, TARGET) for kernel in kernels()]
    assert not scheduled
    for one, other in zip(made, read, strict=True):
        assert tvm_ffi.structural_equal(one, other)
        # What records are looked up by.
        assert tvm_ffi.structural_hash(one) == tvm_ffi.structural_hash(other)


def test_other_rules_or_damage_make_it_anew(
    folder: Path, scheduled: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = kernels()[2]
    first = implement.implement_kernel(kernel, TARGET)
    monkeypatch.setattr(implement, "_rules_digest", lambda: "of other rules")
    monkeypatch.setattr(implement, "_implemented", {})
    implement.implement_kernel(kernel, TARGET)
    assert len(scheduled) == 2
    for file in folder.iterdir():
        file.write_bytes(file.read_bytes()[:-1] + b"?")
    monkeypatch.setattr(implement, "_implemented", {})
    assert tvm_ffi.structural_equal(implement.implement_kernel(kernel, TARGET), first)
    assert len(scheduled) == 3


def test_a_sum_over_one_element_is_scheduled_for_a_gpu() -> None:
    """A rule of dlight asserts that there is an axis to sum over."""
    target = make_target('{"kind": "cuda", "arch": "sm_90", "max_num_threads": 1024}')
    data, weight = te.placeholder((1, 6, 5, 5), name="x"), te.placeholder((6, 1, 1, 1), name="w")
    function = te.create_prim_func([data, weight, topi.nn.group_conv2d_nchw(data, weight, 1, 0, 1, 6)])
    made = implement.implement_kernel(function, target)
    assert made.attrs["tirx.is_scheduled"]
    assert "threadIdx.x" in str(made)
