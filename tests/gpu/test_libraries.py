"""Products by cuBLASLt: right numbers, in order, vetted and chosen; by default the fake library's."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tvm
from tvm import relax

import tvm_sphinx
from tests.gpu.modules import image, platform
from tests.kernels.test_library_product import drawn, gelu, only_kernel
from tests.networks import transformer
from tests.processes import module_command
from tests.runtime.modules import flat, list_schedule, random_inputs
from tvm_sphinx.cost.choose.candidates import Candidate
from tvm_sphinx.cost.choose.check_on_gpu import gpu_fault
from tvm_sphinx.cost.choose.costing import decide_kernels
from tvm_sphinx.cost.choose.kernel_costs import Implementation
from tvm_sphinx.cost.choose.library_candidates import LibraryKernels
from tvm_sphinx.cost.measure.gpu_results import results_on_gpu
from tvm_sphinx.cost.measure.gpu_timing import GpuCall, build_for_gpu
from tvm_sphinx.cost.measure.kernel_timing import MeasureConfig, kernel_of
from tvm_sphinx.cost.measure.kernels import implement_for, implementation_id
from tvm_sphinx.cost.records.store import RecordStore
from tvm_sphinx.errors import ArtifactError, GpuError, SphinxError, UnsupportedError
from tvm_sphinx.frontend.extract import Kernel, extract_task_graph
from tvm_sphinx.frontend.lower import lower_for_platform
from tvm_sphinx.kernels import LibraryMark, for_library
from tvm_sphinx.kernels.library_epilogue import ACTIVATIONS
from tvm_sphinx.platform import Link, Platform
from tvm_sphinx.platform.targets import device_target
from tvm_sphinx.program.options import CompileOptions
from tvm_sphinx.relax_pass import annotate_schedule
from tvm_sphinx.runtime.build import build_image
from tvm_sphinx.runtime.executable import ConcurrentExecutable
from tvm_sphinx.runtime.gpu_parts import GpuParts
from tvm_sphinx.runtime.image import Image
from tvm_sphinx.runtime.libraries import find_library

pytestmark = pytest.mark.gpu
op = relax.op
_FAULT = "FAKE_CUBLASLT_FAULT"


@pytest.fixture(autouse=True)
def _library() -> None:
    """Skip on a card whose machine has no cuBLASLt."""
    try:
        find_library("cublaslt")
    except UnsupportedError as error:
        pytest.skip(str(error))


def kernel(build: Callable[..., Any], shapes: Any, dtype: str = "float32") -> Kernel:
    return kernel_of(only_kernel(build, shapes, dtype), "product")


def library_call(one: Kernel, arrays: Sequence[np.ndarray], name: str = "cublaslt") -> list[np.ndarray]:
    """Return what a library computes of a kernel on the GPU, in two runs."""
    device = platform().devices[-1]
    candidate, *_ = LibraryKernels([name])(one, device)
    made = implementation(one, candidate)
    ty = one.argument_types[-1]
    result = tvm.runtime.empty([int(extent) for extent in ty.shape.values], str(ty.dtype))
    operands = [*map(tvm.runtime.tensor, arrays), result]
    call = GpuCall(build_for_gpu({"call": made.function}), "call", operands, device)
    return results_on_gpu(call)


def implementation(one: Kernel, candidate: Candidate) -> Implementation:
    device = platform().devices[-1]
    return Implementation(one, device, candidate, implementation_id(one, candidate.function, device))


def rule(one: Kernel) -> Implementation:
    function = implement_for(one, platform().devices[-1])
    return implementation(one, Candidate("rule", function))


_CASES: list[tuple[str, Callable[..., Any], list[list[int]], Callable[..., Any]]] = [
    ("two axes", op.matmul, [[3, 16], [16, 24]], np.matmul),
    ("three and two", op.matmul, [[2, 3, 16], [16, 24]], np.matmul),
    ("batch", op.matmul, [[2, 4, 3, 16], [2, 4, 16, 24]], np.matmul),
    ("one row", op.matmul, [[1, 16], [16, 24]], np.matmul),
    ("one column", op.matmul, [[3, 16], [16, 1]], np.matmul),
    (
        "right side transposed",
        lambda x, y: op.einsum((x, y), "mk,nk->mn"),
        [[3, 16], [24, 16]],
        lambda x, y: x @ y.T,
    ),
    (
        "left side transposed",
        lambda x, y: op.einsum((x, y), "km,kn->mn"),
        [[16, 3], [16, 24]],
        lambda x, y: x.T @ y,
    ),
    (
        "heads",
        lambda x, y: op.einsum((x, y), "bqhd,bkhd->bhqk"),
        [[1, 3, 2, 16], [1, 5, 2, 16]],
        lambda x, y: np.einsum("bqhd,bkhd->bhqk", x, y),
    ),
    (
        "pixels",
        lambda x, w, b: op.nn.relu(op.nn.conv2d(x, w) + b),
        [[2, 8, 3, 5], [6, 8, 1, 1], [1, 6, 1, 1]],
        lambda x, w, b: np.maximum(np.einsum("nchw,fc->nfhw", x, w[:, :, 0, 0]) + b, 0),
    ),
    (
        "bias",
        lambda x, y, b: op.matmul(x, y) + b,
        [[3, 16], [16, 24], [24]],
        lambda x, y, b: x @ y + b,
    ),
    (
        "bias and relu",
        lambda x, y, b: op.nn.relu(op.matmul(x, y) + b),
        [[2, 3, 16], [16, 24], [24]],
        lambda x, y, b: np.maximum(x @ y + b, 0),
    ),
    (
        "bias and gelu by tanh",
        lambda x, y, b: op.nn.gelu_tanh(op.matmul(x, y) + b),
        [[3, 16], [16, 24], [24]],
        lambda x, y, b: ACTIVATIONS["gelu_tanh"](x @ y + b),
    ),
    (
        "scaled sums and bias",
        lambda x, y, b: op.matmul(x, y) * relax.const(np.float32(-0.3)) + b,
        [[3, 16], [16, 24], [24]],
        lambda x, y, b: x @ y * np.float32(-0.3) + b,
    ),
    (
        "bias and gelu by the error function",
        lambda x, y, b: op.nn.gelu(op.matmul(x, y) + b),
        [[3, 16], [16, 24], [24]],
        lambda x, y, b: gelu(x @ y + b),
    ),
    (
        "bias and a residual",
        lambda x, y, b, z: op.matmul(x, y) + b + z,
        [[3, 16], [16, 24], [24], [3, 24]],
        lambda x, y, b, z: x @ y + b + z,
    ),
    (
        "a residual of a batch, and relu",
        lambda x, y, z: op.nn.relu(op.matmul(x, y) + z),
        [[2, 3, 16], [2, 16, 24], [2, 3, 24]],
        lambda x, y, z: np.maximum(x @ y + z, 0),
    ),
    (
        "a residual behind relu",
        lambda x, y, z: op.nn.relu(op.matmul(x, y)) + z,
        [[3, 16], [16, 24], [3, 24]],
        lambda x, y, z: np.maximum(x @ y, 0) + z,
    ),
]


@pytest.mark.parametrize(
    ("build", "shapes", "numpy"), [case[1:] for case in _CASES], ids=[case[0] for case in _CASES]
)
def test_products_are_numpy_s(build: Any, shapes: Any, numpy: Any) -> None:
    arrays = drawn(shapes)
    found = library_call(kernel(build, shapes), arrays)
    wanted = numpy(*(array.astype(np.float64) for array in arrays))
    for one in found:
        np.testing.assert_allclose(one, wanted, rtol=1e-5, atol=1e-5)


def test_halves_are_summed_as_floats() -> None:
    shapes = [[3, 256], [256, 24], [24]]
    arrays = [array.astype("float16") for array in drawn(shapes)]
    one = kernel(lambda x, y, b: op.matmul(x, y) + b, shapes, "float16")
    x, y, b = (array.astype(np.float64) for array in arrays)
    (found, _) = library_call(one, arrays)
    # Rounded once, at the end: to half of the last of 11 bits of numbers up to 64.
    np.testing.assert_allclose(found, x @ y + b, rtol=2**-10, atol=2**-10)


def test_tf32_is_taken_by_its_own_name_alone(pytestconfig: pytest.Config) -> None:
    shapes = [[3, 64], [64, 24]]
    arrays = drawn(shapes)
    wanted = arrays[0].astype(np.float64) @ arrays[1]
    exact, rounded = (
        library_call(kernel(op.matmul, shapes), arrays, name)[0]
        for name in ("cublaslt", "cublaslt-tf32")
    )
    assert np.abs(exact - wanted).max() < 3e-5
    # A real library may be exact all the same, where that is faster.
    least = 1e-4 if pytestconfig.getoption("--gpu") == "fake" else 0.0
    assert least <= np.abs(rounded - wanted).max() < 5e-2
    halves = kernel(op.matmul, shapes, "float16")
    assert LibraryKernels(["cublaslt-tf32"])(halves, platform().devices[-1]) == []
    assert LibraryKernels(["cublaslt"])(halves, platform().devices[0]) == []


def placed(module: Any, where: Platform, placement: Sequence[int]) -> Image:
    """Return a module in a placement, with all products of the GPU by the library."""
    extraction = extract_task_graph(lower_for_platform(module, where))
    source = LibraryKernels(["cublaslt"])

    def function(one: Kernel, device: Any) -> Any:
        found = source(one, device)
        return found[0].function.with_attr("target", device_target(device)) if found else None

    schedule = list_schedule(extraction, where, list(placement))
    return build_image(annotate_schedule(extraction, schedule, where, function), where, schedule)


def num_tasks(module: Any, where: Platform) -> int:
    return extract_task_graph(lower_for_platform(module, where)).graph.num_tasks


_SMALL = {"layers": 1, "length": 5, "width": 16}


@pytest.mark.parametrize("use_graphs", [True, False], ids=["graph", "streams"])
@pytest.mark.parametrize("alone", [True, False], ids=["alone", "mixed"])
def test_a_network_computes_the_same_with_the_library(alone: bool, use_graphs: bool) -> None:
    """Products, kernels of ours and copies in one graph, over streams of their own."""
    module, where = transformer(**_SMALL), platform(1, 2)
    count = num_tasks(module, where)
    drawn_places = np.random.default_rng(5).integers(0, 3, count)
    made = placed(module, where, [1] * count if alone else drawn_places.tolist())
    assert made.gpu is not None
    assert made.gpu.libraries == {"cublaslt": find_library("cublaslt").major}
    executable = ConcurrentExecutable(made, use_graphs=use_graphs)
    expected = ConcurrentExecutable(image(module, platform(0), device=0))
    inputs = random_inputs(expected)
    for _ in range(3):
        for found, wanted in zip(flat(executable.run(inputs)), flat(expected.run(inputs)), strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4)


def test_runs_are_equal_to_the_bit_and_traced() -> None:
    module, where = transformer(**_SMALL), platform(1, 2)
    made = placed(module, where, [1] * num_tasks(module, where))
    executable = ConcurrentExecutable(made)
    inputs = random_inputs(executable)
    first = flat(executable.run(inputs))
    result, trace = executable.run_traced(inputs)
    for again in (flat(executable.run(inputs)), flat(result)):
        for one, other in zip(first, again, strict=True):
            np.testing.assert_array_equal(one, other)
    calls = {name for name, (_, function) in made.gpu.functions.items() if function.calls}  # type: ignore[union-attr]  # it has a GPU
    steps = [
        traced
        for traced, step in zip(trace.steps, executable.plan.program.steps, strict=True)
        if step.function in calls
    ]
    assert steps
    assert all(step.end_ns > step.begin_ns for step in steps)


def test_workspaces_are_planned_and_counted_with_the_memory() -> None:
    """Streams that nothing orders have workspaces of their own; a small GPU has room for none."""
    module, where = two_products(), platform(1, 2)
    one = placed(module, where, [1] * num_tasks(module, where))
    two = placed(module, where, [1, 2])
    size = _workspace_bytes(one)
    assert size <= _arena_bytes(one) < 2 * size < _arena_bytes(two)
    ConcurrentExecutable(two).run([np.ones((4, 16), "float32")])
    limited = replace(where.devices[1], memory_bytes=1 << 20)
    small = Platform((where.devices[0], limited, where.devices[2]))
    with pytest.raises(UnsupportedError, match="at most 1048576 bytes on cuda:0"):
        placed(module, small, [1] * num_tasks(module, small))


def two_products() -> Any:
    """Return a module of two products of the same input, which may run side by side."""
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType([4, 16], "float32"))
    weights = [relax.const(array) for array in drawn([[16, 8], [16, 8]])]
    with builder.function("main", [x]):
        with builder.dataflow():
            pair = [builder.emit(op.matmul(x, weight)) for weight in weights]
            output = builder.emit_output(relax.Tuple(pair))
        builder.emit_func_output(output)
    return builder.finalize()


def _workspace_bytes(made: Image) -> int:
    return max(
        call.workspace_bytes
        for _, function in made.gpu.functions.values()  # type: ignore[union-attr]  # it has a GPU
        for call in function.calls
    )


def _arena_bytes(made: Image) -> int:
    return int(ConcurrentExecutable(made).plan.sizes["arena", "cuda:0"])


#: A kernel that shows whether bias and activation are right.
MODEL: tuple[Callable[..., Any], list[list[int]]] = (
    lambda x, y, b: op.nn.gelu_tanh(op.matmul(x, y) + b),
    [[4, 16], [16, 24], [24]],
)


def test_a_sound_library_passes() -> None:
    one = kernel(*MODEL)
    for name in ("cublaslt", "cublaslt-tf32"):
        for candidate in LibraryKernels([name])(one, platform().devices[-1]):
            assert gpu_fault(implementation(one, candidate), rule(one)) == ""


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("bias", "other numbers than our rule's"),
        ("gelu", "other numbers than our rule's"),
        ("drift", "other numbers in each run"),
        ("heuristic", "cuBLASLt says CUBLAS_STATUS_NOT_SUPPORTED"),
        ("create", "does not start: cuBLASLt says CUBLAS_STATUS_NOT_INITIALIZED"),
        ("matmul", "made a graph: cuBLASLt says CUBLAS_STATUS_EXECUTION_FAILED when it was called"),
    ],
)
def test_a_faulty_library_does_not(
    fake_gpu: Any, fault: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = kernel(*MODEL)
    fused, apart = LibraryKernels(["cublaslt"])(one, platform().devices[-1])
    monkeypatch.setenv(_FAULT, fault)
    assert says in gpu_fault(implementation(one, fused), rule(one))
    # Bias and activation are ours in the other one.
    is_of_product = fault not in ("bias", "gelu")
    assert (says in gpu_fault(implementation(one, apart), rule(one))) == is_of_product


@pytest.mark.parametrize(
    ("program", "fault", "says"),
    [
        ("library", "stream", "order|nothing has written"),
        ("shared_workspace", "none", "order"),
        ("vet_library", "stream", "order|nothing has written|other numbers"),
        ("vet_library", "transpose", "not allocated|other numbers"),
    ],
)
def test_what_is_out_of_order_or_reads_other_matrices_is_seen(
    fake_gpu: Any, program: str, fault: str, says: str
) -> None:
    done = subprocess.run(
        module_command("tests.gpu.lane_programs", program),
        capture_output=True,
        text=True,
        env={**os.environ, _FAULT: fault},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["type"] == "GpuError"
    assert re.search(says, str(found)), found


def test_an_error_of_a_run_has_the_library_s_status_and_the_next_one_works(
    fake_gpu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, where = two_products(), platform()
    made = placed(module, where, [1] * num_tasks(module, where))
    executable = ConcurrentExecutable(made, use_graphs=False)
    x = np.ones((4, 16), "float32")
    monkeypatch.setenv(_FAULT, "matmul")
    says = r"^cuBLASLt says CUBLAS_STATUS_EXECUTION_FAILED when it was called, in \w+\.$"
    with pytest.raises(GpuError, match=says):
        executable.run([x])
    monkeypatch.delenv(_FAULT)
    for one, weight in zip(flat(executable.run([x])), drawn([[16, 8], [16, 8]]), strict=True):
        np.testing.assert_allclose(one, x @ weight, rtol=1e-5, atol=1e-5)


def test_candidates_compete_and_are_on_record_under_their_own_keys(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, device, records = kernel(*MODEL), platform().devices[-1], RecordStore(None)
    config = MeasureConfig(sample_ms=0.1, under_load=False)
    source = LibraryKernels(["cublaslt", "cublaslt-tf32"])
    (cost,) = decide_kernels([one], [device], records, [source], config=config).values()
    origins = [other.candidate.origin for other in cost.others]
    assert origins == ["cublaslt", "cublaslt", "cublaslt-tf32", "cublaslt-tf32"]
    keys = {made.key for made in (cost.rule, *cost.others)}
    assert len(keys) == 5
    assert all(made.is_measured and made.time_ns > 0 for made in (cost.rule, *cost.others))
    fastest = min((cost.rule, *cost.others), key=lambda made: made.time_ns)
    assert cost.best is fastest or cost.best is cost.rule  # the rules' kernel, within noise
    other_version = for_library(one.function, LibraryMark("cublaslt", "99.0.0"))
    assert implementation_id(one, other_version, device) not in keys
    # What is on record is not measured again, and without the name it is no candidate.
    monkeypatch.setattr("tvm_sphinx.cost.choose.check_candidate.gpu_fault", None)
    (again,) = decide_kernels([one], [device], records, [source], config=config).values()
    assert {made.key for made in again.others} == keys - {cost.rule.key}
    (plain,) = decide_kernels([one], [device], records, config=config).values()
    assert plain.others == []


def test_a_faulty_library_is_dropped_with_a_warning(
    fake_gpu: Any, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setenv(_FAULT, "bias")
    one, device, records = kernel(*MODEL), platform().devices[-1], RecordStore(None)
    config = MeasureConfig(sample_ms=0.1, under_load=False)
    source = [LibraryKernels(["cublaslt"])]
    (cost,) = decide_kernels([one], [device], records, source, config=config).values()
    fused, apart = cost.others
    assert fused.is_measured
    assert fused.time_ns == -1
    assert apart.time_ns > 0
    assert cost.best in (cost.rule, apart)
    assert any("The cublaslt candidate of kernel" in str(told.message) for told in recwarn)


def compiled(tmp_path: Path, **options: Any) -> Any:
    where = platform(1, 1)
    pairs = itertools.permutations([device.name for device in where.devices], 2)
    return tvm_sphinx.compile(
        two_products(),
        replace(where, links=tuple(Link(src, dst, 10_000, 1e10) for src, dst in pairs)),
        records=tmp_path / "records.jsonl",
        measure=MeasureConfig(sample_ms=0.1, under_load=False),
        with_reference=False,
        pins=["*=gpu0.0"],
        **options,
    )


def test_a_model_is_compiled_with_it_saved_and_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On the fake GPU times mean nothing: whatever is sound wins.
    monkeypatch.setattr(
        "tvm_sphinx.cost.choose.kernel_costs.is_faster", lambda found_ns, *_: found_ns > 0
    )
    model = compiled(tmp_path, libraries=["cublaslt"], output=tmp_path / "model.sphinx")
    assert model.report is not None
    assert "cublaslt" in model.describe(verbose=True)
    inputs = model.random_inputs()
    read = tvm_sphinx.load(tmp_path / "model.sphinx")
    x = np.asarray(inputs["x"])
    for one, weight in zip(read.run(inputs), drawn([[16, 8], [16, 8]]), strict=True):
        np.testing.assert_allclose(np.asarray(one), x @ weight, rtol=1e-5, atol=1e-5)
    monkeypatch.setattr("tvm_sphinx.runtime.libraries._candidates", lambda file: iter(()))
    with pytest.raises(
        UnsupportedError,
        match=r"Expected cuBLASLt \d+ on this machine; none is found. Install it with: pip install ",
    ):
        tvm_sphinx.load(tmp_path / "model.sphinx").run(inputs)


def test_without_its_name_nothing_is_a_library_s() -> None:
    assert CompileOptions().library_kernels() == []


def test_an_unknown_library_is_named() -> None:
    with pytest.raises(SphinxError, match=r"Unknown library 'mkl'; known: cublaslt, cublaslt-tf32\."):
        tvm_sphinx.compile(two_products(), platform(), libraries=["mkl"])


def test_another_major_version_is_refused(fake_gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    module, where = two_products(), platform()
    made = placed(module, where, [1] * num_tasks(module, where))
    monkeypatch.setenv("FAKE_CUBLASLT_VERSION", "990100")
    with pytest.raises(
        GpuError, match=r"libcublasLt.so.13 cannot be used: it is of version 99.1, and 13"
    ):
        ConcurrentExecutable(made)


def test_programs_that_call_a_library_otherwise_are_not_the_same() -> None:
    module, where = two_products(), platform()
    made = placed(module, where, [1] * num_tasks(module, where))
    assert made.gpu is not None
    rounded = {
        name: (code, replace(one, launches=tuple(replace(call, type="tf32") for call in one.calls)))
        for name, (code, one) in made.gpu.functions.items()
    }
    other = replace(made, gpu=replace(made.gpu, functions=rounded))
    assert made.what_runs() != other.what_runs()


def test_parts_are_read_as_they_were_written() -> None:
    module, where = transformer(**_SMALL), platform()
    parts = placed(module, where, [1] * num_tasks(module, where)).gpu
    assert parts is not None
    manifest = json.loads(json.dumps(parts.manifest()))
    assert manifest["libraries"] == parts.libraries
    assert GpuParts.restore(manifest, parts.members()).functions == parts.functions
    (name, *_) = (name for name, (code, _) in parts.functions.items() if code >= 0)
    manifest["functions"][name]["image"] = -1
    with pytest.raises(ArtifactError, match="lies in image -1"):
        GpuParts.restore(manifest, parts.members())


def test_matrices_that_leave_their_tensors_are_refused() -> None:
    module, where = two_products(), platform()
    made = placed(module, where, [1] * num_tasks(module, where))
    assert made.gpu is not None
    wider = {
        name: (
            code,
            replace(
                function,
                launches=tuple(
                    replace(call, left=replace(call.left, leading=call.left.leading + 1))
                    for call in function.calls
                ),
            ),
        )
        for name, (code, function) in made.gpu.functions.items()
    }
    with pytest.raises(ValueError, match="program"):
        ConcurrentExecutable(replace(made, gpu=replace(made.gpu, functions=wider)))
