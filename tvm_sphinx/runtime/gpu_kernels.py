"""GPU kernels as machine code, and how to launch them without TVM. [TVM]

TVM splits a PrimFunc for a GPU into CUDA kernels and a host function that launches them. With static
shapes that host function is nothing but a list of launches, which is read here; the lanes launch the
kernels themselves, through the driver alone. Memory that a PrimFunc needs between its kernels is told
here too, so that it is planned like any other tensor.
"""

from __future__ import annotations

import functools
import json
import math
import re
import threading
from dataclasses import dataclass
from typing import Any

from tvm.tirx.build import codegen_build, split_host_device_mods

from .._tvm import tirx, tvm, tvm_ffi
from ..errors import NoCodeError, cause_of
from .gpu_launch import GpuFunction, Launch

_DYNAMIC_SHARED = "tirx.use_dyn_shared_memory"
_AXES = {
    f"{index}.{axis}": (index, "xyz".index(axis))
    for index in ("blockIdx", "threadIdx")
    for axis in "xyz"
}


@dataclass(frozen=True)
class GpuCode:
    """CUDA source of a PrimFunc, and how to run it."""

    source: str
    function: GpuFunction


# Every PrimFunc is compiled under this name, so that equal ones have equal sources.
_NAME = "main"
_NOT_IN_NAMES = re.compile(r"\W", re.ASCII)


def generate_cuda(function: Any, target: Any) -> GpuCode:
    """Return the CUDA source of a PrimFunc that is bound to threads of a target.

    Raises
    ------
    NoCodeError
        If TVM refuses it, or its host part does more than launch kernels.
    """
    # Its name differs from where it is timed to where it is built in.
    return _generate(_with_identifiers(function.without_attr("global_symbol")), target)


@functools.lru_cache(maxsize=4096)
def _generate(function: str, target: Any) -> GpuCode:
    """Do as `generate_cuda`, for a PrimFunc as JSON: it is asked for to be timed and to be built in."""
    split = _AfterSplit()
    try:
        with target:
            pipeline, _, finish = tirx.get_default_tir_pipeline(target)
            # Not `tvm.ir.load_json`: it rewrites the text for versions of old, which takes longer than
            # all the rest here.
            loaded = tvm_ffi.serialization.from_json_graph_str(function)
            named = loaded.with_attr("global_symbol", _NAME)
            module = tirx.transform.BindTarget(target)(tvm.IRModule({_NAME: named}))
            with tvm.transform.PassContext(instruments=[split]):
                module = pipeline(module)
            (kernels,) = split_host_device_mods(module)[1].values()
            source = _cuda_source(finish()(kernels), target)
    except Exception as error:  # TVM raises many types
        raise NoCodeError(f"A kernel cannot be compiled for {target}: {cause_of(error)}") from error
    return GpuCode(source, _HostFunction(split.module[_NAME]).read())


def _with_identifiers(function: Any) -> str:
    """Return a PrimFunc as JSON, its variables with names that C++ knows, as a model file's need not be.

    TVM writes the names of a kernel's arguments into its CUDA source as they are.
    """
    content = json.loads(tvm.ir.save_json(function))
    nodes = content["nodes"]
    for node in list(nodes):
        if node["type"] != "ir.Var":
            continue
        name = str(nodes[node["data"]["name"]]["data"])
        plain = _NOT_IN_NAMES.sub("_", name)
        if plain != name:
            # A node of its own: other strings may share the old one.
            node["data"]["name"] = len(nodes)
            nodes.append({"type": "ffi.String", "data": plain})
    return json.dumps(content)


@tvm.ir.instrument.pass_instrument
class _AfterSplit:
    """Keeps the module as it is once each function is split into its host part and its kernels."""

    def __init__(self) -> None:
        self.module: Any = None

    def run_after_pass(self, module: Any, info: Any) -> None:
        """Keep the module after the pass that splits."""
        if str(info.name) == "tirx.SplitHostDevice":
            self.module = module


_COMPILE_HOOK = "tvm_callback_cuda_compile"
_hook_lock = threading.Lock()


def _cuda_source(kernels: Any, target: Any) -> str:
    """Return the source that TVM generates, which it wants compiled where its CUDA runtime is loaded."""
    taken: list[str] = []

    def take(code: str) -> bytes:
        taken.append(str(code))
        return b"not compiled here"

    with _hook_lock:
        before = tvm_ffi.get_global_func(_COMPILE_HOOK, allow_missing=True)
        tvm_ffi.register_global_func(_COMPILE_HOOK, take, override=True)
        try:
            built = codegen_build(kernels, target)
        finally:
            if before is None:
                tvm_ffi.remove_global_func(_COMPILE_HOOK)
            else:
                tvm_ffi.register_global_func(_COMPILE_HOOK, before, override=True)
    return taken[0] if taken else str(built.inspect_source("cuda"))


class _HostFunction:
    """Reads the host part of a PrimFunc: buffers that are names or workspaces, and launches."""

    def __init__(self, function: Any) -> None:
        self.function = function
        # Position in the operands of the step that the data of each buffer is.
        self.operand = {param: position for position, param in enumerate(function.params)}
        self.workspaces: list[int] = []
        self.launches: list[Launch] = []

    def read(self) -> GpuFunction:
        """Return the launches and the workspaces."""
        self._read(self.function.body)
        return GpuFunction(tuple(self.launches), tuple(self.workspaces))

    def _read(self, statement: Any) -> None:
        if isinstance(statement, tirx.SeqStmt):
            for each in statement:
                self._read(each)
        elif isinstance(statement, tirx.DeclBuffer):
            self.operand[statement.buffer] = self._operand(statement.data)
        elif isinstance(statement, tirx.AllocBuffer):
            self.operand[statement.buffer] = len(self.function.params) + len(self.workspaces)
            self.workspaces.append(self._bytes(statement.buffer))
        elif isinstance(statement, tirx.Evaluate) and isinstance(statement.value, tvm.ir.Call):
            self._launch(statement.value)
        elif not _does_nothing(statement):
            raise self._refusal(statement)

    def _bytes(self, buffer: Any) -> int:
        extents = [_constant(extent) for extent in buffer.shape]
        known = [extent for extent in extents if extent is not None]
        if len(known) < len(extents) or buffer.scope() != "global":
            raise self._refusal(buffer)
        return math.prod(known) * int(tvm_ffi.dtype(str(buffer.dtype)).itemsize)

    def _operand(self, data: Any) -> int:
        if isinstance(data, tvm.ir.Call) and str(data.op.name) == "tirx.buffer_data":
            (buffer,) = data.args
            if buffer in self.operand:
                return self.operand[buffer]
        raise self._refusal(data)

    def _launch(self, call: Any) -> None:
        if str(call.op.name) != "tirx.call_ffi_kernel":
            raise self._refusal(call)
        kernel, *arguments = call.args
        tags = [str(tag) for tag in call.attrs.launch_params]
        count = len(arguments) - len(tags)
        extents = {"blockIdx": [1, 1, 1], "threadIdx": [1, 1, 1]}
        shared = 0
        for tag, argument in zip(tags, arguments[count:], strict=True):
            value = _constant(argument)
            if value is None or (tag not in _AXES and tag != _DYNAMIC_SHARED):
                raise self._refusal(call)
            if tag == _DYNAMIC_SHARED:
                shared = value
            else:
                index, axis = _AXES[tag]
                extents[index][axis] = value
        self.launches.append(
            Launch(
                str(kernel.value),
                tuple(extents["blockIdx"]),
                tuple(extents["threadIdx"]),
                shared,
                tuple(self._operand(argument) for argument in arguments[:count]),
            )
        )

    def _refusal(self, what: Any) -> NoCodeError:
        text = cause_of(ValueError(str(what)))
        return NoCodeError(f"Lanes launch kernels of a GPU, and no more; there is {text}")


def _constant(expr: Any) -> int | None:
    return int(expr.value) if isinstance(expr, tirx.IntImm) else None


def _does_nothing(statement: Any) -> bool:
    return isinstance(statement, tirx.Evaluate) and isinstance(statement.value, tirx.IntImm)
