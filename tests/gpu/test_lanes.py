"""The lanes compute the same with GPUs as without, wherever things are placed."""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx.parser
import pytest
import tvm
from tvm import relax

from tests.gpu import fake, proof
from tests.gpu.modules import assert_agree, image, on_cpu, platform
from tests.networks import recurrent_net, transformer
from tests.processes import module_command
from tests.runtime.modules import (
    EXTENT,
    calling,
    flat,
    list_schedule,
    random_inputs,
    random_module,
)
from tests.scale import SCALE
from tvm_sphinx.errors import ArtifactError, GpuError, UnsupportedError
from tvm_sphinx.frontend.extract import extract_task_graph
from tvm_sphinx.frontend.load import load_model
from tvm_sphinx.frontend.lower import lower_for_platform, lower_to_kernels
from tvm_sphinx.platform import Device, Platform
from tvm_sphinx.platform.gpus import find_gpu, find_gpus
from tvm_sphinx.platform.targets import cuda_devices, device_target
from tvm_sphinx.relax_pass import annotate_schedule
from tvm_sphinx.runtime.build import build_image
from tvm_sphinx.runtime.executable import ConcurrentExecutable
from tvm_sphinx.runtime.gpu_compile import NVCC_VARIABLE
from tvm_sphinx.runtime.gpu_plan import make_feeds

pytestmark = pytest.mark.gpu

#: How many times the modules of a quick run.
_RUNS = int(os.environ.get("TVM_SPHINX_TEST_RUNS", "200"))


@pytest.mark.parametrize("number", range(10 * SCALE))
def test_random_placements_agree_with_the_cpu(number: int) -> None:
    proof.check_program(number)


@pytest.mark.parametrize("network", [transformer, recurrent_net])
@pytest.mark.parametrize("alone", [True, False], ids=["alone", "mixed"])
def test_networks_agree_with_the_cpu(network: Callable[[], Any], alone: bool) -> None:
    small = {"layers": 1, "length": 5, "width": 16} if network is transformer else {"steps": 2}
    module = network(**small)
    lowered = lower_for_platform(module, platform(1, 2))
    assert any(kernel.packable for kernel in extract_task_graph(lowered).kernels.values())
    expected = on_cpu(module)
    executable = ConcurrentExecutable(image(module, platform(1, 2), device=1 if alone else None, seed=4))
    inputs = random_inputs(expected)
    assert_agree(executable.run(inputs), expected.run(inputs))


def test_branches_and_loops_stay_on_the_cpu_and_all_else_is_on_the_gpu() -> None:
    """A GPU cannot choose what to launch: the tensors of such a task are copied there and back."""
    text = """<ir_version: 8, opset_import: ["": 17]> net (float[16,16] x) => (float[16,16] z) {
        h = MatMul (x, x) u = Tanh (h) zero = Constant <value = float {0}> ()
        s = ReduceSum <keepdims = 0> (x) c = Greater (s, zero) a = Abs (s) n = Cast <to = 7> (a)
        v = If (c) <then_branch = t () => (float[16,16] p) { p = MatMul (u, x) },
            else_branch = e () => (float[16,16] q) { q = Neg (u) }>
        w = Loop (n, , v) <body = b (int64 i, bool d, float[16,16] r) => (bool d, float[16,16] o)
            { o = Sin (r) }>
        z = MatMul (w, u) }"""
    module = load_model(onnx.parser.parse_model(text))
    where, host = platform(1, 2), platform(0)
    extraction = extract_task_graph(lower_to_kernels(module, device_target(host.devices[0])))
    kinds = [task.op_kinds for task in extraction.graph.tasks]
    assert {("if",), ("loop",)} <= set(kinds)
    placement = [0 if kind in (("if",), ("loop",)) else 1 for kind in kinds]
    schedule = list_schedule(extraction, where, placement)
    built = build_image(annotate_schedule(extraction, schedule, where), where, schedule)
    executable, expected = ConcurrentExecutable(built), on_cpu(module)
    rng = np.random.default_rng(0)
    for sign in (1, -1):
        x = (sign * rng.uniform(0.01, 0.04, (16, 16))).astype(np.float32)
        for _ in range(5):
            assert_agree(executable.run([x]), expected.run([x]))


def test_a_network_on_the_gpu_alone_is_one_graph_and_needs_no_other_thread() -> None:
    executable = ConcurrentExecutable(image(random_module(2, 12), platform(), device=1))
    (feed,) = make_feeds(executable.plan)
    assert [segment.uses_streams for segment in feed.segments].count(True) == 1
    assert executable.plan.cores == ()


def test_branches_run_in_streams_of_their_own_with_events_between_them() -> None:
    executable = ConcurrentExecutable(image(random_module(1, 20), platform(1, 3), seed=2))
    kinds = {stream.role for stream in executable.plan.places.streams}
    assert kinds == {"compute", "in", "out"}
    assert sum(feed.num_events for feed in make_feeds(executable.plan)) >= 2


def test_a_missing_event_is_seen(fake_gpu: Any) -> None:
    """The fake finds what the plan is there to prevent: so the other tests say something."""
    found = subprocess.run(
        module_command("tests.gpu.lane_programs", "without_events"),
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr
    assert re.search("order|nothing has written", json.loads(found.stdout)["error"])


def test_many_runs_take_no_more_memory() -> None:
    proof.check_memory(ctypes.CDLL("libcuda.so.1"), _RUNS)


def test_closing_gives_back_the_memory() -> None:
    import gc

    def free_bytes() -> int:
        available, total = ctypes.c_size_t(), ctypes.c_size_t()
        driver = ctypes.CDLL("libcuda.so.1")
        context = ctypes.c_void_p()
        assert driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0) == 0
        assert driver.cuCtxSetCurrent(context) == 0
        assert driver.cuMemGetInfo_v2(ctypes.byref(available), ctypes.byref(total)) == 0
        return available.value

    made = image(random_module(3, 12), platform(1, 2), device=1)
    before = free_bytes()
    executable = ConcurrentExecutable(made)
    assert free_bytes() < before
    del executable
    gc.collect()
    assert free_bytes() == before


def test_an_error_on_the_cpu_reaches_the_caller_and_the_next_run_works() -> None:
    fail = [True]

    @tvm.register_global_func("tests.gpu.fail", override=True)
    def maybe_fail(source: tvm.runtime.Tensor, result: tvm.runtime.Tensor) -> None:
        if fail[0]:
            raise IndexError("no such row: 17")
        np.from_dlpack(result)[:] = np.from_dlpack(source)

    x = np.linspace(-1, 1, EXTENT * EXTENT, dtype="float32").reshape(EXTENT, EXTENT)
    where = platform(1, 1)
    module = calling("tests.gpu.fail")
    for seed in range(40):
        try:
            executable = ConcurrentExecutable(image(module, where, seed=seed))
        except UnsupportedError:  # the packed function on the GPU
            continue
        if executable.plan.places.gpus:
            break
    for _ in range(4):
        fail[0] = True
        with pytest.raises(IndexError, match="no such row: 17"):
            executable.run([x])
        fail[0] = False
        np.testing.assert_allclose(executable.run([x]).numpy(), np.maximum(x, 0) + np.exp(x), rtol=1e-5)


def test_arguments_are_taken_from_pinned_memory_and_from_any_other(fake_gpu: Any) -> None:
    """More than a piece of them, at another place in each run."""
    shape = (7, 40_000)
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType(list(shape), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            output = builder.emit_output(relax.op.exp(relax.op.negative(x)))
        builder.emit_func_output(output)
    executable = ConcurrentExecutable(image(builder.finalize(), platform(), device=1))
    rng = np.random.default_rng(0)
    size = int(np.prod(shape)) * 4
    for is_pinned in (True, False, True, False):
        value = rng.random(shape, dtype="float32")
        given = np.empty(size + 4, dtype=np.uint8)[4:].view("float32").reshape(shape)
        if is_pinned:
            memory = ctypes.c_void_p()
            assert fake_gpu.cuMemHostAlloc(ctypes.byref(memory), ctypes.c_size_t(size), 0) == 0
            given = np.ctypeslib.as_array((ctypes.c_float * (size // 4)).from_address(memory.value or 0))
            given = given.reshape(shape)
        kind = ctypes.c_uint()
        asked = fake_gpu.cuPointerGetAttribute(ctypes.byref(kind), 2, ctypes.c_void_p(given.ctypes.data))
        assert (asked == 0 and kind.value == 1) == is_pinned
        given[...] = value
        before = fake_gpu.fake_cuda_copies()
        result = executable.run([given]).numpy()
        # One copy in from pinned memory, else one for each piece; one copy out.
        assert fake_gpu.fake_cuda_copies() - before == (2 if is_pinned else 6)
        np.testing.assert_allclose(result, np.exp(-value), rtol=1e-5)


def _run_for_ever(executable: ConcurrentExecutable, inputs: list[np.ndarray]) -> None:
    while True:
        executable.run(inputs)


def test_ctrl_c_stops_runs_and_the_next_one_works() -> None:
    executable = ConcurrentExecutable(image(random_module(3, 12), platform(1, 2), seed=1))
    inputs = random_inputs(executable)
    expected = flat(executable.run(inputs))
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            _run_for_ever(executable, inputs)
    finally:
        signal.signal(signal.SIGALRM, before)
    for result, want in zip(flat(executable.run(inputs)), expected, strict=True):
        np.testing.assert_array_equal(result, want)


def test_traces_show_streams_and_copies() -> None:
    executable = ConcurrentExecutable(image(random_module(1, 16), platform(1, 2), seed=3))
    inputs = random_inputs(executable)
    expected = flat(executable.run(inputs))
    result, trace = executable.run_traced(inputs)
    for one, want in zip(flat(result), expected, strict=True):
        np.testing.assert_array_equal(one, want)
    assert {"kernel", "copy", "stage"} <= {step.kind for step in trace.steps}
    program = executable.plan.program
    for index, step in enumerate(trace.steps):
        assert 0 <= step.begin_ns <= step.end_ns
        for producer in program.producers(index):
            same_clock = trace.steps[producer].device == step.device and step.kind == "kernel"
            if same_clock and trace.steps[producer].kind == "kernel":
                assert trace.steps[producer].end_ns <= step.begin_ns
    rows = [e["args"]["name"] for e in json.loads(trace.to_chrome())["traceEvents"] if e["ph"] == "M"]
    assert any(row.startswith("gpu0.1 (stream") for row in rows)
    assert any("copies" in row for row in rows)


def test_an_artifact_runs_in_another_process_without_a_compiler(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    module = random_module(6, 14)
    executable = ConcurrentExecutable(image(module, platform(1, 2), seed=2))
    inputs = random_inputs(executable)
    executable.save(tmp_path / "model.sphinx")
    np.savez(tmp_path / "inputs.npz", *inputs)
    done = subprocess.run(
        module_command("tests.gpu.lane_programs", "load", tmp_path),
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "PATH": "",
            NVCC_VARIABLE: "/nonexistent",
            "TVM_SPHINX_GPU": pytestconfig.getoption("--gpu"),
        },
    )
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "outputs.npz") as outputs:
        for result, want in zip(outputs.values(), flat(executable.run(inputs)), strict=True):
            np.testing.assert_array_equal(result, want)


def test_kernels_for_another_architecture_are_refused(fake_gpu: Any) -> None:
    made = image(random_module(2, 6), platform(), device=1)
    other = bytearray(made.gpu.images[0])
    other[18] = 190  # ELF machine of a cubin, which the fake does not run
    images = (bytes(other), *made.gpu.images[1:])
    with pytest.raises(
        GpuError, match=r"another GPU than cuda:0, .* \(sm_\d+\): compile the model for it"
    ):
        ConcurrentExecutable(replace(made, gpu=replace(made.gpu, images=images)))


def test_machine_code_that_the_driver_cannot_read_is_refused(fake_gpu: Any) -> None:
    made = image(random_module(2, 6), platform(), device=1)
    first, *others = made.gpu.images
    images = (first[:64] + bytes(len(first) - 64), *others)  # the header alone
    with pytest.raises(GpuError, match=r"which knows CUDA 13\.0, cannot read the kernels' machine code"):
        ConcurrentExecutable(replace(made, gpu=replace(made.gpu, images=images)))


def test_too_little_memory_names_what_it_is_for() -> None:
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType([1, 1], "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            wide = builder.emit(relax.op.broadcast_to(x, (100_000, 2_000_000)))
            high = builder.emit(relax.op.nn.softmax(wide))
            output = builder.emit_output(relax.op.sum(high))
        builder.emit_func_output(output)
    made = image(builder.finalize(), platform(), device=1)
    with pytest.raises(
        GpuError, match=r"Expected 1600000000000 bytes for the tensors between kernels on cuda:0; \d+ of"
    ):
        ConcurrentExecutable(made)


def test_capacity_of_the_platform_holds_with_weights() -> None:
    where = platform()
    limited = Platform((where.devices[0], replace(where.devices[1], memory_bytes=100)))
    with pytest.raises(
        UnsupportedError, match=r"at most 100 bytes on cuda:0 .* for weights and \d+ for tensors"
    ):
        image(random_module(3, 12), limited, device=1)


def test_a_gpu_that_is_not_there_is_named() -> None:
    where = platform()
    far = Platform((where.devices[0], Device("far", cuda_devices()[0], "cuda:7")))
    with pytest.raises(GpuError, match=rf"with GPU cuda:7; this one has {len(find_gpus())}"):
        ConcurrentExecutable(image(random_module(2, 6), far, device=1))


def test_a_missing_compiler_is_told_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NVCC_VARIABLE, "/nonexistent/nvcc")
    with pytest.raises(UnsupportedError, match="pip install 'cuda-toolkit"):
        image(random_module(2, 6), platform(), device=1)


def test_missing_code_is_refused() -> None:
    made = image(random_module(2, 6), platform(), device=1)
    with pytest.raises(ArtifactError, match="there is no code"):
        ConcurrentExecutable(replace(made, gpu=replace(made.gpu, functions={})))


def test_gpus_are_described() -> None:
    gpus = find_gpus()
    assert gpus
    assert find_gpu("cuda:0") == gpus[0]
    assert find_gpu("cuda:63") is None
    assert gpus[0].arch in cuda_devices()[0]
    assert gpus[0].memory_bytes > 1 << 30


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fork", "forked"),
        ("fault", r"CUDA_ERROR_ILLEGAL_ADDRESS .* in one of the steps from copy_in.* to "),
        ("fault_then_run", r"lost since an error of its GPU: CUDA_ERROR_ILLEGAL_ADDRESS"),
        ("no_driver", "no NVIDIA driver is installed"),
        ("old_driver", r"the NVIDIA driver knows CUDA 11\.4; 12\.0 or later is needed"),
        ("two_processes", r"GPU cuda:0 is in use by another process, and its compute mode"),
        ("too_little_memory", r"Expected \d+ bytes for the weights on cuda:0; \d+ of its \d+ are free"),
    ],
)
def test_what_ends_the_use_of_a_gpu_is_one_error(name: str, message: str, fake_gpu: Any) -> None:
    done = subprocess.run(
        module_command("tests.gpu.lane_programs", name),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["type"] == "GpuError"
    assert re.search(message, said["error"]), said["error"]


def test_the_fake_is_asked() -> None:
    assert fake.__file__
