"""Operators with graphs in them: choices and loops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper

from .graph import Array, Draw, Graph

_DTYPES = ("float32", "float32", "float64", "int64")
_OF_FLOATS = ("Tanh", "Sigmoid", "Neg", "Abs", "Relu", "Sin", "Identity")
_OF_INTEGERS = ("Neg", "Abs", "Identity")


class _Body:
    """The nodes of a graph within a node; each step keeps the type and the shape of a value."""

    def __init__(self, g: Graph, prefix: str) -> None:
        self.g = g
        self.prefix = prefix
        self.nodes: list[onnx.NodeProto] = []

    def node(self, op: str, inputs: Sequence[str], **attributes: Any) -> str:
        name = f"{self.prefix}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name=f"node_{name}", **attributes))
        return name

    def constant(self, value: Array) -> str:
        return self.node("Constant", [], value=onnx.numpy_helper.from_array(np.asarray(value)))

    def steps(self, source: str, like: Array) -> str:
        """Return the name of what some operators make of a value; like it in type and shape."""
        for _ in range(self.g.number(1, 3)):
            source = self._step(source, like)
        return source

    def _step(self, source: str, like: Array) -> str:
        g, shape, dtype = self.g, list(like.shape), str(like.dtype)
        how = g.number(0, 5)
        if how == 0:
            other = g.either(g.array(dtype, [1 if g.chance(0.3) else e for e in shape], -2, 2))
            return self.node(g.pick(["Add", "Sub", "Mul"]), g.pick([[source, other], [other, source]]))
        if how == 1:
            return self.node(g.pick(["Add", "Mul"]), [source, self.constant(g.array(dtype, (), -2, 2))])
        if how == 2 and like.size:
            flat = self.node("Reshape", [source, self.constant(np.array([-1]))])
            made = self.node(g.pick(_OF_FLOATS if like.dtype.kind == "f" else _OF_INTEGERS), [flat])
            return self.node("Reshape", [made, self.constant(np.array(shape, np.int64))])
        if how == 3 and shape and like.size and like.dtype.kind == "f" and g.opset >= 13:
            return self.node("Softmax", [source], axis=g.axis(len(shape)))
        if how == 4 and len(shape) >= 2 and shape[-1] == shape[-2]:
            turned = [*range(len(shape) - 2), len(shape) - 1, len(shape) - 2]
            return self.node("Transpose", [source], perm=turned)
        ops = [op for op in _OF_FLOATS if like.dtype.kind == "f" or op in _OF_INTEGERS]
        if dtype == "float64":
            ops.remove("Sin")
        return self.node(g.pick(ops), [source])

    def graph(self, inputs: Sequence[Any], outputs: Sequence[str], likes: Sequence[Array]) -> Any:
        described = [_typed(name, like) for name, like in zip(outputs, likes, strict=True)]
        return helper.make_graph(self.nodes, f"{self.prefix}body", list(inputs), described)


def _typed(name: str, like: Array) -> Any:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(like.dtype), like.shape)


def _computed_condition(g: Graph, source: str, prefix: str) -> tuple[list[Any], str]:
    """Return nodes that compare the sum of a tensor with a number, and the name of the result."""
    body = _Body(g, prefix)
    wide = body.node("Cast", [source], to=onnx.TensorProto.FLOAT)
    total = body.node("ReduceSum", [wide], keepdims=0)
    name = body.node("Greater", [total, body.constant(np.float32(g.rng.uniform(-3, 3)))])
    return body.nodes, name


def _branch(g: Graph, prefix: str, source: str, like: Array, count: int, condition: str) -> Any:
    body = _Body(g, prefix)
    names = [body.steps(source, like) for _ in range(count)]
    if condition and count == 1 and g.chance(0.2):
        sides = [_branch(g, f"{prefix}{side}", names[0], like, 1, "") for side in "te"]
        names = [body.node("If", [condition], then_branch=sides[0], else_branch=sides[1])]
    return body.graph([], names, [like] * count)


def _if(g: Graph) -> Any:
    source = g.tensor(_DTYPES, 0, 4)
    like, count = g.of(source), g.pick([1, 1, 2])
    nodes, condition = [], g.either(g.array("bool", g.pick([[], [1]])))
    if g.chance(0.6):
        nodes, condition = _computed_condition(g, source, g.fresh_name("condition"))
    outputs = [g.fresh_name("If", number) for number in range(count)]
    sides = [_branch(g, g.fresh_name(side), source, like, count, condition) for side in ("then", "else")]
    made = helper.make_node(
        "If", [condition], outputs, name=f"If_{len(g.nodes)}", then_branch=sides[0], else_branch=sides[1]
    )
    return g.append([*nodes, made], outputs)


def _loop(g: Graph) -> Any:
    states = [g.tensor(_DTYPES, 0, 3) for _ in range(g.number(1, 2))]
    likes = [g.of(name) for name in states]
    most = np.asarray(g.number(0, 4), np.int64).reshape(g.pick([(), (1,)]))
    # How often it turns is known ahead but for some: these are refused where they collect values.
    times = g.input(most) if g.chance(0.3) else g.weight(most)
    begins = g.pick(["", g.either(np.asarray(g.chance(0.9)))])
    body = _Body(g, g.fresh_name("loop"))
    at, on = f"{body.prefix}at", f"{body.prefix}on"
    inner = [f"{body.prefix}state{number}" for number in range(len(states))]
    names = [body.steps(name, like) for name, like in zip(inner, likes, strict=True)]
    goes_on = body.node("Identity", [on])
    if g.chance(0.4):
        goes_on = body.node("Less", [at, body.constant(np.asarray(g.number(0, 3), np.int64))])
    elif g.chance(0.2):
        nodes, goes_on = _computed_condition(g, names[0], f"{body.prefix}again")
        body.nodes += nodes
    rows, row_likes = [], []
    if g.chance(0.5):
        rows, row_likes = [body.node("Identity", [g.pick([at, names[0]])])], [likes[0]]
        if body.nodes[-1].input[0] == at:
            row_likes = [np.zeros((), np.int64)]
    inputs = [
        _typed(at, np.zeros((), np.int64)),
        _typed(on, np.zeros((), np.bool_)),
        *(_typed(name, like) for name, like in zip(inner, likes, strict=True)),
    ]
    graph = body.graph(inputs, [goes_on, *names, *rows], [np.zeros((), np.bool_), *likes, *row_likes])
    outputs = [g.fresh_name("Loop", number) for number in range(len(states) + len(rows))]
    node = helper.make_node(
        "Loop", [times, begins, *states], outputs, name=f"Loop_{len(g.nodes)}", body=graph
    )
    return g.append([node], outputs)


def _scan(g: Graph) -> Any:
    source = g.tensor(_DTYPES, 1, 3)
    value = g.of(source)
    axis = g.axis(value.ndim)
    shape = [extent for at, extent in enumerate(value.shape) if at != axis % value.ndim]
    state = g.either(g.array(str(value.dtype), shape))
    like = g.of(state)
    body = _Body(g, g.fresh_name("scan"))
    inner, row = f"{body.prefix}state", f"{body.prefix}row"
    joined = body.node(g.pick(["Add", "Sub", "Mul"]), [inner, row])
    # A product of many rows leaves the range.
    bounded = body.node("Tanh" if like.dtype.kind == "f" else "Sign", [joined])
    made = [body.steps(bounded, like), body.steps(row, like)]
    graph = body.graph([_typed(inner, like), _typed(row, like)], made, [like, like])
    outputs = [g.fresh_name("Scan", number) for number in range(2)]
    attributes: dict[str, Any] = {"num_scan_inputs": 1, "scan_input_axes": [axis]}
    if g.chance(0.5):
        attributes["scan_input_directions"] = [g.number(0, 1)]
        attributes["scan_output_directions"] = [g.number(0, 1)]
    if g.chance(0.4):
        attributes["scan_output_axes"] = [g.axis(value.ndim)]
    node = helper.make_node(
        "Scan", [state, source], outputs, name=f"Scan_{len(g.nodes)}", body=graph, **attributes
    )
    return g.append([node], outputs)


#: By operator.
DRAWS: dict[str, Draw] = {"If": _if, "Loop": _loop, "Scan": _scan}
