"""Models a part of which has shapes that are known only at run time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx.parser

_WEIGHTS = np.random.default_rng(0)
_HEAD = """
    <ir_version: 8, opset_import: ["": 18]>
    detector (float[1, 3, 8, 8] x) => ({outputs})
    <{weights}>
    {{
        [conv] a = Conv <pads = [1, 1, 1, 1]> (x, w)
        [relu] r = Relu (a)
        {nodes}
    }}"""


def onnx_model(outputs: str, nodes: str, **weights: Any) -> onnx.ModelProto:
    """Return a convolution and a Relu, ``r`` float32 (1, 4, 8, 8), and the nodes behind them."""
    text = _HEAD.format(outputs=outputs, nodes=nodes, weights="")
    model = onnx.parser.parse_model(text.replace("<>", ""))
    kernel = _WEIGHTS.normal(0, 0.3, (4, 3, 3, 3)).astype(np.float32)
    for name, value in {"w": kernel, **weights}.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value), name))
    onnx.checker.check_model(model)
    return model


_COUNT = """
        [flat] f = Reshape (r, all)
        [above] m = Greater (f, half)
        [number] i = Cast <to = 7> (m)
        [count] k = ReduceSum <keepdims = 1> (i, zero)
"""


def counting(outputs: str, nodes: str, **weights: Any) -> onnx.ModelProto:
    """Return a model that computes, too, ``k`` int64 (1,), how many elements are above a half."""
    known = {"all": [-1], "zero": [0]}
    whole = {name: np.array(value, np.int64) for name, value in known.items()}
    return onnx_model(outputs, _COUNT + nodes, half=np.float32(0.5), **whole, **weights)


def _long(*values: int) -> Any:
    return np.array(values, np.int64)


#: By what makes the shape unknown, a model, and the operators of its dynamic part.
MODELS: dict[str, tuple[Callable[[], onnx.ModelProto], tuple[str, ...]]] = {
    "NonZero": (
        lambda: onnx_model(
            "float[1, 4, 8, 8] r, int64[4, N] n, float[4, N] f",
            "[nz] n = NonZero (r) [cast] f = Cast <to = 1> (n)",
        ),
        ("NonZero nz", "Cast cast"),
    ),
    "NonZero, and known shapes again": (
        lambda: onnx_model(
            "float[7] y",
            """[nz] n = NonZero (r)  [turn] t = Transpose <perm = [1, 0]> (n)
            [gather] v = GatherND (r, t)  [top] b, bi = TopK (v, five)  [mm] y = MatMul (b, w2)""",
            five=_long(5),
            w2=_WEIGHTS.normal(size=(5, 7)).astype(np.float32),
        ),
        ("NonZero nz", "Transpose turn", "GatherND gather", "TopK top", "MatMul mm"),
    ),
    "Unique": (
        lambda: onnx_model(
            "float[N] u, int64[256] j, int64[N] k",
            """[flat] f = Reshape (r, all)  [round] q = Round (f)
            [unique] u, i, j, k = Unique (q)""",
            all=_long(-1),
        ),
        ("Unique unique",),
    ),
    "NonMaxSuppression": (
        lambda: onnx_model(
            "int64[N, 3] s, float[N, 4] o",
            """[boxes] b = Reshape (r, to_boxes)  [sum] p = ReduceSum <keepdims = 0> (b, two)
            [scores] q = Reshape (p, to_scores)
            [nms] s = NonMaxSuppression (b, q, ten, iou, least)
            [number] g = Gather <axis = 1> (s, at)
            [rows] l = Reshape (b, to_rows)  [chosen] o = Gather <axis = 0> (l, g)""",
            to_boxes=_long(1, 64, 4),
            two=_long(2),
            to_scores=_long(1, 1, 64),
            ten=_long(10),
            iou=np.array([0.5], np.float32),
            least=np.array([0.1], np.float32),
            at=np.int64(2),
            to_rows=_long(64, 4),
        ),
        ("NonMaxSuppression nms", "Gather number", "Gather chosen"),
    ),
    "Slice by a number that is computed": (
        lambda: counting("float[N] v", "[slice] v = Slice (f, zero, k)"),
        ("Slice slice",),
    ),
    "Range by a number that is computed": (
        lambda: counting(
            "int64[N] v",
            "[scalar] s = Squeeze (k)  [range] v = Range (begin, s, step)",
            begin=np.int64(0),
            step=np.int64(1),
        ),
        ("Range range",),
    ),
    "Expand to a shape that is computed": (
        lambda: counting("float[N] v", "[wide] v = Expand (one, k)", one=np.ones(1, np.float32)),
        ("Expand wide",),
    ),
    "As many rows from two places": (
        lambda: counting(
            "float[N] v",
            """[kept] p = Compress (f, m)  [places] n = NonZero (m)  [row] l = Squeeze (n, zero)
            [float] t = Cast <to = 1> (l)  [add] v = Add (p, t)""",
        ),
        ("Compress kept", "NonZero places", "Squeeze row", "Cast float", "Add add"),
    ),
    "Shape of what is unknown": (
        lambda: onnx_model("int64[2] s", "[nz] n = NonZero (r)  [shape] s = Shape (n)"),
        ("NonZero nz",),
    ),
}
