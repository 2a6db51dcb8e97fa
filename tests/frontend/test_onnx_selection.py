"""ONNX operators that select: as ONNX Runtime does, whatever the scores, limits and ties."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest

from .evaluate import evaluate

onnxruntime = pytest.importorskip("onnxruntime")

_RNG = np.random.default_rng(0)


def _expected(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(None, feeds))


def _check(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    found = evaluate(model, feeds, falls_back=True)
    for mine, right in zip(found, _expected(model, feeds), strict=True):
        assert mine.dtype == right.dtype
        np.testing.assert_array_equal(mine, right)
    return found


def _boxes(batch: int, number: int, *, step: float = 0.0) -> np.ndarray:
    """Return boxes by two corners, in any order; on a grid where ``step`` is given."""
    middle = _RNG.uniform(0, 4, (batch, number, 2))
    reach = _RNG.uniform(-2, 2, (batch, number, 2))
    boxes = np.concatenate([middle - reach, middle + reach], 2)
    if step:
        boxes = np.round(boxes / step) * step
    return boxes.astype(np.float32)


_MODEL = """<ir_version: 8, opset_import: ["": 17]>
    net (float[{b}, {n}, 4] boxes, float[{b}, {c}, {n}] scores{more}) => (int64[N, 3] s, int64[2] z)
    <{limits}>
    {{
        s = NonMaxSuppression <center_point_box = {centred}> (boxes, scores{names})
        z = Shape (s)
    }}"""


def _model(
    batch: int, classes: int, number: int, *, centred: int = 0, **limits: float
) -> onnx.ModelProto:
    """Return a model with limits by the names ``k``, ``iou`` and ``least``, None for left out."""
    order = ("k", "iou", "least")
    types = {"k": "int64[1]", "iou": "float[1]", "least": "float[1]"}
    given = [name if name in limits else "" for name in order]
    while given and not given[-1]:
        given.pop()
    texts = [f"{types[n]} {n} = {{{limits[n]}}}" for n in order if limits.get(n) is not None]
    inputs = [f", {types[n]} {n}" for n in order if n in limits and limits[n] is None]
    return onnx.parser.parse_model(
        _MODEL.format(
            b=batch,
            c=classes,
            n=number,
            centred=centred,
            limits=", ".join(texts),
            more="".join(inputs),
            names="".join(f", {name or chr(34) * 2}" for name in given),
        ).replace("<>", "")
    )


@pytest.mark.parametrize(
    ("limits", "scores"),
    [
        ({"k": 10, "iou": 0.5, "least": 0.1}, "positive"),
        ({"k": 3, "iou": 0.3}, "of both signs"),
        ({"k": 5}, "of both signs"),  # no overlap at all
        ({"k": 1000000, "iou": 0.7, "least": -2.0}, "of both signs"),
        ({"k": 4, "iou": 0.5, "least": 0.25}, "equal"),
        ({"k": 4, "iou": 1.0, "least": 0.25}, "equal"),
        ({"k": 7, "iou": 0.5, "least": 9.0}, "positive"),  # none
        ({"k": 0, "iou": 0.5, "least": 0.1}, "positive"),
        ({}, "positive"),
    ],
)
@pytest.mark.parametrize("centred", [0, 1])
def test_boxes_are_those_of_onnx_runtime(limits: dict, scores: str, centred: int) -> None:
    batch, classes, number = 2, 3, 25
    drawn = {
        "positive": _RNG.uniform(0, 1, (batch, classes, number)),
        "of both signs": _RNG.normal(0, 2, (batch, classes, number)),
        "equal": _RNG.integers(0, 4, (batch, classes, number)) / 4,
    }[scores]
    boxes = _boxes(batch, number, step=0.5 if scores == "equal" else 0.0)
    if centred:
        boxes[..., 2:] = np.abs(boxes[..., 2:])
    model = _model(batch, classes, number, centred=centred, **limits)
    (selected, shape) = _check(model, {"boxes": boxes, "scores": drawn.astype(np.float32)})
    assert shape.tolist() == [len(selected), 3]


def test_limits_may_be_computed() -> None:
    model = _model(1, 2, 12, k=None, iou=None, least=None)
    feeds = {"boxes": _boxes(1, 12), "scores": _RNG.uniform(0, 1, (1, 2, 12)).astype(np.float32)}
    for k, iou, least in ((2, 0.5, 0.2), (100, 0.9, 0.0), (0, 0.5, 0.0)):
        limits = {"k": [k], "iou": [iou], "least": [least]}
        types = {"k": np.int64, "iou": np.float32, "least": np.float32}
        _check(model, {**feeds, **{name: np.array(v, types[name]) for name, v in limits.items()}})


_HEAD = '<ir_version: 8, opset_import: ["": 17]> net (float[4, 5] x, {inputs}) => ({outputs})'


@pytest.mark.parametrize(
    ("inputs", "outputs", "node", "values"),
    [
        ("bool[4] c", "float[N, 5] y", "y = Compress <axis = 0> (x, c)", ([1, 0, 1, 1], [0] * 4)),
        ("bool[5] c", "float[4, N] y", "y = Compress <axis = -1> (x, c)", ([1, 0, 0, 0, 1],)),
        ("bool[3] c", "float[N] y", "y = Compress (x, c)", ([0, 1, 1],)),
        ("int64[1] k", "float[4, N] y, int64[4, N] i", "y, i = TopK (x, k)", ([3], [5], [0])),
        ("int64[1] k", "float[N, 5] y, int64[N, 5] i",
         "y, i = TopK <axis = 0, largest = 0> (x, k)", ([2],)),
        ("int64[2] s", "float[N, M] y", "y = Reshape (x, s)", ([2, 10], [-1, 4], [0, -1], [5, 4])),
        ("int64[3] s", "float[N, M, K] y", "y = Reshape (x, s)", ([4, 1, 5], [-1, 0, 2], [0, 0, 1])),
        ("int64[3] s", "float[N, M, K] y", "y = Expand (x, s)", ([2, 4, 5], [3, 1, 1], [1, 1, 5])),
        ("int64[1] s", "float[N, M] y", "y = Expand (x, s)", ([1], [5])),
        ("int64[2] s", "float[N, M] y", "y = ConstantOfShape (s)", ([2, 3], [0, 4])),
        ("int64[2] s", "int32[N, M] y",
         "y = ConstantOfShape <value = int32[1] {7}> (s)", ([2, 3],)),
    ],
)  # fmt: skip
def test_shapes_that_are_computed(inputs: str, outputs: str, node: str, values: tuple) -> None:
    head = _HEAD.format(inputs=inputs, outputs=outputs)
    model = onnx.parser.parse_model(f"{head} {{ {node} }}")
    name, dtype = inputs.split()[1], {"bool": bool, "int64": np.int64}[inputs.split("[")[0]]
    x = _RNG.permutation(20).reshape(4, 5).astype(np.float32)
    for value in values:
        feeds = {"x": x, name: np.array(value, dtype)}
        used = {entry.name for entry in model.graph.input}
        _check(model, {key: array for key, array in feeds.items() if key in used})


def test_operators_behind_a_computed_shape_know_equal_extents() -> None:
    """What NonMaxSuppression leaves is split, sorted and cut by how many there are."""
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 17]>
        net (float[1, 9, 4] boxes, float[1, 1, 9] scores) => (float[K, 4] best, float[N, 2] half)
        <int64[1] k = {6}, float[1] iou = {0.9}, float[1] least = {0.1}, int64[1] five = {5},
         int64 two = {2}, int64[2] flat = {9, 4}>
        {
            s = NonMaxSuppression (boxes, scores, k, iou, least)
            at = Gather <axis = 1> (s, two)
            rows = Reshape (boxes, flat)
            o = Gather (rows, at)
            half, other = Split <axis = 1> (o)
            least_of = ReduceMax <axes = [1], keepdims = 0> (o)
            number = Shape (least_of)
            both = Concat <axis = 0> (number, five)
            few = ReduceMin <axes = [0], keepdims = 1> (both)
            v, i = TopK (least_of, few)
            best = Gather (o, i)
        }""")
    for seed in range(4):
        rng = np.random.default_rng(seed)
        scores = rng.uniform(0, 0.3, (1, 1, 9)).astype(np.float32)
        _check(model, {"boxes": _boxes(1, 9), "scores": scores})


@pytest.mark.parametrize("k", [3, 100000])
def test_boxes_may_be_some_that_were_found_before(k: int) -> None:
    """How many there are is not known, then."""
    model = onnx.parser.parse_model(f"""<ir_version: 8, opset_import: ["": 17]>
        net (float[12, 4] boxes, float[12] scores) => (int64[N, 3] s)
        <int64[1] k = {{{k}}}, float[1] iou = {{0.5}}, float[1] least = {{0.1}}, int64[1] zero = {{0}},
         int64[2] both = {{0, 1}}>
        {{
            good = Greater (scores, least)
            b = Compress <axis = 0> (boxes, good)  c = Compress <axis = 0> (scores, good)
            bs = Unsqueeze (b, zero)  cs = Unsqueeze (c, both)
            s = NonMaxSuppression (bs, cs, k, iou)
        }}""")
    for shift in (0.0, 0.5, 1.0):
        scores = _RNG.uniform(-shift, 1 - shift, 12).astype(np.float32)
        _check(model, {"boxes": _boxes(1, 12)[0], "scores": scores})


@pytest.mark.parametrize("step", [1, 2, -1, -2])
@pytest.mark.parametrize("bounds", [(3, -2), (0, 2), (-3, 9), (5, 1), (-1, -9), (2**62, -(2**62))])
def test_slices_of_what_was_found_are_cut_off(step: int, bounds: tuple[int, int]) -> None:
    model = onnx.parser.parse_model(f"""<ir_version: 8, opset_import: ["": 17]>
        net (float[6] x) => (int64[1, N] y, int64[1, M] n)
        <int64[1] b = {{{bounds[0]}}}, int64[1] e = {{{bounds[1]}}}, int64[1] a = {{1}},
         int64[1] s = {{{step}}}>
        {{ n = NonZero (x)  y = Slice (n, b, e, a, s) }}""")
    for found in range(7):
        _check(model, {"x": (np.arange(6) < found).astype(np.float32)})
