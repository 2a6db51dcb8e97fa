"""The concurrent executable computes what its kernels compute one after another, run after run."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import tvm
from tvm import relax

from tests.runtime.modules import (
    EXTENT,
    assert_same,
    build,
    calling,
    flat,
    one_after_another,
    placed,
    platforms,
    random_inputs,
    random_module,
)
from tvm_sphinx.errors import UnsupportedError
from tvm_sphinx.program.stock_vm import build_executable as build_for_vm
from tvm_sphinx.program.stock_vm import vm_devices
from tvm_sphinx.runtime.build import build_executable
from tvm_sphinx.runtime.executable import ConcurrentExecutable

#: Runs in a row; the long run of a release sets this to 10000.
_RUNS = int(os.environ.get("TVM_SPHINX_TEST_RUNS", "1000"))
_PLATFORMS = sorted(platforms())


@pytest.mark.parametrize("platform_name", _PLATFORMS)
@pytest.mark.parametrize("seed", range(6))
def test_random_placements_give_the_same_bits(seed: int, platform_name: str) -> None:
    executable = build(random_module(seed, 16), platforms()[platform_name], seed)
    for trial in range(3):
        inputs = random_inputs(executable, trial)
        expected = one_after_another(executable, inputs)
        for _ in range(20):
            assert_same(flat(executable.run(inputs)), expected)


def test_many_runs_in_a_row_beside_other_processes() -> None:
    executable = build(random_module(3, 24), platforms()["sharing"], 1)
    inputs = random_inputs(executable)
    expected = one_after_another(executable, inputs)
    load = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    try:
        for _ in range(_RUNS):
            assert_same(flat(executable.run(inputs)), expected)
    finally:
        for process in load:
            process.kill()
            process.wait()


@pytest.mark.parametrize("platform_name", _PLATFORMS)
def test_lanes_delayed_at_random_points_give_the_same_bits(platform_name: str) -> None:
    executable = build(random_module(5, 24), platforms()[platform_name], 2)
    inputs = random_inputs(executable)
    expected = one_after_another(executable, inputs)
    for seed in range(25):
        executable.delay_lanes(seed, 100_000)
        assert_same(flat(executable.run(inputs)), expected)
    executable.delay_lanes(0, 0)
    assert_same(flat(executable.run(inputs)), expected)


def test_lanes_that_sleep_at_once_give_the_same_bits() -> None:
    executable = build(random_module(6, 24), platforms()["sharing"], 3)
    inputs = random_inputs(executable)
    expected = one_after_another(executable, inputs)
    executable.set_spin(0, 0)
    for _ in range(200):
        assert_same(flat(executable.run(inputs)), expected)


def test_agrees_with_the_stock_vm() -> None:
    platform = platforms()["sharing"]
    _, schedule, annotated = placed(random_module(9, 20), platform, 4)
    machine = relax.VirtualMachine(build_for_vm(annotated), vm_devices(platform))
    executable = build_executable(annotated, platform, schedule)
    inputs = random_inputs(executable)

    def leaves(value: object) -> list[np.ndarray]:
        return (
            [value.numpy()] if hasattr(value, "numpy") else [a for item in value for a in leaves(item)]
        )

    expected = leaves(machine["main"](*map(tvm.runtime.tensor, inputs)))
    for result, want in zip(flat(executable.run(inputs)), expected, strict=True):
        np.testing.assert_allclose(result, want, rtol=1e-5, atol=1e-6)


def returning(*fields: str) -> tvm.IRModule:
    """Return a module that returns arguments, a weight, and computed tensors in one nested tuple."""
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((EXTENT, EXTENT), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            y = builder.emit(relax.op.nn.relu(x))
            known = {
                "x": x,
                "y": y,
                "weight": relax.const(np.arange(EXTENT, dtype="float32")),
                "flat": builder.emit(relax.op.reshape(y, (EXTENT * EXTENT,))),
                "flat x": builder.emit(relax.op.reshape(x, (EXTENT * EXTENT,))),
            }
            picked = [known[field] for field in fields]
            output = builder.emit_output(relax.Tuple([picked[0], relax.Tuple(picked[1:])]))
        builder.emit_func_output(output)
    return builder.finalize()


def test_arguments_weights_and_views_as_results() -> None:
    executable = build(returning("x", "y", "weight", "flat", "y", "flat x"), platforms()["unlike"])
    x = np.random.default_rng(0).standard_normal((EXTENT, EXTENT)).astype("float32")
    first, (y, weight, flat_y, again, flat_x) = executable.run([x])
    relu = np.maximum(x, 0)
    assert_same(
        [t.numpy() for t in (first, y, weight, flat_y, again, flat_x)],
        [x, relu, np.arange(EXTENT, dtype="float32"), relu.reshape(-1), relu, x.reshape(-1)],
    )
    np.from_dlpack(first)[:] = 0
    np.from_dlpack(weight)[:] = 0
    assert np.abs(x).min() > 0, "a result that is an argument was not a copy"
    assert executable.run([x])[1][1].numpy()[1] == 1, "a caller wrote into our weights"


def test_module_without_kernels() -> None:
    executable = build(returning("x", "weight"), platforms()["sharing"])
    x = np.ones((EXTENT, EXTENT), "float32")
    assert_same(flat(executable.run([x])), [x, np.arange(EXTENT, dtype="float32")])


def test_results_stay_the_callers() -> None:
    executable = build(random_module(1), platforms()["unlike"])
    first_inputs, second_inputs = random_inputs(executable, 1), random_inputs(executable, 2)
    first = executable.run(first_inputs)
    expected = [array.copy() for array in flat(first)]
    executable.run(second_inputs)
    assert_same(flat(first), expected)


def test_packed_function_of_python_runs_in_a_lane() -> None:
    threads = set()

    @tvm.register_global_func("tests.lanes.double", override=True)
    def double(source: tvm.runtime.Tensor, result: tvm.runtime.Tensor) -> None:
        threads.add(threading.get_ident())
        np.from_dlpack(result)[:] = 2 * np.from_dlpack(source)

    executable = build(calling("tests.lanes.double"), platforms()["unlike"], 1)
    x = np.random.default_rng(0).standard_normal((EXTENT, EXTENT)).astype("float32")
    result = executable.run([x]).numpy()
    np.testing.assert_allclose(result, 2 * np.maximum(x, 0) + np.exp(x), rtol=1e-6)
    assert threads
    assert threading.get_ident() not in threads


def test_missing_packed_function_is_named() -> None:
    with pytest.raises(UnsupportedError, match=r"'tests\.lanes\.absent' is not registered"):
        build(calling("tests.lanes.absent"), platforms()["unlike"])


def test_inputs_in_place_only_where_they_fit() -> None:
    """An aligned tensor is read where it is: a packed function sees its address."""
    seen = []

    @tvm.register_global_func("tests.lanes.look", override=True)
    def look(source: tvm.runtime.Tensor, result: tvm.runtime.Tensor) -> None:
        seen.append(source.data_ptr())
        np.from_dlpack(result)[:] = np.from_dlpack(source)

    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((16,), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            out = relax.TensorType((16,), "float32")
            output = builder.emit_output(relax.op.call_dps_packed("tests.lanes.look", [x], out_ty=out))
        builder.emit_func_output(output)
    executable = build(builder.finalize(), platforms()["unlike"])
    whole = tvm.runtime.empty((17,), "float32")
    values = np.from_dlpack(whole)
    values[:] = np.arange(17)
    for view, in_place in ((values[:16], True), (values[1:], False)):
        assert_same(flat(executable.run([view])), [view.copy()])
        assert (seen[-1] == view.ctypes.data) is in_place
    tensor = tvm.runtime.tensor(np.arange(16, dtype="float32"))
    executable.run([tensor])
    assert seen[-1] == np.from_dlpack(tensor).ctypes.data


def test_several_threads_and_executables() -> None:
    executables = [build(random_module(seed, 16), platforms()["sharing"], seed) for seed in (1, 2)]
    failures = []

    def work(executable: ConcurrentExecutable, seed: int) -> None:
        inputs = random_inputs(executable, seed)
        expected = one_after_another(executable, inputs)
        try:
            for _ in range(100):
                assert_same(flat(executable.run(inputs)), expected)
        except AssertionError as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(executables[i % 2], i)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_resident_memory_is_flat() -> None:
    executable = build(random_module(2, 16), platforms()["sharing"], 5)
    inputs = random_inputs(executable)

    def resident_kib() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024

    for _ in range(500):
        executable.run(inputs)
    before = resident_kib()
    for _ in range(5 * _RUNS):
        executable.run(inputs)
    assert resident_kib() - before < 512


def test_threads_go_with_the_executable() -> None:
    def lanes() -> int:
        return len(os.listdir("/proc/self/task"))

    before = lanes()
    for seed in range(5):
        executable = build(random_module(seed), platforms()["sharing"], seed)
        executable.run(random_inputs(executable))
        assert lanes() > before
        del executable
    assert lanes() == before


def test_idle_lanes_use_no_processor_time() -> None:
    executable = build(random_module(2), platforms()["sharing"])
    executable.run(random_inputs(executable))
    begin = os.times()
    threading.Event().wait(0.5)
    end = os.times()
    assert end.user + end.system - begin.user - begin.system < 0.1


def test_time_evaluator_counts_runs() -> None:
    executable = build(random_module(2), platforms()["unlike"])
    measured = executable.time_evaluator(number=5, repeat=4)
    assert len(measured.results) == 4
    assert 0 < measured.min <= measured.median
    assert executable.durations_ns(count=7).shape == (7,)
