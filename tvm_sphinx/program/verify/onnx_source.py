"""An ONNX model, run by ONNX Runtime or by onnx's reference evaluator."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ...frontend.onnx_inference import fits_message, typed_graph
from .exact_products import as_defined
from .source import MASK, SOURCE_THREADS, NotVerifiedError, Range
from .tolerance import Array

# The reference evaluator computes with Python loops around NumPy: beyond this it would take minutes.
_MOST_REFERENCE_WEIGHTS = 64 << 20
# Operators that hand the elements of their first operand on as they are.
_PASSING = frozenset(
    "Identity Cast Reshape Unsqueeze Squeeze Flatten Transpose Expand Slice Concat Split Tile".split()
)
_CHOOSING = frozenset(["Equal", "Where", "And", "Or", "Xor", "Not", "Greater", "Less"])
_ROUNDING = (
    "QuantizeLinear",
    "DequantizeLinear",
    "QLinear",
    "DynamicQuantize",
    "ConvInteger",
    "MatMulInt",
)


class OnnxSource:
    """See `tvm_sphinx.program.verify.source.RunnableSource`.

    Inputs that are fixed are fed with their values, and are none of its own.

    Raises
    ------
    NotVerifiedError
        If neither ONNX Runtime is installed nor the model small enough for the reference evaluator.
    """

    def __init__(
        self, model: Any, path: Path | None = None, fixed: Mapping[str, Array] | None = None
    ) -> None:
        self._model, self._path, self._fixed = model, path, dict(fixed or {})
        known = {tensor.name for tensor in model.graph.initializer} | set(self._fixed)
        self._inputs = [value.name for value in model.graph.input if value.name not in known]
        if importlib.util.find_spec("onnxruntime") is None:
            size = sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer)
            if size > _MOST_REFERENCE_WEIGHTS:
                raise NotVerifiedError(
                    "onnxruntime is not installed, and the model is too large for onnx's reference "
                    "evaluator"
                )
        self._runtime = ""
        self._run = self._opened(model, path)

    @property
    def runtime(self) -> str:
        """What runs it, with its version."""
        return self._runtime

    @cached_property
    def computed_dtypes(self) -> frozenset[str]:
        """Types that decide how well its outputs are known; ``quantised`` where it rounds to 8 bits."""
        from onnx import TensorProto, helper

        found = set()
        graph = self._model.graph
        types = [value.type.tensor_type.elem_type for value in (*graph.input, *graph.value_info)]
        types += [tensor.data_type for tensor in graph.initializer]
        casts = [a.i for node in graph.node if node.op_type == "Cast" for a in node.attribute]
        for number in (*types, *casts):
            if number in (TensorProto.FLOAT16, TensorProto.BFLOAT16):
                found.add(str(helper.tensor_dtype_to_np_dtype(number)))
        if any(node.op_type.startswith(_ROUNDING) for node in graph.node):
            found.add("quantised")
        return frozenset(found)

    def example_shape(self, position: int) -> tuple[int, ...] | None:
        """Return None: a file has no examples."""
        return None

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        """Return the outputs for these inputs.

        Raises
        ------
        NotVerifiedError
            If the model would divide whole numbers by zero: runtimes then end the process.
        """
        self._check_divisors(arrays)
        return self._run(self._named(arrays))

    def values(self, arrays: Sequence[Array], names: Sequence[str]) -> list[Array]:
        """Return values inside the model for these inputs."""
        wanted = list(dict.fromkeys(names))
        found = self._opened(self._cut(wanted), None)(self._named(arrays))
        by_name = dict(zip(wanted, found, strict=True))
        return [by_name[name] for name in names]

    def known_values(self) -> frozenset[str]:
        """Return the names that `values` knows."""
        return frozenset(name for node in self._model.graph.node for name in node.output if name)

    def ranges(self) -> list[Range]:
        """Return what suits each input, if it is of whole numbers, by what reads it."""
        return [self._range(name) for name in self._inputs]

    # -- running

    def _named(self, arrays: Sequence[Array]) -> dict[str, Array]:
        return {**self._fixed, **dict(zip(self._inputs, arrays, strict=True))}

    def _opened(self, model: Any, path: Path | None) -> Callable[[dict[str, Array]], list[Array]]:
        """Return a function from inputs to outputs, by the first runtime that takes the model."""
        outputs = [value.name for value in model.graph.output]
        if importlib.util.find_spec("onnxruntime") is not None:
            import onnxruntime

            try:
                session = _session(model, path)
            except (
                Exception
            ) as error:  # each of ONNX Runtime's error classes derives from Exception alone
                refused = f"ONNX Runtime refuses the model: {_first_line(error)}"
            else:
                self._runtime = f"ONNX Runtime {onnxruntime.__version__}"
                return lambda inputs: [np.asarray(v) for v in session.run(outputs, inputs)]
        else:
            refused = "onnxruntime is not installed"
        import onnx
        from onnx.reference import ReferenceEvaluator

        try:
            evaluator = ReferenceEvaluator(model)
        except Exception as error:  # as above
            raise NotVerifiedError(f"{refused}; onnx's own evaluator: {_first_line(error)}") from error
        self._runtime = f"onnx's reference evaluator {onnx.__version__}"
        return lambda inputs: [np.asarray(value) for value in evaluator.run(outputs, inputs)]

    # -- cutting

    def _cut(self, names: Sequence[str]) -> Any:
        """Return a model that returns values inside this one, without what they do not need."""
        import onnx

        graph = self._model.graph
        needed, kept = set(names), []
        for node in reversed(graph.node):
            if needed & set(node.output):
                kept.append(node)
                needed.update(node.input)
                needed.update(_read_by_bodies(node))
        cut = onnx.ModelProto()
        cut.ir_version = self._model.ir_version
        cut.opset_import.extend(self._model.opset_import)
        cut.functions.extend(self._model.functions)
        cut.graph.name = graph.name or "cut"
        cut.graph.node.extend(reversed(kept))
        cut.graph.initializer.extend(t for t in graph.initializer if t.name in needed)
        cut.graph.input.extend(graph.input)
        cut.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
        return cut

    def _check_divisors(self, arrays: Sequence[Array]) -> None:
        constants = {tensor.name for tensor in self._model.graph.initializer}
        constants |= {o for n in self._model.graph.node if n.op_type == "Constant" for o in n.output}
        for name in self._whole_divisors:
            if name in constants:
                continue
            (value,) = self.values(arrays, [name])
            if value.dtype.kind in "iu" and not value.all():
                raise ZeroDivisionError(f"{name!r} divides whole numbers and is 0")

    @cached_property
    def _whole_divisors(self) -> list[str]:
        """Values that may divide whole numbers, in the order in which they are computed."""
        divisors = [n.input[1] for n in self._model.graph.node if n.op_type in ("Div", "Mod")]
        if not divisors:
            return []
        from onnx import TensorProto

        floats = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)
        types = {name: value for name, (value, _) in self._inferred.items()}
        return [name for name in dict.fromkeys(divisors) if types.get(name) not in floats]

    @cached_property
    def _inferred(self) -> dict[str, tuple[int, list[int]]]:
        """Element type and extents (0 where open) of each value that is known without running."""
        graph = typed_graph(self._model)
        found = {t.name: (int(t.data_type), list(t.dims)) for t in graph.initializer}
        for value in (*graph.input, *graph.value_info, *graph.output):
            tensor = value.type.tensor_type
            found.setdefault(value.name, (tensor.elem_type, [d.dim_value for d in tensor.shape.dim]))
        return found

    # -- what suits an input

    def _range(self, name: str) -> Range:
        reached, found, frontier = {name}, [], [name]
        while frontier:
            value = frontier.pop()
            for node in self._model.graph.node:
                for position, read in enumerate(node.input):
                    if read != value:
                        continue
                    if node.op_type in _PASSING and (position == 0 or node.op_type == "Concat"):
                        made = [output for output in node.output if output not in reached]
                        reached.update(made)
                        frontier.extend(made)
                    elif (use := self._use(node, position)) is not None:
                        found.append(use)
        if not found:
            return MASK
        low = max(use.low for use in found)
        return Range(low, max(low + 1, min(use.high for use in found)))

    def _use(self, node: Any, position: int) -> Range | None:
        """Return what suits an operand of whole numbers, None where nothing is known."""
        kind = node.op_type
        if kind in ("Div", "Mod") and position == 1:
            return Range(1, 4)
        if kind in _CHOOSING:
            return Range(0, 2)
        if kind in ("Gather", "GatherElements", "ScatterElements", "GatherND") and position == 1:
            _, extents = self._inferred.get(node.input[0], (0, []))
            if kind == "GatherND":
                known = [extent for extent in extents if extent > 0]
                return Range(0, min(known)) if known else None
            axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
            extent = extents[axis] if -len(extents) <= axis < len(extents) else 0
            return Range(0, extent) if extent > 0 else None
        # What is a shape, a count or a number of repeats.
        return Range(1, 2) if position and kind in ("Reshape", "Expand", "Tile", "TopK") else None


def _session(model: Any, path: Path | None) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = SOURCE_THREADS
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    # As the file says: what optimisers make of it is what others are compared with, not the measure.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    run = as_defined(model) if fits_message(model) else model
    # A file is read anew: to make a large model a string takes longer.
    content = str(path) if path is not None and run is model else run.SerializeToString()
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _read_by_bodies(node: Any) -> set[str]:
    """Return what the bodies of a node (the branches of an ``If``) read, names of their own included."""
    names: set[str] = set()
    for attribute in node.attribute:
        for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            for inner in graph.node:
                names.update(inner.input)
                names |= _read_by_bodies(inner)
            names.update(value.name for value in graph.output)
    return names


def _first_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
