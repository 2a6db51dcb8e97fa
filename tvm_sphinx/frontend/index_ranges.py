"""Which values a model takes for an input whose elements are indices, such as token ids.

Only an input that reaches its reader as it is counts: every element is an index then, and one that is
out of range is an error in the source framework. What a model computes is not known before it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from .model_source import ModelSource
from .tensor_spec import IndexRange, TensorSpec

#: A reader of a value: what it hands the elements on to, or else the range that it takes.
_Uses = Callable[[Any], Iterator[Any]]

_ONNX_INDEXING = frozenset(["Gather", "GatherElements", "GatherND", "ScatterElements", "ScatterND"])
# Operators that hand all elements of an operand on as they are.
_ONNX_PASSING = frozenset(
    ["Identity", "Reshape", "Unsqueeze", "Squeeze", "Flatten", "Transpose", "Concat"]
)
_TORCH_PASSING = frozenset(
    "view reshape _unsafe_view unsqueeze squeeze _to_copy to clone alias contiguous permute transpose "
    "flatten detach cat lift_fresh_copy".split()
)
# Operand of the tensor that is indexed, that of the indices, and of the axis (None for the first).
_TORCH_INDEXING = {
    "embedding": (0, 1, None),
    "embedding_bag": (0, 1, None),
    "_embedding_bag": (0, 1, None),
    "index_select": (0, 2, 1),
    "gather": (0, 2, 1),
    "scatter": (0, 2, 1),
    "scatter_add": (0, 2, 1),
    "index_add": (0, 2, 1),
    "index_copy": (0, 2, 1),
}
_WHOLE = ("int32", "int64")


def with_index_ranges(source: ModelSource, specs: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
    """Return the inputs of a source with the ranges of those that are indices."""
    whole = [spec.name for spec in specs if spec.dtype in _WHOLE]
    if not whole or source.kind == "relax":
        return tuple(specs)
    found = _onnx_ranges(source, specs) if source.kind == "onnx" else _torch_ranges(source.model)
    return tuple(
        replace(spec, index=found.get(spec.name)) if spec.name in whole else spec for spec in specs
    )


def _range_of(start: Any, uses: _Uses) -> IndexRange | None:
    """Return what all readers take that a value reaches, None where there is none."""
    found, reached, frontier = [], [start], [start]
    while frontier:
        for use in uses(frontier.pop()):
            if isinstance(use, IndexRange):
                found.append(use)
            elif use not in reached:
                reached.append(use)
                frontier.append(use)
    if not found:
        return None
    strictest = min(found, key=lambda each: each.high)
    return replace(strictest, low=max(each.low for each in found))


# -- ONNX


def _onnx_ranges(source: ModelSource, specs: Sequence[TensorSpec]) -> dict[str, IndexRange | None]:
    model = source.model
    readers: dict[str, list[tuple[Any, int]]] = {}
    for node in model.graph.node:
        for position, name in enumerate(node.input):
            readers.setdefault(name, []).append((node, position))
    extents: dict[str, tuple[int, ...]] = {spec.name: spec.shape for spec in specs}
    extents |= {name: value.shape for name, value in source.fixed.items()}
    extents |= {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    extents |= dict(_onnx_constants(model.graph.node))

    def uses(name: str) -> Iterator[Any]:
        for node, position in readers.get(name, []):
            if _onnx_passes(node, position):
                yield from node.output
            elif node.op_type in _ONNX_INDEXING and position == 1:
                table = node.input[0]
                if (most := _onnx_extent(node, extents.get(table, ()))) > 0:
                    yield IndexRange(-most, most - 1, f"{node.op_type} of {table!r}")

    return {spec.name: _range_of(spec.name, uses) for spec in specs}


def _onnx_passes(node: Any, position: int) -> bool:
    if node.domain not in ("", "ai.onnx"):
        return False
    if node.op_type == "Cast":
        from onnx import TensorProto

        return any(
            a.name == "to" and a.i in (TensorProto.INT32, TensorProto.INT64) for a in node.attribute
        )
    return node.op_type in _ONNX_PASSING and (position == 0 or node.op_type == "Concat")


def _onnx_extent(node: Any, extents: Sequence[int]) -> int:
    """Return how many places are indexed, 0 where that is not known; of several axes the most."""
    if node.op_type.endswith("ND"):
        return max(extents) if extents and min(extents) >= 0 else 0
    axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
    return extents[axis] if -len(extents) <= axis < len(extents) else 0


def _onnx_constants(nodes: Iterable[Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    for node in nodes:
        for attribute in node.attribute if node.op_type == "Constant" else ():
            if attribute.name == "value":
                yield node.output[0], tuple(attribute.t.dims)


# -- torch


def _torch_ranges(program: Any) -> Mapping[str, IndexRange | None]:
    inputs = [s.arg for s in program.graph_signature.input_specs if s.kind.name == "USER_INPUT"]
    names = {arg.name for arg in inputs if hasattr(arg, "name")}
    nodes = [node for node in program.graph.nodes if node.name in names]
    return {node.name: _range_of(node, _torch_uses) for node in nodes}


def _torch_uses(node: Any) -> Iterator[Any]:
    for user in node.users:
        kind = getattr(user.target, "__name__", str(user.target)).partition(".")[0]
        if kind in ("item", "_local_scalar_dense"):
            yield user
        elif kind == "select" and len(user.args) > 2 and user.args[2] is node:
            yield from _torch_range(user.args[0], user.args[1], kind, counts_from_end=True)
        elif kind == "one_hot":
            classes = user.args[1] if len(user.args) > 1 else -1
            if isinstance(classes, int) and classes > 0:
                yield IndexRange(0, classes - 1, f"one_hot of {classes} classes")
        elif kind in _TORCH_PASSING:
            if _torch_dtype(user) in _WHOLE:
                yield user
        elif kind in _TORCH_INDEXING:
            table, indices, axis = _TORCH_INDEXING[kind]
            if len(user.args) > indices and user.args[indices] is node:
                number = user.args[axis] if axis is not None else 0
                yield from _torch_range(user.args[table], number, kind, counts_from_end=False)
        elif kind == "index" and len(user.args) > 1:
            for axis, index in enumerate(user.args[1]):
                if index is node:
                    yield from _torch_range(user.args[0], axis, kind, counts_from_end=True)


def _torch_range(table: Any, axis: int, kind: str, *, counts_from_end: bool) -> Iterator[IndexRange]:
    held = table.meta.get("val")
    extent = held.shape[axis] if held is not None and held.ndim else None
    if isinstance(extent, int) and extent > 0:
        yield IndexRange(-extent if counts_from_end else 0, extent - 1, f"{kind} of {table.name!r}")


def _torch_dtype(node: Any) -> str:
    return str(getattr(node.meta.get("val"), "dtype", "")).removeprefix("torch.")
