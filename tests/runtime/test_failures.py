"""What goes wrong in a run reaches the caller, and the next run works."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import tvm

from tests.processes import ROOT
from tests.runtime.modules import (
    EXTENT,
    assert_same,
    build,
    calling,
    flat,
    one_after_another,
    platforms,
    random_inputs,
    random_module,
)
from tvm_sphinx.errors import PlatformError
from tvm_sphinx.platform import Device, Platform
from tvm_sphinx.platform.machine import usable_cores
from tvm_sphinx.platform.targets import host_target
from tvm_sphinx.runtime.tensors import InputError

_X = np.linspace(-1, 1, EXTENT * EXTENT, dtype="float32").reshape(EXTENT, EXTENT)


@pytest.mark.parametrize("seed", range(6))
def test_error_in_a_lane_is_the_callers_and_the_next_run_works(seed: int) -> None:
    fail = [True]

    @tvm.register_global_func("tests.lanes.fail", override=True)
    def maybe_fail(source: tvm.runtime.Tensor, result: tvm.runtime.Tensor) -> None:
        if fail[0]:
            raise IndexError("no such row: 17")
        np.from_dlpack(result)[:] = np.from_dlpack(source)

    executable = build(calling("tests.lanes.fail"), platforms()["sharing"], seed)
    for _ in range(20):
        fail[0] = True
        with pytest.raises(IndexError, match="no such row: 17"):
            executable.run([_X])
        fail[0] = False
        result = executable.run([_X]).numpy()
        np.testing.assert_allclose(result, np.maximum(_X, 0) + np.exp(_X), rtol=1e-6)


def test_two_failing_lanes_raise_one_of_their_errors() -> None:
    @tvm.register_global_func("tests.lanes.both", override=True)
    def fail(source: tvm.runtime.Tensor, result: tvm.runtime.Tensor) -> None:
        raise ValueError("both")

    executable = build(calling("tests.lanes.both"), platforms()["unlike"])
    threads = []
    caught = []

    def call() -> None:
        for _ in range(30):
            try:
                executable.run([_X])
            except ValueError as error:
                caught.append(str(error))

    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert caught == ["both"] * 90


def wrong_inputs() -> dict[str, tuple[object, str]]:
    good = np.zeros((EXTENT, EXTENT), "float32")
    return {
        "too few": ([good], r"Expected 2 inputs \['x', 'y'\]; got 1"),
        "too many": ([good] * 3, "got 3"),
        "no sequence": (good, "mapping by name or a sequence; got ndarray"),
        "unknown name": ({"x": good, "z": good}, "Unknown input 'z'; known: x, y"),
        "missing name": ({"x": good}, "'y' is missing"),
        "shape": ([good, good[:3]], r"input 'y' of shape \(6, 6\); got \(3, 6\)"),
        "rank": ([good, good.reshape(-1)], r"got \(36,\)"),
        "dtype": ([good, good.astype("float64")], "input 'y' of dtype float32; got float64"),
        "byte order": ([good, good.astype(">f4")], "got >f4"),
        "no tensor": ([good, 3.0], "DLPack; got float"),
        "list": ([good, good.tolist()], "got list"),
        "tensor dtype": ([good, tvm.runtime.empty((EXTENT, EXTENT), "int32")], "got int32"),
    }


@pytest.mark.parametrize("case", sorted(wrong_inputs()))
def test_wrong_inputs_are_named(case: str) -> None:
    inputs, message = wrong_inputs()[case]
    executable = _shared()
    with pytest.raises(InputError, match=message):
        executable.run(inputs)


def test_input_on_another_device_is_refused() -> None:
    class Elsewhere:
        def __dlpack__(self, **_: object) -> object:
            raise AssertionError("a tensor that the host cannot read was asked for")

        def __dlpack_device__(self) -> tuple[int, int]:
            return (2, 0)

    with pytest.raises(InputError, match=r"'x' on the CPU; got DLPack device \(2, 0\)"):
        _shared().run([Elsewhere(), _X])


def awkward_inputs() -> dict[str, object]:
    base = np.arange(4 * EXTENT * EXTENT, dtype="float32").reshape(2 * EXTENT, 2 * EXTENT)
    frozen = np.ascontiguousarray(base[:EXTENT, :EXTENT])
    frozen.flags.writeable = False
    odd = np.zeros(4 * EXTENT * EXTENT + 1, np.uint8)[1:].view("float32").reshape(EXTENT, EXTENT)
    return {
        "strided": base[::2, ::2],
        "transposed": np.ascontiguousarray(base[:EXTENT, :EXTENT]).T,
        "negative": base[:EXTENT, :EXTENT][::-1],
        "read-only": frozen,
        "misaligned": odd,
        "broadcast": np.broadcast_to(base[:1, :EXTENT], (EXTENT, EXTENT)),
        "tvm": tvm.runtime.tensor(np.ascontiguousarray(base[:EXTENT, :EXTENT])),
    }


@pytest.mark.parametrize("case", sorted(awkward_inputs()))
def test_awkward_inputs_give_correct_results(case: str) -> None:
    value = awkward_inputs()[case]
    executable = _shared()
    plain = np.ascontiguousarray(value.numpy() if hasattr(value, "numpy") else value)
    assert_same(flat(executable.run([value, _X])), one_after_another(executable, [plain, _X]))


def test_more_cores_than_the_machine_has_are_refused() -> None:
    cores = tuple(range(4095, 4096 + len(usable_cores())))
    platform = Platform((Device("far", host_target(), "cpu:0", cores),))
    with pytest.raises(PlatformError, match=r"needs \d+ cores \(4095-\d+\).*this machine lacks"):
        build(random_module(0), platform)


def test_unbound_executable_runs_on_any_machine() -> None:
    platform = Platform((Device("far", host_target(), "cpu:0", (4095, 4096)),))
    executable = build(random_module(0), platform, bind_cores=False)
    inputs = random_inputs(executable)
    assert_same(flat(executable.run(inputs)), one_after_another(executable, inputs))


def test_dropping_the_executable_during_a_run() -> None:
    started = threading.Event()

    @tvm.register_global_func("tests.lanes.slow", override=True)
    def slow(source: tvm.runtime.Tensor, result: tvm.runtime.Tensor) -> None:
        started.set()
        time.sleep(0.2)
        np.from_dlpack(result)[:] = np.from_dlpack(source)

    holder = [build(calling("tests.lanes.slow"), platforms()["unlike"])]
    results = []

    def call() -> None:
        run = holder[0].run
        results.append(run([_X]))

    thread = threading.Thread(target=call)
    thread.start()
    started.wait()
    holder.clear()
    gc.collect()
    thread.join()
    np.testing.assert_allclose(results[0].numpy(), np.maximum(_X, 0) + np.exp(_X), rtol=1e-6)


def test_ctrl_c_during_a_run() -> None:
    """The run stops before the steps that had not begun, and the executable stays usable."""
    calls = []

    @tvm.register_global_func("tests.lanes.nap", override=True)
    def nap(source: tvm.runtime.Tensor, result: tvm.runtime.Tensor) -> None:
        calls.append(1)
        if len(calls) == 1:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)
        np.from_dlpack(result)[:] = np.from_dlpack(source)

    executable = build(calling("tests.lanes.nap"), platforms()["unlike"])
    with pytest.raises(KeyboardInterrupt):
        executable.run([_X])
    result = executable.run([_X]).numpy()
    np.testing.assert_allclose(result, np.maximum(_X, 0) + np.exp(_X), rtol=1e-6)


def test_fork_after_load() -> None:
    executable = build(random_module(4, 16), platforms()["sharing"], 1)
    inputs = random_inputs(executable)
    expected = one_after_another(executable, inputs)
    executable.run(inputs)

    def child(queue: multiprocessing.Queue) -> None:
        assert_same(flat(executable.run(inputs)), expected)
        queue.put("same")

    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    for _ in range(3):
        process = context.Process(target=child, args=(queue,))
        process.start()
        assert queue.get(timeout=60) == "same"
        process.join(60)
        assert process.exitcode == 0
    assert_same(flat(executable.run(inputs)), expected)


def test_process_ends_with_lanes_alive() -> None:
    code = (
        f"__import__('sys').path.append({str(ROOT)!r})\n"
        "from tests.runtime.modules import build, platforms, random_inputs, random_module\n"
        "keep = build(random_module(1), platforms()['sharing'])\n"
        "keep.run(random_inputs(keep))\n"
        "print('done', flush=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


_SHARED = []


def _shared() -> object:
    """One executable for the tests of inputs, which leave it as it was."""
    if not _SHARED:
        _SHARED.append(build(random_module(8, 16), platforms()["sharing"], 2))
    return _SHARED[0]
