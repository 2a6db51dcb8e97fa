"""Products of BERT and ViT on a GPU: kernels of ours beside cuBLASLt, right numbers and times.

    python benchmarks/gpu/libraries.py OUT.jsonl [MODEL ...]

For each distinct product of an encoder: whether the library computes what our kernel does (``fault`` is
"" then), and what each takes as it is measured for a schedule, launch by launch in a graph. Then the
whole encoder on one stream, as one graph: with our kernels alone, with each library wherever it is
right, and how far the results are apart. A row in OUT is written when it is known; ratios above 1 are in
favour of the library. ``small`` is for a run that has to be quick. ``gelu`` is one product with a bias
and a GELU by tanh, which the library computes or leaves to a kernel of ours ("apart").
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
from platforms import gpu_alone, install_fake_compiler

from tests.networks import transformer
from tvm_sphinx._tvm import relax
from tvm_sphinx.cost.choose.check_on_gpu import gpu_fault
from tvm_sphinx.cost.choose.costing import decide_kernels
from tvm_sphinx.cost.choose.kernel_costs import Implementation, KernelCost
from tvm_sphinx.cost.choose.library_candidates import LibraryKernels
from tvm_sphinx.cost.measure.kernel_timing import MeasureConfig, shape_texts
from tvm_sphinx.cost.measure.kernels import implement_for
from tvm_sphinx.cost.records.store import RecordStore
from tvm_sphinx.frontend.extract import Extraction, Kernel, extract_task_graph
from tvm_sphinx.frontend.lower import lower_for_platform
from tvm_sphinx.kernels import find_library_product, library_of
from tvm_sphinx.platform import Device
from tvm_sphinx.platform.targets import device_target
from tvm_sphinx.relax_pass import annotate_schedule
from tvm_sphinx.runtime.build import build_executable
from tvm_sphinx.runtime.libraries import LIBRARY_CHOICES, find_library
from tvm_sphinx.scheduling.schedule import Schedule

_MEASURE = MeasureConfig(sample_ms=1.0, under_load=False)
_RUNS = 30
#: Layers, tokens, width and heads; two layers tell as much as twelve. No layers: `gelu`.
MODELS = {
    "gelu": (0, 128, 768, 0),
    "bert_base": (2, 128, 768, 12),
    "vit_b16": (2, 197, 768, 12),
    "small": (1, 5, 16, 2),
}
Row = dict[str, Any]


def gelu(tokens: int, width: int) -> Any:
    """Return the first half of an MLP as GPT-2 has it."""
    rng = np.random.default_rng(0)
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType([1, tokens, width], "float32"))
    weight, bias = (
        relax.const(0.03 * rng.standard_normal(shape, dtype="float32"))
        for shape in ((width, 4 * width), (4 * width,))
    )
    with builder.function("main", [x]):
        with builder.dataflow():
            made = relax.op.add(relax.op.matmul(x, weight), bias)
            output = builder.emit_output(relax.op.nn.gelu_tanh(made))
        builder.emit_func_output(output)
    return builder.get()


def rows_of(model: str) -> Iterator[Row]:
    """Yield a row for each distinct product of an encoder, and one for the whole."""
    layers, length, width, heads = MODELS[model]
    module = gelu(length, width)
    if layers:
        module = transformer(layers=layers, length=length, width=width, heads=heads)
    platform = gpu_alone()
    device = platform.devices[-1]
    extraction = extract_task_graph(lower_for_platform(module, platform))
    calls = Counter(task.kernel for task in extraction.graph.tasks)
    found: dict[str, KernelCost] = {}
    for kernel in extraction.kernels.values():
        if kernel.is_external or find_library_product(kernel.function) is None:
            continue
        begin = time.perf_counter()
        source = [LibraryKernels(tuple(LIBRARY_CHOICES))]
        costs = decide_kernels([kernel], [device], RecordStore(None), source, config=_MEASURE)
        (found[kernel.id],) = costs.values()
        row = {"calls": calls[kernel.id], **product_row(found[kernel.id])}
        yield {"model": model, "row": "product", **row, "seconds": round(time.perf_counter() - begin, 2)}
    yield {"model": model, "row": "whole", **whole_row(extraction, platform, found, (1, length, width))}


def product_row(cost: KernelCost) -> Row:
    """Return what is known of a product by each implementation."""
    product = find_library_product(cost.rule.kernel.function)
    assert product is not None
    sizes = [product.batch, product.rows, product.columns, product.depth]
    row: Row = {
        "shapes": shape_texts(cost.rule.kernel),
        "batch_rows_columns_depth": sizes,
        "activation": product.activation,
        "has_bias": product.bias >= 0,
        "has_rest": product.rest is not None,
        "ours_us": cost.rule.time_ns / 1e3,
    }
    for other in cost.others:
        name = form_of(other)
        row[name] = {"fault": gpu_fault(other, cost.rule) if other.time_ns < 0 else ""}
        if other.time_ns >= 0:
            row[name]["us"] = other.time_ns / 1e3
            row[name]["ratio"] = round(cost.rule.time_ns / other.time_ns, 3)
            row[name]["tflop_per_s"] = round(2e-3 * float(np.prod(sizes)) / other.time_ns, 3)
    return row


def form_of(other: Implementation) -> str:
    """Return the library, and whether what follows is left to a kernel of ours though it need not be."""
    mark = library_of(other.candidate.function)
    assert mark is not None
    return mark.choice if mark.is_fused else f"{mark.choice} apart"


def whole_row(
    extraction: Extraction, platform: Any, costs: dict[str, KernelCost], shape: tuple[int, ...]
) -> Row:
    """Return what the whole takes on one stream, and how far from ours the library's results are."""
    count, device = extraction.graph.num_tasks, len(platform.devices) - 1
    start = np.arange(count) * 10
    schedule = Schedule(np.full(count, device), start, start + 10, 10 * count, 0, "on the GPU")
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    row: Row = {"tasks": count}
    expected = None
    for name in ("ours", *LIBRARY_CHOICES):

        def function(kernel: Kernel, where: Device, name: str = name) -> Any:
            cost = costs.get(kernel.id)
            others = [] if cost is None or where.is_cpu else cost.others
            for other in others:
                if form_of(other) == name and other.time_ns >= 0:
                    return other.candidate.function.with_attr("target", device_target(where))
            return implement_for(kernel, where)

        annotated = annotate_schedule(extraction, schedule, platform, function)
        executable = build_executable(annotated, platform, schedule)
        result = np.array(np.from_dlpack(executable.run([x])))
        times = [int(executable.gpu_durations_ns([x]).sum()) for _ in range(_RUNS)][1:]
        expected = result if expected is None else expected
        row[name] = {
            "graph_us": round(float(np.median(times)) / 1e3, 2),
            "p10_us": round(float(np.quantile(times, 0.1)) / 1e3, 2),
            "p90_us": round(float(np.quantile(times, 0.9)) / 1e3, 2),
            "relative_difference": float(np.abs(result - expected).max() / np.abs(expected).max()),
        }
        row[name]["ratio"] = round(row["ours"]["graph_us"] / row[name]["graph_us"], 3)
    return row


def show(row: Row) -> None:
    """Print a row in a line."""
    names = [name for name in row if name.startswith("cublaslt")]
    if row["row"] == "product":
        told = ", ".join(
            f"{name} {row[name]['us']:.2f} us ({row[name]['ratio']:.2f}x)"
            if "us" in row[name]
            else f"{name} FAULT: {row[name]['fault']}"
            for name in names
        )
        print(f"{row['model']} {row['batch_rows_columns_depth']} ours {row['ours_us']:.2f} us, {told}")
        return
    told = ", ".join(
        f"{name} {row[name]['graph_us']} us ({row[name]['ratio']:.2f}x, "
        f"{row[name]['relative_difference']:.1e} apart)"
        for name in ("ours", *names)
    )
    print(f"{row['model']} whole: {told}")


def main(path: str, *models: str) -> None:
    install_fake_compiler()
    print(find_library("cublaslt"))
    with open(path, "a", buffering=1) as file:
        for model in models or ("gelu", "bert_base", "vit_b16"):
            for row in rows_of(model):
                file.write(json.dumps(row) + "\n")
                show(row)
                sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
