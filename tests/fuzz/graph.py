"""A random ONNX graph in the making: every value is known, so that operators get what they allow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from tvm_sphinx.program.verify.exact_products import as_defined

from .drawing import Drawing

Array = npt.NDArray[Any]

FLOATS = ("float32", "float32", "float32", "float16", "float64")
INTEGERS = ("int32", "int64", "int8", "uint8", "int16", "uint16", "uint32", "uint64")
NUMBERS = (*FLOATS, "int32", "int64")
ALL = (*FLOATS, *INTEGERS, "bool")
_SPECIAL_FLOATS = (np.nan, np.inf, -np.inf, -0.0, 1e-40, 1e30, -1e30)
# A share of graphs has tensors without elements, and one values such as NaN.
_EMPTY_SHARE, _SPECIAL_SHARE = 0.08, 0.15
# And one lists its weights as inputs.
_LISTED_SHARE = 0.1
# Operators that move or choose numbers, and compute none that would be rounded.
_EXACT = frozenset(
    "Abs Neg Identity Relu Min Max Clip Where Reshape Transpose Squeeze Unsqueeze Expand Tile Concat "
    "Split Slice Pad Gather GatherElements GatherND ScatterElements ScatterND Compress Flatten Scatter "
    "DepthToSpace SpaceToDepth Trilu Shape Size And Or Xor Not Equal Less Greater LessOrEqual IsNaN "
    "GreaterOrEqual IsInf Floor Ceil Round Sign ReduceMax ReduceMin MaxPool GlobalMaxPool ArgMax ArgMin "
    "OneHot TopK BitShift BitwiseAnd BitwiseOr BitwiseXor BitwiseNot EyeLike Range Dropout".split()
)
OPSETS = (9, 11, 13, 17, 18, 21)


class RejectedError(Exception):
    """ONNX Runtime does not take what was drawn."""


class Graph(Drawing):
    """Grows node by node; ``values`` holds what ONNX Runtime computes for each name.

    Parameters
    ----------
    rng
        Source of all that is drawn.
    opset
        Version of ONNX's operators.
    """

    def __init__(self, rng: np.random.Generator, opset: int | None = None) -> None:
        self.rng = rng
        self.opset = opset or int(rng.choice(OPSETS))
        self.has_empty = rng.random() < _EMPTY_SHARE
        self.has_special = rng.random() < _SPECIAL_SHARE
        # As files of the third version of ONNX's format do.
        self.lists_weights = rng.random() < _LISTED_SHARE
        self.nodes: list[onnx.NodeProto] = []
        self.values: dict[str, Array] = {}
        self.inputs: list[str] = []
        self.weights: list[str] = []
        self.results: list[str] = []
        # What may be rounded otherwise elsewhere: a function that jumps makes a whole step of that.
        self.rounded: set[str] = set()

    def array(self, dtype: str, shape: Sequence[int], least: float = -4, most: float = 4) -> Array:
        if dtype == "bool":
            return self.rng.random(shape) < 0.5
        if dtype.startswith("float"):
            values = self.rng.uniform(least, most, shape).astype(dtype)
            if self.has_special and values.size:
                special = self.rng.choice(_SPECIAL_FLOATS, shape)
                with np.errstate(over="ignore"):
                    values = np.where(self.rng.random(shape) < 0.2, special, values).astype(dtype)
            return np.asarray(values)
        bounds = np.iinfo(dtype)
        low, high = max(int(np.ceil(least)), bounds.min), min(int(most), bounds.max)
        return self.rng.integers(low, high, shape, dtype, endpoint=True)

    def spatial(self, rank: int) -> list[int]:
        """Return extents that a window fits in."""
        return [self.number(3, 9) for _ in range(rank)]

    def broadcastable(self, shape: Sequence[int]) -> list[int]:
        """Return a shape that broadcasts with another."""
        kept = list(shape)[self.number(0, len(shape)) :] if self.chance(0.5) else list(shape)
        return [1 if self.chance(0.25) else extent for extent in kept]

    def axis(self, rank: int) -> int:
        """Return an axis, counted from either end."""
        return self.number(-rank, rank - 1) if rank else 0

    def some_axes(self, rank: int) -> list[int]:
        axes = [axis for axis in range(rank) if self.chance(0.5)]
        return [axis - rank if self.chance(0.3) else axis for axis in axes]

    # What the graph is made of.

    def input(self, value: Array) -> str:
        name = f"in{len(self.inputs)}"
        self.inputs.append(name)
        self.values[name] = value
        return name

    def weight(self, value: Any, dtype: str | None = None) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(name)
        self.values[name] = np.asarray(value) if dtype is None else np.asarray(value, dtype)
        return name

    def either(self, value: Array) -> str:
        """Return an array as an input or as a weight."""
        return self.weight(value) if self.chance(0.5) else self.input(value)

    def tensor(
        self,
        dtypes: Sequence[str],
        low_rank: int = 0,
        high_rank: int = 5,
        *,
        exact: bool = False,
        **bounds: float,
    ) -> str:
        """Return a tensor: one that a node has made, if there is one of the kind, or an input.

        An ``exact`` one has not been rounded; ``bounds`` are those of `array`.
        """
        fitting = [
            name
            for name in self.results
            if str(self.values[name].dtype) in dtypes
            and low_rank <= self.values[name].ndim <= high_rank
            and not (exact and name in self.rounded)
        ]
        if fitting and not bounds and self.chance(0.6):
            return str(self.pick(fitting))
        return self.input(self.array(self.pick(dtypes), self.shape(low_rank, high_rank), **bounds))

    def of(self, name: str) -> Array:
        return self.values[name]

    def add(
        self, op: str, inputs: Sequence[str], outputs: int = 1, domain: str = "", **attributes: Any
    ) -> list[str]:
        """Append a node and compute it.

        Raises
        ------
        RejectedError
            If ONNX Runtime refuses it.
        """
        names = [self.fresh_name(op, number) for number in range(outputs)]
        kept = {key: value for key, value in attributes.items() if value is not None}
        try:
            node = onnx.helper.make_node(
                op, inputs, names, name=f"{op}_{len(self.nodes)}", domain=domain, **kept
            )
        except Exception as error:  # onnx raises many types
            raise RejectedError(f"{op}: {' '.join(str(error).split())[:200]}") from error
        return self.append([node], names)

    def fresh_name(self, op: str, number: int = 0) -> str:
        """Return a name for a value of the node that is appended next."""
        return f"{op.lower()}{len(self.nodes)}_{number}"

    def append(self, nodes: Sequence[onnx.NodeProto], names: Sequence[str]) -> list[str]:
        """Append nodes that belong together, and compute those of their values that have a name here.

        Raises
        ------
        RejectedError
            If ONNX Runtime refuses them.
        """
        op, known = nodes[-1].op_type, {name: self.values[name] for name in names_read(nodes)}
        try:
            found = _run(nodes, known, names, self.opset, self.weights)
        except Exception as error:  # ONNX Runtime's errors derive from Exception alone
            raise RejectedError(f"{op}: {' '.join(str(error).split())[:200]}") from error
        for name, value in zip(names, found, strict=True):
            if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiub":
                raise RejectedError(f"{op}: gives {type(value).__name__}")
            self.values[name] = value
            # Also what a power or a logarithm leaves: what follows is drawn with regard to it.
            self.has_special |= value.dtype.kind == "f" and not bool(np.isfinite(value).all())
        if any(node.op_type not in _EXACT for node in nodes) or self.rounded & known.keys():
            self.rounded.update(names)
        self.nodes += nodes
        self.results += names
        return list(names)

    # What comes out.

    def outputs(self) -> list[str]:
        """Return the values that no node reads."""
        made = [output for node in self.nodes for output in node.output]
        read = {name for node in self.nodes for name in names_read([node])}
        return [name for name in made if name in self.results and name not in read]

    def feeds(self) -> dict[str, Array]:
        read = names_read(self.nodes)
        return {name: self.values[name] for name in self.inputs if name in read}

    def model(self) -> onnx.ModelProto:
        read = names_read(self.nodes)
        weights = {name: self.values[name] for name in self.weights if name in read}
        model = _model(self.nodes, self.feeds(), weights, self.outputs(), self.values, self.opset)
        if self.lists_weights:
            model.graph.input.extend(_info(name, value) for name, value in weights.items())
            model.ir_version = 3
        return model

    def expected(self) -> list[Array]:
        return [self.values[name] for name in self.outputs()]


#: Appends one node, with what it reads, to a graph.
Draw = Callable[[Graph], Any]


def names_read(nodes: Sequence[onnx.NodeProto]) -> list[str]:
    """Return what nodes read and do not make, what the graphs in them read from outside included."""
    found: dict[str, None] = {}
    made = {output for node in nodes for output in node.output}
    for node in nodes:
        found.update(dict.fromkeys(name for name in node.input if name))
        for attribute in node.attribute:
            if attribute.HasField("g"):
                own = {value.name for value in (*attribute.g.input, *attribute.g.initializer)}
                inner = names_read(attribute.g.node) + [value.name for value in attribute.g.output]
                made_there = {output for node in attribute.g.node for output in node.output}
                found.update(dict.fromkeys(n for n in inner if n not in own | made_there))
    return [name for name in found if name not in made]


def _info(name: str, value: Array) -> Any:
    kind = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
    return onnx.helper.make_tensor_value_info(name, kind, value.shape)


def _model(
    nodes: Sequence[Any],
    feeds: dict[str, Array],
    weights: dict[str, Array],
    outputs: Sequence[str],
    values: dict[str, Array] | None,
    opset: int,
) -> onnx.ModelProto:
    described = [
        onnx.helper.make_empty_tensor_value_info(name) if values is None else _info(name, values[name])
        for name in outputs
    ]
    graph = onnx.helper.make_graph(
        list(nodes),
        "drawn",
        [_info(name, value) for name, value in feeds.items()],
        described,
        [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    domains = [onnx.helper.make_opsetid("", opset), onnx.helper.make_opsetid("com.microsoft", 1)]
    model = onnx.helper.make_model(graph, opset_imports=domains)
    model.ir_version = 10
    return model


def _run(
    nodes: Sequence[Any],
    known: dict[str, Array],
    outputs: Sequence[str],
    opset: int,
    constant: Sequence[str],
) -> list[Any]:
    weights = {name: value for name, value in known.items() if name in constant}
    feeds = {name: value for name, value in known.items() if name not in constant}
    model = _model(nodes, feeds, weights, outputs, None, opset)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        as_defined(model).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(list(outputs), feeds)
