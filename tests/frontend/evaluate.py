"""Run a model on one CPU device of this machine, with the rules' kernels on a lane, unmeasured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx.parser
import onnxruntime

from tests.frontend.run_module import run_default
from tvm_sphinx.errors import UnsupportedError
from tvm_sphinx.frontend.extract import Extraction, extract_task_graph
from tvm_sphinx.frontend.load import entry_function, load_model
from tvm_sphinx.frontend.lower import lower_for_platform
from tvm_sphinx.frontend.schedulable import find_schedulable
from tvm_sphinx.frontend.wire import DYNAMIC, INPUT, STATIC
from tvm_sphinx.platform import Device, Platform
from tvm_sphinx.platform.machine import usable_cores
from tvm_sphinx.platform.targets import device_target, host_target
from tvm_sphinx.program.kinds import flatten_outputs
from tvm_sphinx.program.verify.exact_products import as_defined
from tvm_sphinx.relax_pass import annotate_schedule
from tvm_sphinx.runtime.build import build_executable
from tvm_sphinx.scheduling.schedule import Schedule

Array = npt.NDArray[Any]

_LEVELS = onnxruntime.GraphOptimizationLevel


def evaluate(model: Any, feeds: Mapping[str, Array], *, falls_back: bool = False) -> list[Array]:
    """Return the outputs of whatever `load_model` takes, all of its kernels on one device."""
    return build(model, falls_back=falls_back)(feeds)


def build(
    model: Any, num_devices: int = 1, *, falls_back: bool = False
) -> Callable[[Mapping[str, Array]], list[Array]]:
    """Return what runs whatever `load_model` takes, task by task in turn on devices of one core each.

    With ``falls_back`` what cannot be scheduled, or what of it cannot, is built as `compile` builds it,
    by TVM's own pipeline.
    """
    cores = usable_cores()
    target = host_target()
    devices = [Device(f"host{i}", target, "cpu:0", (cores[i % len(cores)],)) for i in range(num_devices)]
    platform = Platform(tuple(devices))
    module = load_model(model)
    names = [str(param.name) for param in module[entry_function(module)].params]
    entry = entry_function(module)
    if not falls_back:
        lowered = lower_for_platform(module, platform, entry)
        return _on_lanes(extract_task_graph(lowered, entry), platform, names)
    try:
        found = find_schedulable(module, platform, entry)
    except UnsupportedError:
        run = run_default(module, device_target(devices[0]))
        return lambda feeds: run([feeds[name] for name in names])
    static = _on_lanes(found.extraction, platform, names)
    if found.split is None:
        return static
    split, run = found.split, run_default(found.split.dynamic, device_target(devices[0]))

    def in_two_parts(feeds: Mapping[str, Array]) -> list[Array]:
        known = {INPUT: [feeds[name] for name in names], STATIC: static(feeds)}
        known[DYNAMIC] = run([known[source][number] for source, number in split.reads])
        return [known[source][number] for source, number in split.outputs]

    return in_two_parts


def _on_lanes(
    extraction: Extraction, platform: Platform, names: Sequence[str]
) -> Callable[[Mapping[str, Array]], list[Array]]:
    num_devices = len(platform.devices)
    count = extraction.graph.num_tasks
    starts = np.arange(count, dtype=np.int64)
    schedule = Schedule(starts % num_devices, starts, starts + 1, count, 0, "one after the other")
    executable = build_executable(annotate_schedule(extraction, schedule, platform), platform)
    return lambda feeds: flatten_outputs(
        executable.run([np.array(feeds[name], order="C") for name in names])
    )


def onnx_runtime(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> list[Array]:
    """Return the outputs that ONNX Runtime gives, with none of its optimisations."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.graph_optimization_level = _LEVELS.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        as_defined(model).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, dict(feeds))


def parse_model(
    graph: str, weight: Array, *, version: int = 17, node_name: str = "{op}_{number}"
) -> onnx.ModelProto:
    """Return a model of a graph in onnx's text form, whose weight is ``w``, with inferred types."""
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": {version}]> {graph}')
    for output in model.graph.output:
        output.ClearField("type")
    for number, node in enumerate(model.graph.node):
        node.name = node_name.format(op=node.op_type, number=number)
    model.graph.ClearField("initializer")
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    return onnx.shape_inference.infer_shapes(model)


def make_model(
    nodes: Sequence[onnx.NodeProto],
    feeds: Mapping[str, Array],
    outputs: Sequence[str],
    weights: Mapping[str, Array] | None = None,
    *,
    opset: int = 17,
) -> onnx.ModelProto:
    """Return a model whose inputs have the types of some arrays; types of outputs are inferred."""
    described = [
        onnx.helper.make_tensor_value_info(
            name, onnx.helper.np_dtype_to_tensor_dtype(value.dtype), value.shape
        )
        for name, value in feeds.items()
    ]
    constants = [onnx.numpy_helper.from_array(value, name) for name, value in (weights or {}).items()]
    graph = onnx.helper.make_graph(
        list(nodes),
        "graph",
        described,
        [onnx.helper.make_empty_tensor_value_info(name) for name in outputs],
        constants,
    )
    domains = [("", opset), ("com.microsoft", 1)]
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid(*d) for d in domains])
    model.ir_version = 10
    return model
