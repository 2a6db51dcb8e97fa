"""Operators along axes: reductions, softmax, scans, sorts."""

from __future__ import annotations

from typing import Any

from .graph import Draw, Graph


def _reduce(op: str, by_input_from: int = 18) -> Draw:
    def draw(g: Graph) -> Any:
        dtypes = (
            ("float32", "float32", "int32", "int64")
            if op not in ("ReduceMean",)
            else ("float32", "float64")
        )
        low = 0.1 if "Log" in op else -2
        source = g.tensor(dtypes, least=low, most=2)
        rank = g.of(source).ndim
        axes = g.some_axes(rank)
        attributes: dict[str, Any] = {"keepdims": g.number(0, 1)} if g.chance(0.7) else {}
        inputs = [source]
        if axes and g.opset >= by_input_from:
            inputs.append(g.weight(axes, "int64"))
        elif axes:
            attributes["axes"] = axes
        if g.opset >= by_input_from and g.chance(0.2):
            attributes["noop_with_empty_axes"] = 1
        return g.add(op, inputs, **attributes)

    return draw


def _arg(op: str) -> Draw:
    def draw(g: Graph) -> Any:
        source = g.tensor(("float32", "int32", "uint8", "int8"), 1, exact=True)
        last = {"select_last_index": g.number(0, 1)} if g.opset >= 12 and g.chance(0.4) else {}
        return g.add(op, [source], axis=g.axis(g.of(source).ndim), keepdims=g.number(0, 1), **last)

    return draw


def _along_axis(op: str, dtypes: tuple[str, ...] = ("float32", "float64")) -> Draw:
    def draw(g: Graph) -> Any:
        source = g.tensor(dtypes, 1, exact=op == "Hardmax")
        axis = {"axis": g.axis(g.of(source).ndim)} if g.chance(0.8) else {}
        return g.add(op, [source], **axis)

    return draw


def _cumsum(g: Graph) -> Any:
    source = g.tensor(("float32", "float64", "int32", "int64"), 1)
    axis = g.weight(g.axis(g.of(source).ndim), "int64")
    return g.add("CumSum", [source, axis], exclusive=g.number(0, 1), reverse=g.number(0, 1))


def _topk(g: Graph) -> Any:
    source = g.tensor(("float32", "int64", "int32"), 1, exact=True)
    value = g.of(source)
    axis = g.axis(value.ndim)
    k = g.weight([g.number(0 if g.has_empty else 1, max(1, value.shape[axis]))], "int64")
    return g.add("TopK", [source, k], 2, axis=axis, largest=g.number(0, 1))


_REDUCTIONS = (
    "ReduceMax ReduceMin ReduceMean ReduceProd ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp "
    "ReduceSumSquare"
)

#: By operator.
DRAWS: dict[str, Draw] = {
    "ReduceSum": _reduce("ReduceSum", 13),
    **{op: _reduce(op) for op in _REDUCTIONS.split()},
    "ArgMax": _arg("ArgMax"),
    "ArgMin": _arg("ArgMin"),
    **{op: _along_axis(op) for op in ("Softmax", "LogSoftmax", "Hardmax")},
    "Flatten": _along_axis("Flatten", ("float32", "int64")),
    "CumSum": _cumsum,
    "TopK": _topk,
}
