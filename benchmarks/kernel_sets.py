"""The distinct kernels of the benchmark models, lowered once and kept in a folder."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import models

from tvm_sphinx._tvm import relax, tvm
from tvm_sphinx.frontend.extract import Extraction, Kernel, extract_task_graph
from tvm_sphinx.frontend.lower import lower_to_kernels
from tvm_sphinx.platform import Platform
from tvm_sphinx.platform.targets import device_target
from tvm_sphinx.scheduling.graph import TaskGraph


@dataclass(frozen=True)
class KernelSet:
    """A task graph and its distinct kernels, without the weights of the model."""

    graph: TaskGraph
    kernels: dict[str, Kernel]


def load_kernel_set(name: str, platform: Platform, cache: Path) -> KernelSet:
    """Return the kernels of a benchmark model, lowered for the CPU devices of a platform.

    ``cache`` is a folder that keeps them; a file there is used as it is.

    Raises
    ------
    ModelError
        If the model is unknown or needs a package that is not installed.
    """
    path = cache / f"{name}.pickle"
    if path.is_file():
        return _unpack(pickle.loads(path.read_bytes()))
    targets = [device_target(device) for device in platform.devices]
    module = models.load(name).relax()
    lowered = lower_to_kernels(module, targets[platform.host_index], targets=targets)
    found = extract_task_graph(lowered)
    cache.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_bytes(pickle.dumps(_pack(found)))
    partial.rename(path)
    return KernelSet(found.graph, found.kernels)


def _pack(found: Extraction) -> dict[str, Any]:
    kernels = []
    for kernel in found.kernels.values():
        function = kernel.function if kernel.is_external else tvm.ir.save_json(kernel.function)
        types = [
            ([int(extent) for extent in ty.shape.values], str(ty.dtype)) for ty in kernel.argument_types
        ]
        kernels.append(
            (
                kernel.id,
                kernel.is_external,
                function,
                types,
                kernel.target_kind,
                kernel.weights,
                kernel.reuse_bytes,
            )
        )
    return {"graph": found.graph.to_json(), "kernels": kernels}


def _unpack(content: dict[str, Any]) -> KernelSet:
    kernels = {}
    for key, external, function, types, kind, weights, reuse in content["kernels"]:
        made = function if external else tvm.ir.load_json(function)
        tensors = tuple(relax.TensorType(shape, dtype) for shape, dtype in types)
        kernels[key] = Kernel(key, made, tensors, kind, weights, reuse)
    return KernelSet(TaskGraph.from_json(content["graph"]), kernels)
