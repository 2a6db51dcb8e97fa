"""What is known of the values of an ONNX graph before it runs: small constants, and shapes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

Array = npt.NDArray[Any]

#: What the domain of ONNX's own operators is called.
STANDARD_DOMAINS = ("", "ai.onnx")
#: Larger tensors are not computed with: what decides on shapes and loops is small.
MOST_ELEMENTS = 1024
# Operators that move elements of their operands, whatever these are; the first operand alone, but for
# Concat.
_MOVING = frozenset(
    "Identity Slice Gather Concat Unsqueeze Squeeze Reshape Flatten Split Transpose".split()
)


def subgraphs(node: Any) -> Iterator[Any]:
    """Return the graphs that belong to a node: branches, or the body of a loop."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g


def nodes_within(graph: Any) -> Iterator[Any]:
    """Return the nodes of a graph, and of those that belong to its nodes."""
    for node in graph.node:
        yield node
        for inner in subgraphs(node):
            yield from nodes_within(inner)


def plain_domain(domain: str) -> str:
    """Return a domain by one name: that of ONNX itself, which has two, is empty."""
    return "" if domain in STANDARD_DOMAINS else domain


def attributes_of(node: Any) -> dict[str, Any]:
    """Return the attributes of a node by name."""
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def renamed(node: Any, names: dict[str, str], prefix: str) -> Any:
    """Return a copy of a node whose outputs have a prefix, which are noted in ``names``."""
    copied = onnx.NodeProto()
    copied.CopyFrom(node)
    copied.name = prefix + (node.name or next(iter(node.output), ""))
    del copied.input[:], copied.output[:]
    copied.input.extend(names.get(name, name) for name in node.input)
    for inner in subgraphs(copied):
        _rename_graph(inner, dict(names), prefix)
    for name in node.output:
        if name:
            names[name] = prefix + name
    copied.output.extend(names.get(name, name) for name in node.output)
    return copied


def _rename_graph(graph: Any, names: dict[str, str], prefix: str) -> None:
    for value in (*graph.initializer, *graph.input):
        names[value.name] = value.name = prefix + value.name
    nodes = [renamed(node, names, prefix) for node in graph.node]
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    for output in graph.output:
        output.name = names.get(output.name, output.name)


class KnownValues:
    """The values that are known in a graph, those of the graphs around it among them.

    Attributes
    ----------
    arrays, shapes
        By the names of values.
    partial
        By the names of values of which some elements are known: an array, and where it is not.
    extents
        Shapes of which some extents are known, by the names of values; the others are None.
    """

    def __init__(self, opsets: Iterable[Any]) -> None:
        self.opsets = list(opsets)
        self.arrays: dict[str, Array] = {}
        self.shapes: dict[str, list[int]] = {}
        self.partial: dict[str, tuple[Array, Array]] = {}
        self.extents: dict[str, list[int | None]] = {}

    @property
    def opset(self) -> int:
        """The version of ONNX's own operators."""
        versions = (entry.version for entry in self.opsets if entry.domain in ("", "ai.onnx"))
        return max(versions, default=1)

    def enter(self, graph: Any, typed: Any) -> None:
        """Note the weights of a graph, and the shapes of what ``typed``, the same with types, has."""
        self.arrays.update((t.name, numpy_helper.to_array(t)) for t in graph.initializer)
        self.shapes.update((t.name, list(t.dims)) for t in graph.initializer)
        for value in (*typed.input, *typed.value_info, *typed.output):
            tensor = value.type.tensor_type
            dims = tensor.shape.dim
            if not tensor.HasField("shape"):
                continue
            if all(dim.HasField("dim_value") for dim in dims):
                self.shapes[value.name] = [int(dim.dim_value) for dim in dims]
            else:
                known = [int(d.dim_value) if d.HasField("dim_value") else None for d in dims]
                self.extents[value.name] = known

    def note(self, node: Any) -> bool:
        """Note what a node makes of known values; return whether all of it is known now."""
        if node.op_type in ("Shape", "Size") and node.input[0] in self.shapes:
            made = {node.output[0]: _shape(node, self.shapes[node.input[0]])}
        elif node.op_type == "Constant" or node.input:
            made = evaluate(node, self.arrays, self.opsets)
        else:
            made = {}
        if not made:
            made = self._of_parts(node)
        self.arrays.update(made)
        return bool(made)

    def _of_parts(self, node: Any) -> dict[str, Array]:
        """Return what a node makes of values that are known in part, if it is known as a whole."""
        if node.op_type == "Shape" and node.input[0] in self.extents:
            extents = self.extents[node.input[0]]
            found = {
                node.output[0]: (
                    _shape(node, [extent or 0 for extent in extents]),
                    _shape(node, [int(extent is None) for extent in extents]).astype(bool),
                )
            }
        elif node.op_type in _MOVING and any(name in self.partial for name in node.input):
            found = self._moved(node)
        else:
            return {}
        self.partial.update(found)
        whole = {name: value for name, (value, is_open) in found.items() if not is_open.any()}
        return whole if len(whole) == len(found) else {}

    def _moved(self, node: Any) -> dict[str, tuple[Array, Array]]:
        """Return what a node that moves elements makes of them, and of where they are not known."""
        count = len(node.input) if node.op_type == "Concat" else 1
        if any(name in self.partial for name in node.input[count:]):
            return {}
        parts = {}
        for name in node.input[:count]:
            if name not in self.partial and name not in self.arrays:
                return {}
            value = self.arrays.get(name)
            parts[name] = self.partial[name] if value is None else (value, np.zeros(value.shape, bool))
        values, holes = (
            evaluate(
                node, {**self.arrays, **{name: pair[at] for name, pair in parts.items()}}, self.opsets
            )
            for at in (0, 1)
        )
        return {name: (values[name], holes[name]) for name in values if name in holes}


def _shape(node: Any, shape: list[int]) -> Array:
    if node.op_type == "Size":
        return np.array(math.prod(shape), np.int64)
    given = attributes_of(node)
    return np.array(shape[given.get("start", 0) : given.get("end", len(shape))], np.int64)


def evaluate(node: Any, known: Mapping[str, Array], opsets: Iterable[Any]) -> dict[str, Array]:
    """Return what a node makes of known operands by name; nothing where they are not known, or large."""
    names = [name for name in node.input if name]
    if any(name not in known or known[name].size > MOST_ELEMENTS for name in names):
        return {}
    if any(True for _ in subgraphs(node)):
        return {}
    described = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(known[name].dtype), known[name].shape
        )
        for name in dict.fromkeys(names)
    ]
    outputs = [helper.make_empty_tensor_value_info(name) for name in node.output if name]
    graph = helper.make_graph([node], "node", described, outputs)
    model = helper.make_model(graph, opset_imports=list(opsets))
    try:
        values = ReferenceEvaluator(model).run(None, {name: known[name] for name in names})
    except Exception:  # the evaluator's errors share no base class, and it lacks some operators
        return {}
    return dict(zip((output.name for output in outputs), map(np.asarray, values), strict=True))
