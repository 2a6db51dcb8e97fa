"""Run a model on one CPU device of this machine, with the rules' kernels on a lane, unmeasured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from tvm_sphinx.frontend.extract import extract_task_graph
from tvm_sphinx.frontend.load import entry_function, load_model
from tvm_sphinx.frontend.lower import lower_to_kernels
from tvm_sphinx.platform import Device, Platform
from tvm_sphinx.platform.machine import usable_cores
from tvm_sphinx.platform.targets import device_target, host_target
from tvm_sphinx.program.kinds import flatten_outputs
from tvm_sphinx.relax_pass import annotate_schedule
from tvm_sphinx.runtime.build import build_executable
from tvm_sphinx.scheduling.schedule import Schedule

Array = npt.NDArray[Any]

_LEVELS = onnxruntime.GraphOptimizationLevel


def evaluate(model: Any, feeds: Mapping[str, Array]) -> list[Array]:
    """Return the outputs of whatever `load_model` takes, all of its kernels on one device."""
    platform = Platform((Device("host", host_target(), "cpu:0", usable_cores()[:1]),))
    target = device_target(platform.devices[0])
    module = load_model(model)
    extraction = extract_task_graph(lower_to_kernels(module, target, targets=[target]))
    count = extraction.graph.num_tasks
    starts = np.arange(count, dtype=np.int64)
    schedule = Schedule(np.zeros(count, np.int64), starts, starts + 1, count, 0, "one after the other")
    annotated = annotate_schedule(extraction, schedule, platform)
    names = [str(param.name) for param in module[entry_function(module)].params]
    ordered = [np.array(feeds[name], order="C") for name in names]
    return flatten_outputs(build_executable(annotated, platform).run(ordered))


def onnx_runtime(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> list[Array]:
    """Return the outputs that ONNX Runtime gives, with none of its optimisations."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.graph_optimization_level = _LEVELS.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, dict(feeds))


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
