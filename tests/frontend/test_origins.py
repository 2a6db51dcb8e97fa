"""Each task leads back to the operators of the source that it computes, through import and fusion."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import numpy as np
import onnx.parser
import pytest
from onnx import numpy_helper
from tvm import relax

from tvm_sphinx.frontend.extract import extract_task_graph
from tvm_sphinx.frontend.load import load_model
from tvm_sphinx.frontend.lower import lower_to_kernels
from tvm_sphinx.frontend.record_origins import source_line
from tvm_sphinx.platform import Device
from tvm_sphinx.platform.targets import device_target, host_target
from tvm_sphinx.scheduling.graph import TaskGraph


def twin_towers() -> onnx.ModelProto:
    """Return two equal towers, whose fused groups share one function, and a sum of them."""
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]>'
        "net (float[1,3,8,8] x, float[1,3,8,8] z) => (float[1,4,8,8] y) <float[4,3,3,3] w> {"
        "  a = Conv <pads=[1,1,1,1]> (x, w) ra = Relu(a)"
        "  b = Conv <pads=[1,1,1,1]> (z, w) rb = Relu(b)"
        "  s = Tanh(ra) t = Softmax(rb) y = Add(s, t) }"
    )
    del model.graph.value_info[:]
    weight = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    for number, node in enumerate(model.graph.node):
        node.name = f"tower/{node.op_type}_{number}" if number < 5 else ""
    return model


def task_graph(model: object, *, layouts: bool = True) -> TaskGraph:
    target = device_target(Device("one", host_target(), "cpu:0", (0,)))
    lowered = lower_to_kernels(load_model(model), target, targets=[target] if layouts else [])
    return extract_task_graph(lowered).graph


@pytest.mark.parametrize("layouts", [True, False])
def test_groups_that_share_a_function_keep_their_own_origins(layouts: bool) -> None:
    graph = task_graph(twin_towers(), layouts=layouts)
    found = [task.origin for task in graph.tasks if set(task.op_kinds) & {"conv2d", "conv2d_nchw"}]
    conv_tasks = [origin for origin in found if any(text.startswith("Conv ") for text in origin)]
    assert len(conv_tasks) == 2
    first, second = sorted(conv_tasks)
    assert {"Conv tower/Conv_0", "Relu tower/Relu_1"} <= set(first)
    assert {"Conv tower/Conv_2", "Relu tower/Relu_3"} <= set(second)
    assert not set(conv_tasks[0]) & set(conv_tasks[1])
    # A node without a name is known by what it makes; no task is without an origin.
    assert any("Add y" in task.origin for task in graph.tasks)
    assert all(task.origin for task in graph.tasks)
    assert graph.tasks[0].name.startswith("tower/")


def test_kernels_and_costs_do_not_depend_on_names() -> None:
    renamed = twin_towers()
    for node in renamed.graph.node:
        node.name = "other" + node.name
    graph, other = task_graph(twin_towers()), task_graph(renamed)
    assert [task.name for task in graph.tasks] != [task.name for task in other.tasks]
    assert graph.fingerprint == other.fingerprint
    assert TaskGraph.from_json(graph.to_json()) == graph
    before = graph.to_json()
    for task in before["tasks"]:
        del task["origin"]  # as files of before have it
    bare = TaskGraph.from_json(before)
    assert bare == replace(graph, tasks=tuple(replace(task, origin=()) for task in graph.tasks))


def test_importing_leaves_tvm_as_it_was() -> None:
    from tvm.relax.frontend.onnx import onnx_frontend

    before = relax.BlockBuilder.emit, onnx_frontend.ONNXGraphImporter
    load_model(twin_towers())
    assert (relax.BlockBuilder.emit, onnx_frontend.ONNXGraphImporter) == before


def test_the_innermost_line_outside_of_torch_is_named() -> None:
    trace = (
        '  File "/home/me/net.py", line 7, in forward\n    return self.block(x)\n'
        '  File "/home/me/net.py", line 3, in forward\n    return self.act(self.conv(x))\n'
        '  File "/lib/site-packages/torch/nn/modules/conv.py", line 5, in forward\n    return conv(x)\n'
    )
    assert source_line(trace) == "net.py:3: return self.act(self.conv(x))"
    assert source_line("") == ""


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
def test_tasks_of_a_torch_program_name_its_lines() -> None:
    import torch

    class Net(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = torch.tanh(x @ x)
            return torch.softmax(y, -1)  # another line

    program = torch.export.export(Net(), (torch.ones(4, 4),))
    origins = [text for task in task_graph(program).tasks for text in task.origin]
    assert any("test_origins.py:" in text and "y = torch.tanh(x @ x)" in text for text in origins)
    assert any("return torch.softmax(y, -1)" in text for text in origins)
