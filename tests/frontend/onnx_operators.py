"""ONNX operators, a node each with its inputs, over types, negative axes and indices."""

import numpy as np

rng = np.random.default_rng(0)


def f(*shape, dtype="float32"):
    return rng.standard_normal(shape).astype(dtype)


def n(low, high, *shape, dtype="int64"):
    return rng.integers(low, high, shape).astype(dtype)


def a(values, dtype="int64"):
    return np.array(values, dtype)


X2, X3, X4 = f(4, 6), f(3, 4, 5), f(1, 2, 5, 4)
I64 = n(-5, 6, 4, 6)
POSITIVE = (np.abs(X2) + 0.1).astype("float32")


def each(types, make):
    return {dtype: make(dtype) for dtype in types.split()}


#: Name, operator, inputs that are fed, attributes, inputs that are constant (by position).
CASES = []


def case(name, op, feeds, consts=None, opset=18, outputs=1, **attributes):
    """Add one node: ``consts`` are constant inputs by their position among all inputs."""
    CASES.append((name, op, feeds, consts or {}, opset, outputs, attributes))


for _dtype in "int8 int32 int64 uint8 float32".split():
    _left, _right = n(0, 100, 4, 6, dtype=_dtype), n(1, 9, 4, 6, dtype=_dtype)
    if not _dtype.startswith("u"):
        _left = (_left - 50).astype(_dtype)
    for _op in ("Add", "Sub", "Mul", "Div"):
        case(f"{_op} {_dtype}", _op, [_left, _right])
    case(f"Mod {_dtype}", "Mod", [_left, _right], fmod=int(_dtype == "float32"))
    if _dtype.startswith("int"):
        case(f"Mod fmod {_dtype}", "Mod", [_left, _right], fmod=1)
        case(f"Div negative {_dtype}", "Div", [_left, (-_right).astype(_dtype)])
        case(f"Mod negative {_dtype}", "Mod", [_left, (-_right).astype(_dtype)])
        case(f"Abs {_dtype}", "Abs", [_left])
        case(f"Neg {_dtype}", "Neg", [_left])
        case(f"Sign {_dtype}", "Sign", [_left])
    case(f"Min {_dtype}", "Min", [_left, _right])
    case(f"Max {_dtype}", "Max", [_left, _right])
    case(
        f"Clip {_dtype}", "Clip", [_left], {1: a(-2 if _dtype[0] != "u" else 3, _dtype), 2: a(9, _dtype)}
    )
    case(f"Cast {_dtype} to float", "Cast", [_left], to=1)
    case(f"Cast {_dtype} to bool", "Cast", [_left], to=9)
    case(f"Where {_dtype}", "Where", [X2 > 0, _left, _right])
    case(f"Less {_dtype}", "Less", [_left, _right])
    case(f"Equal {_dtype}", "Equal", [_left, _right])
    case(f"ReduceSum {_dtype}", "ReduceSum", [_left], {1: a([-1])}, keepdims=0)
    case(f"ReduceMax {_dtype}", "ReduceMax", [_left], {1: a([-1])})
    case(f"ArgMax {_dtype}", "ArgMax", [_left], axis=-1, keepdims=0)
    case(f"Gather {_dtype}", "Gather", [_left, a([0, -1, 2])], axis=1)
    case(f"Pad {_dtype}", "Pad", [_left], {1: a([0, 1, 2, 0]), 2: a(3, _dtype)})

for _base, _power in (
    ("float32", "int64"),
    ("float32", "float32"),
    ("int64", "int64"),
    ("int32", "float32"),
    ("int32", "int32"),
):
    case(
        f"Pow {_base} {_power}",
        "Pow",
        [(POSITIVE * 3 + 1).astype(_base), n(0, 5, 4, 6, dtype=_power)],
    )

for (
    _op
) in """Abs Neg Ceil Floor Round Sqrt Reciprocal Exp Sin Cos Tan Sinh Cosh Tanh Atan Asinh Erf Sigmoid
    Sign Relu Elu Selu LeakyRelu Softplus Softsign HardSigmoid HardSwish Mish IsNaN Identity
    ThresholdedRelu Celu Not""".split():
    _x = X2 > 0 if _op == "Not" else POSITIVE if _op in ("Sqrt", "Reciprocal") else X2
    case(_op, _op, [_x])
case("Log", "Log", [POSITIVE])
case("Acosh", "Acosh", [POSITIVE + 1])
for _op in ("Asin", "Acos", "Atanh"):
    case(_op, _op, [np.clip(X2, -0.9, 0.9)])
case("Round half", "Round", [a([0.5, 1.5, 2.5, -0.5, -1.5], "float32")])
case("IsInf positive", "IsInf", [a([1, np.inf, -np.inf], "float32")], detect_negative=0)
case("IsInf", "IsInf", [a([1, np.inf, -np.inf], "float32")])
case("Elu alpha", "Elu", [X2], alpha=0.5)
case("LeakyRelu alpha", "LeakyRelu", [X2], alpha=0.3)
case("Selu attributes", "Selu", [X2], alpha=1.2, gamma=0.9)
case("HardSigmoid attributes", "HardSigmoid", [X2], alpha=0.4, beta=0.3)
case("Gelu", "Gelu", [X2], opset=20)
case("Gelu tanh", "Gelu", [X2], opset=20, approximate="tanh")
case("PRelu", "PRelu", [X3, f(4, 1)])
case("Shrink", "Shrink", [X2], lambd=0.4, bias=0.1)
case("Sum mixed shapes", "Sum", [X2, f(6), f(4, 1)])
case("Sum of one", "Sum", [X2])
case("Sum of equal shapes", "Sum", [X4, X4, X4, X4])
NAN_LEFT = np.where(X2 > 1, np.nan, X2)
NAN_RIGHT = np.where(X2 < -1, np.nan, np.where(X2 > 1.5, np.inf, -X2))
for _op in ("Max", "Min", "Mean", "Sum"):
    case(f"{_op} of many", _op, [X2, POSITIVE, f(6), X2 * 2, f(4, 1), X2 - 1])
    case(f"{_op} of one NaN", _op, [NAN_LEFT.astype("float32")])
    case(f"{_op} and a scalar", _op, [a(0.5, "float32"), X2])
    for _dtype in ("float32", "float64", "float16"):
        _left, _right = NAN_LEFT.astype(_dtype), NAN_RIGHT.astype(_dtype)
        case(f"{_op} of NaN {_dtype}", _op, [_left, _right, f(6, dtype=_dtype)])
        case(f"{_op} of NaN behind {_dtype}", _op, [_right, _left])
        case(f"{_op} of NaN and a constant {_dtype}", _op, [_left], {1: a(0.25, _dtype)})
        case(f"{_op} of constants and NaN {_dtype}", _op, [_left], {0: np.full((4, 6), 0.25, _dtype)})
        case(f"{_op} and a constant NaN {_dtype}", _op, [_right], {1: a([0, np.nan] * 3, _dtype)})
    case(f"{_op} of large halves", _op, [a(sign * 6e4, "float16") for sign in (1, 1, -1)])
for _op in ("Max", "Min"):
    for _dtype in ("int8", "int32", "int64", "uint8", "uint32", "uint64"):
        _ends = np.iinfo(_dtype)
        _left, _middle = n(0, 100, 4, 6, dtype=_dtype), n(0, 100, 6, dtype=_dtype)
        case(f"{_op} of three {_dtype}", _op, [_left, _middle, n(0, 100, 4, 1, dtype=_dtype)])
        case(f"{_op} of ends {_dtype}", _op, [a([_ends.min, _ends.max], _dtype), a([1, 1], _dtype)])
case("BitShift", "BitShift", [n(0, 9, 4, dtype="uint32"), n(0, 4, 4, dtype="uint32")], direction="LEFT")
case("And", "And", [X2 > 0, POSITIVE > 0.5])
case("Xor", "Xor", [X2 > 0, POSITIVE > 0.5])
case("BitwiseAnd", "BitwiseAnd", [I64, n(-5, 6, 4, 6)])
case("Cast float to int", "Cast", [X2 * 3], to=6)
case("Cast float to uint8", "Cast", [POSITIVE * 9], to=2)
case("Cast float to half", "Cast", [X2], to=10)
case("Cast float to double", "Cast", [X2], to=11)
case("CastLike", "CastLike", [X2, I64])

case("Gather negative axis", "Gather", [X3, a([[0, -1], [1, 2]])], axis=-2)
case("Gather scalar", "Gather", [X3, a(-1)], axis=1)
case("Gather constant", "Gather", [X3], {1: a([-1, 0])}, axis=2)
case("Gather int32", "Gather", [X3, a([-1, 0], "int32")], axis=2)
case("GatherElements", "GatherElements", [X3, n(-4, 4, 3, 2, 5)], axis=1)
case("GatherElements smaller", "GatherElements", [X3, n(-3, 3, 2, 3, 4)], axis=0)
case("GatherND", "GatherND", [X3, a([[0, -1], [-3, 2]])])
case("GatherND batch", "GatherND", [X3, a([[-1], [0], [2]])], batch_dims=1)
case("GatherND whole", "GatherND", [X3, a([[[0, -1, 4]], [[-3, 2, -5]]])])
case("ScatterElements", "ScatterElements", [X3, a([[[1, -1]], [[0, -2]]]), f(2, 1, 2)], axis=-2)
case(
    "ScatterElements add",
    "ScatterElements",
    [X3, n(-3, 3, 2, 3, 4), f(2, 3, 4)],
    axis=0,
    reduction="add",
)
case(
    "ScatterElements max",
    "ScatterElements",
    [X3, n(-4, 4, 3, 4, 5), f(3, 4, 5)],
    axis=1,
    reduction="max",
)
case("ScatterND", "ScatterND", [X3, a([[0, -1], [-3, 2]]), f(2, 5)])
case("ScatterND add", "ScatterND", [X3, a([[0], [0], [-1]]), f(3, 4, 5)], reduction="add")
case("OneHot", "OneHot", [n(-6, 6, 2, 3)], {1: a(6), 2: a([0, 1])})
case("OneHot float", "OneHot", [n(-9, 9, 2, 3)], {1: a(6), 2: a([0.5, 2.5], "float32")}, axis=0)
case("Slice", "Slice", [X3], {1: a([-3, 1]), 2: a([-1, 99]), 3: a([1, -1])})
case("Slice step", "Slice", [X3], {1: a([-1]), 2: a([-99]), 3: a([1]), 4: a([-2])})
case("Slice int32", "Slice", [X3], {1: a([1], "int32"), 2: a([3], "int32"), 3: a([-2], "int32")})
case("Split", "Split", [X3], {1: a([1, 3])}, axis=-2, outputs=2)
case("Split even", "Split", [X3], axis=-2, outputs=2, num_outputs=2)
case("Split uneven", "Split", [X3], axis=2, outputs=2, num_outputs=2)
case("Concat", "Concat", [X3, f(3, 4, 2)], axis=-1)
case("Transpose", "Transpose", [X3], perm=[2, 0, 1])
case("Transpose reversed", "Transpose", [X3])
case("Reshape", "Reshape", [X3], {1: a([0, -1])})
case("Reshape allowzero", "Reshape", [X3], {1: a([5, 12])}, allowzero=1)
case("Flatten", "Flatten", [X3], axis=-1)
case("Squeeze", "Squeeze", [X4], {1: a([-4])})
case("Unsqueeze", "Unsqueeze", [X3], {1: a([-1, 0])})
case("Expand", "Expand", [f(3, 1)], {1: a([2, 1, 4])})
case("Tile", "Tile", [X2], {1: a([2, 3])})
case("Trilu upper", "Trilu", [X3], {1: a(1)})
case("Trilu lower", "Trilu", [X3], {1: a(-1)}, upper=0)
case("DepthToSpace", "DepthToSpace", [f(1, 8, 2, 3)], blocksize=2)
case("DepthToSpace CRD", "DepthToSpace", [f(1, 8, 2, 3)], blocksize=2, mode="CRD")
case("SpaceToDepth", "SpaceToDepth", [f(1, 2, 4, 6)], blocksize=2)
case("Pad reflect", "Pad", [X4], {1: a([0, 0, 1, 2, 0, 0, 0, 1])}, mode="reflect")
case("Pad edge", "Pad", [X4], {1: a([0, 0, 1, 2, 0, 0, 0, 1])}, mode="edge")
case("Pad axes", "Pad", [X3], {1: a([1, 2]), 2: a(0.5, "float32"), 3: a([-1])})
case("Pad negative", "Pad", [X3], {1: a([0, -1, 0, 0, 0, 1])})
case("CumSum", "CumSum", [X3], {1: a(-1)})
case("CumSum reverse exclusive", "CumSum", [X3], {1: a(1)}, reverse=1, exclusive=1)
case("CumSum int", "CumSum", [I64], {1: a(1)})
case("Range", "Range", [], {0: a(1), 1: a(10), 2: a(3)})
case("EyeLike", "EyeLike", [X2], k=1)
case("Dropout", "Dropout", [X2], outputs=2)
case("ConstantOfShape", "ConstantOfShape", [], {0: a([2, 3])})
case("Shape", "Shape", [X3], start=-2)
case("Size", "Size", [X3])
case("TopK", "TopK", [X3], {1: a([2])}, axis=-2, outputs=2)
case("TopK smallest", "TopK", [X3], {1: a([3])}, largest=0, outputs=2)
case("ArgMax last", "ArgMax", [a([[1, 3, 3], [2, 2, 2]], "float32")], axis=-1, select_last_index=1)
case("ArgMax ties", "ArgMax", [a([[1, 3, 3], [2, 2, 2]], "float32")], axis=-1)
case("ArgMin", "ArgMin", [X3], axis=1, keepdims=0)
for _op in "ReduceMean ReduceProd ReduceMin ReduceL1 ReduceL2 ReduceSumSquare ReduceLogSumExp".split():
    case(_op, _op, [X3], {1: a([-1, 0])})
case("ReduceLogSum", "ReduceLogSum", [POSITIVE], {1: a([1])}, keepdims=0)
case("ReduceLogSumExp large", "ReduceLogSumExp", [X3 * 200], {1: a([1])})
case("ReduceSum noop", "ReduceSum", [X3], noop_with_empty_axes=1)
case("ReduceSum all", "ReduceSum", [X3])
case("ReduceMean old", "ReduceMean", [X3], opset=13, axes=[-2], keepdims=0)
case("Softmax", "Softmax", [X3], axis=1)
case("Softmax old", "Softmax", [X3], opset=11, axis=1)
case("LogSoftmax", "LogSoftmax", [X3], axis=-2)
case("LogSoftmax old", "LogSoftmax", [X3], opset=11, axis=1)
case("Hardmax", "Hardmax", [X3], axis=-1)
case("MatMul", "MatMul", [X3, f(5, 2)])
case("MatMul vector", "MatMul", [X3, f(5)])
case("MatMul double", "MatMul", [f(2, 3, dtype="float64"), f(3, 2, dtype="float64")])
case("MatMul int", "MatMul", [n(-5, 5, 2, 3, dtype="int32"), n(-5, 5, 3, 2, dtype="int32")])
case("Gemm", "Gemm", [f(5, 3), f(4, 5), f(4)], alpha=0.5, beta=2.0, transA=1, transB=1)
case("Gemm none", "Gemm", [f(3, 5), f(5, 4)])
case("Einsum", "Einsum", [X3, f(3, 2, 5)], equation="bij,bkj->bik")
case("Conv", "Conv", [X4, f(3, 2, 3, 3), f(3)], pads=[1, 0, 2, 1], strides=[2, 1])
case("Conv same upper", "Conv", [X4, f(3, 2, 2, 2)], auto_pad="SAME_UPPER", strides=[2, 2])
case("Conv same lower", "Conv", [X4, f(3, 2, 2, 2)], auto_pad="SAME_LOWER")
case("Conv groups", "Conv", [X4, f(4, 1, 3, 3)], group=2, dilations=[1, 1])
case("Conv dilated", "Conv", [X4, f(4, 2, 2, 2)], dilations=[2, 2])
case("Conv 1-d", "Conv", [X3, f(2, 4, 3)])
case("Conv 3-d", "Conv", [f(1, 2, 4, 4, 4), f(3, 2, 2, 2, 2)])
W = f(2, 3, 3, 3)
case("ConvTranspose", "ConvTranspose", [X4, W, f(3)], strides=[2, 2], pads=[1, 0, 0, 1])
case("ConvTranspose output_padding", "ConvTranspose", [X4, W], strides=[2, 2], output_padding=[1, 1])
case("ConvTranspose output_shape", "ConvTranspose", [X4, W], strides=[2, 2], output_shape=[10, 8])
case(
    "ConvTranspose output_shape larger", "ConvTranspose", [X4, W], strides=[3, 3], output_shape=[17, 13]
)
case("ConvTranspose same", "ConvTranspose", [X4, W], strides=[2, 2], auto_pad="SAME_UPPER")
case(
    "ConvTranspose same with gaps",
    "ConvTranspose",
    [X4, W[..., :2, :1]],
    strides=[3, 4],
    output_padding=[0, 1],
    auto_pad="SAME_UPPER",
)
case(
    "ConvTranspose same lower with gaps",
    "ConvTranspose",
    [X4, W[..., :1, :2]],
    strides=[3, 2],
    auto_pad="SAME_LOWER",
)
case("ConvTranspose same lower", "ConvTranspose", [X4, W], strides=[2, 2], auto_pad="SAME_LOWER")
case("ConvTranspose groups", "ConvTranspose", [X4, f(2, 2, 3, 3)], group=2, strides=[2, 1])
case("ConvTranspose dilations", "ConvTranspose", [X4, W], dilations=[2, 2])
case("ConvTranspose 1-d", "ConvTranspose", [X3, f(4, 2, 3)], strides=[2], output_padding=[1])
case("MaxPool", "MaxPool", [X4], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
case("MaxPool ceil", "MaxPool", [X4], kernel_shape=[2, 3], strides=[2, 2], ceil_mode=1)
case("MaxPool same", "MaxPool", [X4], kernel_shape=[2, 2], strides=[2, 2], auto_pad="SAME_UPPER")
case("MaxPool dilations", "MaxPool", [X4], kernel_shape=[2, 2], dilations=[2, 2])
case("MaxPool indices", "MaxPool", [f(2, 3, 5, 4)], kernel_shape=[2, 2], outputs=2)
case(
    "MaxPool indices padded",
    "MaxPool",
    [X4],
    kernel_shape=[3, 2],
    strides=[2, 1],
    pads=[1, 0, 0, 1],
    outputs=2,
)
case(
    "MaxPool indices ceil", "MaxPool", [X4], kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1, outputs=2
)
case(
    "MaxPool indices same",
    "MaxPool",
    [X4],
    kernel_shape=[2, 2],
    strides=[2, 2],
    auto_pad="SAME_UPPER",
    outputs=2,
)
case("MaxPool indices along columns", "MaxPool", [X4], kernel_shape=[2, 2], outputs=2, storage_order=1)
case("AveragePool", "AveragePool", [X4], kernel_shape=[3, 3], pads=[1, 1, 1, 1])
case(
    "AveragePool include",
    "AveragePool",
    [X4],
    kernel_shape=[3, 3],
    pads=[1, 1, 1, 1],
    count_include_pad=1,
)
case("AveragePool ceil", "AveragePool", [X4], kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)
case("AveragePool 1-d", "AveragePool", [X3], kernel_shape=[2])
case("LpPool", "LpPool", [X4], kernel_shape=[2, 2], p=2)
case("GlobalAveragePool", "GlobalAveragePool", [X4])
case("GlobalMaxPool", "GlobalMaxPool", [X4])
case(
    "BatchNormalization", "BatchNormalization", [X4, f(2), f(2), f(2), np.abs(f(2)) + 0.1], epsilon=0.01
)
case("InstanceNormalization", "InstanceNormalization", [X4, f(2), f(2)])
case("LayerNormalization", "LayerNormalization", [X3, f(5), f(5)])
case("LayerNormalization axis", "LayerNormalization", [X3, f(4, 5), f(4, 5)], axis=-2, epsilon=0.1)
case("GroupNormalization", "GroupNormalization", [f(1, 4, 3, 3), f(4), f(4)], opset=21, num_groups=2)
case("LRN", "LRN", [f(1, 6, 3, 3)], size=3, alpha=0.1, beta=0.7, bias=1.5)
# ONNX Runtime takes odd sizes only, and onnx's evaluator sums as many channels as there are batches.
case("LRN of an even number", "LRN", [f(5, 5, 3, 4)], size=4, alpha=2.0, beta=0.75)
case("LRN of all channels", "LRN", [f(1, 3, 4, 2)], size=7, alpha=0.5, bias=2.0)
case("LRN of each channel", "LRN", [f(1, 4, 3, 2)], size=1, alpha=1.0, beta=0.5)
case("MeanVariance", "MeanVarianceNormalization", [X4])
case("GridSample", "GridSample", [X4, f(1, 3, 3, 2)], mode="bilinear", padding_mode="border")
case("GridSample aligned", "GridSample", [X4, f(1, 3, 3, 2)], mode="nearest", align_corners=1)
# Places half way between elements, on the edges, and far outside.
_TIES = a([-9, -2.5, -1.5, -1.25, -1, -0.75, -0.5, 0, 0.25, 0.5, 1, 1.25, 1.5, 2.2, 50], "float32")
_PAIRS = np.stack(np.meshgrid(_TIES, _TIES), -1)[None]
for _padding in ("zeros", "border", "reflection"):
    for _mode in ("linear", "nearest", "cubic"):
        case(
            f"GridSample {_mode} {_padding}",
            "GridSample",
            [X4, _PAIRS],
            opset=20,
            mode=_mode,
            padding_mode=_padding,
            align_corners=int(_mode == "cubic"),
        )
    case(
        f"GridSample of volumes {_padding}",
        "GridSample",
        [X4[..., None] * _TIES[:3], _PAIRS[..., [0, 1, 0]].reshape(1, 15, 5, 3, 3)],
        opset=20,
        mode="linear",
        padding_mode=_padding,
    )
case("Einsum trace", "Einsum", [f(3, 3)], equation="ii->i")

_modes = "half_pixel pytorch_half_pixel align_corners asymmetric".split()
for _how in _modes:
    for _mode in ("nearest", "linear", "cubic"):
        for _scale in (2.0, 1.5, 0.6):
            case(
                f"Resize {_mode} {_how} {_scale}",
                "Resize",
                [X4],
                {2: a([1, 1, _scale, _scale], "float32")},
                mode=_mode,
                coordinate_transformation_mode=_how,
            )
for _nearest in "round_prefer_floor round_prefer_ceil floor ceil".split():
    case(
        f"Resize {_nearest}",
        "Resize",
        [X4],
        {3: a([1, 2, 8, 3])},
        mode="nearest",
        nearest_mode=_nearest,
    )
case("Resize sizes", "Resize", [X4], {3: a([1, 2, 7, 9])}, mode="linear")
case("Resize axes", "Resize", [X4], {3: a([9, 7])}, mode="linear", axes=[3, 2])
case("Resize channels", "Resize", [X4], {2: a([1, 2, 1, 1], "float32")}, mode="nearest")
case("Resize 3-d", "Resize", [X3], {2: a([1, 1, 1.7], "float32")}, mode="linear")
case("Resize 5-d", "Resize", [f(1, 1, 3, 4, 5)], {3: a([1, 1, 5, 6, 3])}, mode="linear")
case(
    "AffineGrid of one place",
    "AffineGrid",
    [f(1, 2, 3)],
    {1: a([1, 1, 1, 3])},
    opset=20,
    align_corners=1,
)
case("Resize antialias", "Resize", [X4], {3: a([1, 2, 3, 3])}, mode="linear", antialias=1)
case("Resize opset 10", "Resize", [X4], {1: a([1, 1, 2, 1.5], "float32")}, opset=10, mode="nearest")
case("Upsample", "Upsample", [X4], {1: a([1, 1, 2, 2], "float32")}, opset=9, mode="linear")

# What the standard defines by other operators, and what came into it lately.
_NEW = 28
_HEADS = [f(2, 4, 5, 8), f(2, 2, 7, 8), f(2, 2, 7, 6)]
case("Attention", "Attention", _HEADS, opset=_NEW)
case("Attention causal", "Attention", _HEADS, opset=_NEW, is_causal=1, scale=0.3, softcap=2.0)
case("Attention mask", "Attention", [*_HEADS, f(5, 7) > 0], opset=_NEW)
case("Attention of half floats", "Attention", [each.astype("float16") for each in _HEADS], opset=_NEW)
case(
    "Attention of three axes and a past",
    "Attention",
    [f(2, 3, 32), f(2, 3, 16), f(2, 3, 12), f(3, 8), f(2, 2, 5, 8), f(2, 2, 5, 6)],
    opset=_NEW,
    outputs=3,
    q_num_heads=4,
    kv_num_heads=2,
    is_causal=1,
)
_TABLES = f(6, 4), f(6, 4)
_PLACES = n(0, 6, 2, 3)
case("RotaryEmbedding", "RotaryEmbedding", [f(2, 4, 3, 8), *_TABLES, _PLACES], opset=_NEW)
case(
    "RotaryEmbedding interleaved",
    "RotaryEmbedding",
    [f(2, 3, 32), *_TABLES, _PLACES],
    opset=_NEW,
    interleaved=1,
    num_heads=4,
)
case("Swish", "Swish", [X2], opset=_NEW, alpha=1.5)
for _axis in (0, 1, -1):
    case(
        f"RMSNormalization {_axis}",
        "RMSNormalization",
        [X3, f(*X3.shape[_axis:])],
        opset=_NEW,
        axis=_axis,
    )
case("CenterCropPad", "CenterCropPad", [X3], {1: a([3, 3, 8])}, opset=_NEW)
for _flags in ({}, {"exclusive": 1}, {"reverse": 1}, {"exclusive": 1, "reverse": 1}):
    case(f"CumProd {_flags}", "CumProd", [X3], {1: a(1)}, opset=_NEW, **_flags)
case("CumProd of whole numbers", "CumProd", [I64], {1: a(-2)}, opset=_NEW)
for _signed in (0, 1):
    _kind = "int8" if _signed else "uint8"
    _bits = a([-8 if _signed else 200, 4, -1 if _signed else 255, 100] * 2, _kind)
    _counts = a([9, -1 if _signed else 8, 64, 1, 0, 7, 2, 3], _kind)
    for _direction in ("LEFT", "RIGHT"):
        case(
            f"BitShift {_direction} {_kind}",
            "BitShift",
            [_bits, _counts],
            opset=_NEW,
            direction=_direction,
        )
        _count = {1: a(9, _kind)}
        case(
            f"BitShift {_direction} {_kind} by 9",
            "BitShift",
            [_bits],
            _count,
            opset=_NEW,
            direction=_direction,
        )
case("BitCast to whole numbers", "BitCast", [X2], opset=_NEW, to=6)
case("BitCast to floats", "BitCast", [n(0, 2**30, 4, dtype="int32")], opset=_NEW, to=1)
_lengths = a([0, 3, 4, 1, 2])
case("ReverseSequence", "ReverseSequence", [f(4, 5, 2), _lengths], opset=_NEW)
case(
    "ReverseSequence of rows",
    "ReverseSequence",
    [f(5, 4), _lengths],
    opset=_NEW,
    time_axis=1,
    batch_axis=0,
)
_CACHE = [f(2, 3, 6, 4), f(2, 3, 2, 4)]
case("TensorScatter", "TensorScatter", [*_CACHE, a([4, 0])], opset=_NEW)
case("TensorScatter from the beginning", "TensorScatter", _CACHE, opset=_NEW)
case("TensorScatter circular", "TensorScatter", [*_CACHE, a([5, 1])], opset=_NEW, mode="circular")
case("TensorScatter of axis 1", "TensorScatter", [f(2, 6, 3), f(2, 2, 3), a([1, 4])], opset=_NEW, axis=1)
_ZEROS = X3 * (np.arange(4) > 0)[:, None].astype("float32")
for _p in (1, 2):
    case(f"LpNormalization {_p}", "LpNormalization", [_ZEROS], opset=_NEW, p=_p)
    case(f"LpNormalization {_p} of axis 1", "LpNormalization", [X3], opset=_NEW, p=_p, axis=1)
case("Unsqueeze by a number", "Unsqueeze", [X2], {1: a(-2)})
case("DFT", "DFT", [f(2, 10, 1)], opset=20)
case("DFT complex", "DFT", [f(2, 10, 3, 2)], {2: a(1)}, opset=20)
case("DFT inverse", "DFT", [f(2, 10, 2)], opset=20, inverse=1)
case("DFT longer, one side", "DFT", [f(2, 10, 1)], {1: a(16)}, opset=20, onesided=1)
case("DFT shorter", "DFT", [f(2, 10, 2)], {1: a(7)}, opset=20)
case("DFT of axis 1", "DFT", [f(2, 10, 3, 1)], opset=17, axis=1)
case("STFT", "STFT", [f(2, 40, 1)], {1: a(6), 3: a(16)}, opset=20)
case("STFT window", "STFT", [f(2, 40, 1), f(16)], {1: a(7)}, opset=20, onesided=0)
for _length in (8, 9):
    _half = f(2, _length // 2 + 1, 2)
    case(
        f"DFT inverse of one side {_length}",
        "DFT",
        [_half],
        {1: a(_length)},
        opset=_NEW,
        inverse=1,
        onesided=1,
    )
case("Col2Im", "Col2Im", [f(1, 2 * 6, 4)], {1: a([4, 5]), 2: a([3, 2])}, strides=[1, 3])
case(
    "Col2Im padded",
    "Col2Im",
    [f(2, 2 * 4, 9)],
    {1: a([5, 5]), 2: a([2, 2])},
    strides=[2, 2],
    dilations=[2, 2],
    pads=[1, 1, 1, 1],
)
_OFFSETS, _MASK = f(1, 2 * 2 * 4, 4, 3), f(1, 2 * 4, 4, 3)
case("DeformConv", "DeformConv", [X4, f(3, 2, 2, 2), f(1, 8, 4, 3)], opset=22)
case(
    "DeformConv groups and masks",
    "DeformConv",
    [X4, f(4, 1, 2, 2), _OFFSETS, f(4), _MASK],
    opset=22,
    group=2,
    offset_group=2,
)
case(
    "DeformConv strides",
    "DeformConv",
    [X4, f(3, 2, 2, 2), f(1, 8, 3, 3)],
    opset=22,
    strides=[2, 1],
    pads=[1, 0, 1, 0],
    dilations=[2, 1],
)
case(
    "BatchNormalization in training",
    "BatchNormalization",
    [X4 * 3 + 1, f(2), f(2), f(2), POSITIVE[0, :2]],
    opset=15,
    outputs=3,
    training_mode=1,
    momentum=0.7,
)

for _axis in (0, -1):
    _scales = [f(*X3.shape[_axis:]), f(*X3.shape[_axis:])]
    case(
        f"LayerNormalization, all of it, {_axis}",
        "LayerNormalization",
        [X3, *_scales],
        outputs=3,
        axis=_axis,
    )
case("EyeLike of another type", "EyeLike", [I64], dtype=11, k=-1)
for _window in ("Hann", "Hamming", "Blackman"):
    for _periodic in (0, 1):
        case(f"{_window} {_periodic}", f"{_window}Window", [], {0: a(10)}, opset=20, periodic=_periodic)
    case(f"{_window} in float64", f"{_window}Window", [], {0: a(10)}, opset=20, output_datatype=11)
_EDGES = np.array([[0, -0.0, 3, -3, 5.5, np.inf, -np.inf, np.nan, 0.9, -0.9]] * 9)
_BY = np.array([0.3, -0.3, 3, -3, np.inf, -np.inf, np.nan, 1, 0.1])[:, None]
for _dtype in ("float32", "float64", "float16"):
    _edges = [_EDGES.astype(_dtype), _BY.astype(_dtype)]
    case(f"Mod of edges {_dtype}", "Mod", _edges, opset=_NEW)
    case(f"Mod fmod of edges {_dtype}", "Mod", _edges, opset=_NEW, fmod=1)

for _mode in ("DCR", "CRD"):
    case(f"SpaceToDepth {_mode}", "SpaceToDepth", [f(1, 3, 4, 6)], opset=_NEW, blocksize=2, mode=_mode)
case("SwiGLU", "SwiGLU", [X2, X2 * 2], opset=_NEW)
for _op in ("ReduceMax", "ReduceMin"):
    case(f"{_op} of bools", _op, [X2 > 0], {1: a([-1])}, opset=_NEW)
    case(f"{_op} of all bools", _op, [X2 > 3], opset=_NEW, keepdims=0)
for _dtype in "uint64 uint32 uint16 int16 uint8".split():
    _far = (n(0, 100, 3, 7).astype(_dtype) * np.array(999_999_937).astype(_dtype)).astype(_dtype)
    for _largest in (0, 1):
        case(
            f"TopK {_dtype} {_largest}",
            "TopK",
            [_far],
            {1: a([3])},
            opset=_NEW,
            outputs=2,
            largest=_largest,
        )

#: What is refused, by the name of the operator; a graph with a result of unknown shape, alone.
REFUSED = ["MaxPool indices along columns", "Resize antialias", "AffineGrid of one place"]
