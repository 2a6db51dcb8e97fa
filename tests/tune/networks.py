"""A model of one matrix product, small enough to tune in a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tvm
from tvm import relax

from tvm_sphinx.frontend.extract import Extraction, extract_task_graph
from tvm_sphinx.frontend.lower import lower_to_kernels
from tvm_sphinx.platform import Device, Platform
from tvm_sphinx.platform.machine import usable_cores
from tvm_sphinx.platform.targets import device_target, host_target


def product_net(rows: int = 24, columns: int = 40) -> tvm.IRModule:
    rng = np.random.default_rng(0)
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType([rows, 32], "float32"))
    weight = relax.const(rng.standard_normal((32, columns)).astype("float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            product = builder.emit(relax.op.matmul(x, weight))
            output = builder.emit_output(builder.emit(relax.op.nn.relu(product)))
        builder.emit_func_output(output)
    return builder.finalize()


def one_core() -> Platform:
    return Platform((Device("one", host_target(), "cpu:0", (usable_cores()[0],)),))


def extract(module: Any, platform: Platform) -> Extraction:
    targets = [device_target(device) for device in platform.devices]
    return extract_task_graph(lower_to_kernels(module, targets[0], "main", targets=targets), "main")


def write_model(folder: Path) -> Path:
    path = folder / "model.json"
    path.write_text(tvm.ir.save_json(product_net()))
    return path
