"""Operators over space: convolutions, pools, resizing, sampling."""

from __future__ import annotations

from typing import Any

import numpy as np

from .graph import Draw, Graph, RejectedError


def _window(g: Graph, rank: int, extents: list[int], *, dilated: bool) -> dict[str, Any]:
    """Return attributes of a sliding window that fits."""
    kernel = [g.number(1, min(3, extent)) for extent in extents]
    attributes: dict[str, Any] = {"kernel_shape": kernel}
    if g.chance(0.6):
        attributes["strides"] = [g.number(1, 3) for _ in range(rank)]
    how = g.rng.random()
    if how < 0.3:
        attributes["auto_pad"] = g.pick(["SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET"])
    elif how < 0.8:
        attributes["pads"] = [g.number(0, k - 1) for k in kernel] + [g.number(0, k - 1) for k in kernel]
    # ONNX Runtime pads a dilated window as if it were not dilated.
    if dilated and "SAME" not in attributes.get("auto_pad", "") and g.chance(0.3):
        attributes["dilations"] = [
            g.number(1, 2) if k > 1 and e > 4 else 1 for k, e in zip(kernel, extents, strict=True)
        ]
    return attributes


def _conv(g: Graph) -> Any:
    rank = g.number(1, 3)
    extents = g.spatial(rank)
    group = g.pick([1, 1, 1, 2, 3])
    inputs, outputs = group * g.number(1, 4), group * g.number(1, 4)
    if g.chance(0.2):
        group = inputs = outputs
    attributes = _window(g, rank, extents, dilated=True)
    weights = g.array("float32", [outputs, inputs // group, *attributes["kernel_shape"]])
    if g.chance(0.3):
        del attributes["kernel_shape"]
    names = [g.input(g.array("float32", [g.number(1, 2), inputs, *extents])), g.either(weights)]
    if g.chance(0.5):
        names.append(g.weight(g.array("float32", [outputs])))
    return g.add("Conv", names, group=group, **attributes)


def _conv_transpose(g: Graph) -> Any:
    rank = g.number(1, 3)
    extents = [g.number(2, 5) for _ in range(rank)]
    group = g.pick([1, 1, 1, 2])
    inputs, outputs = group * g.number(1, 3), g.number(1, 3)
    attributes = _window(g, rank, [3] * rank, dilated=True)
    if g.chance(0.3) and "strides" in attributes:
        attributes["output_padding"] = [g.number(0, s - 1) for s in attributes["strides"]]
    weights = g.array("float32", [inputs, outputs, *attributes["kernel_shape"]])
    names = [g.input(g.array("float32", [g.number(1, 2), inputs, *extents])), g.either(weights)]
    if g.chance(0.4):
        names.append(g.weight(g.array("float32", [outputs * group])))
    return g.add("ConvTranspose", names, group=group, **attributes)


def _pool(op: str) -> Draw:
    def draw(g: Graph) -> Any:
        rank = g.number(1, 3)
        extents = g.spatial(rank)
        attributes = _window(g, rank, extents, dilated=op == "MaxPool" or g.opset >= 19)
        if op != "LpPool" and g.chance(0.3):
            attributes["ceil_mode"] = 1
        if op == "AveragePool" and g.chance(0.4):
            attributes["count_include_pad"] = 1
        if op == "LpPool":
            attributes["p"] = g.number(1, 3)
            attributes.pop("dilations", None)
        return g.add(
            op, [g.input(g.array("float32", [g.number(1, 2), g.number(1, 4), *extents]))], **attributes
        )

    return draw


def _global_pool(op: str) -> Draw:
    return lambda g: g.add(
        op, [g.input(g.array("float32", [1, g.number(1, 4), *g.spatial(g.number(1, 3))]))]
    )


def _resize(g: Graph) -> Any:
    rank = g.pick([1, 2, 2, 2, 3])
    source = g.input(g.array("float32", [1, g.number(1, 3), *g.spatial(rank)]))
    shape = g.of(source).shape
    mode = g.pick(["nearest", "linear", "linear", "cubic"] if rank == 2 else ["nearest", "linear"])
    attributes: dict[str, Any] = {"mode": mode}
    kinds = ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"]
    attributes["coordinate_transformation_mode"] = g.pick(kinds)
    if mode == "nearest":
        attributes["nearest_mode"] = g.pick(["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
    if mode == "cubic" and g.chance(0.5):
        attributes["cubic_coeff_a"] = g.pick([-0.5, -0.75])
    if g.chance(0.5):
        scales = [1.0, 1.0, *(g.pick([0.5, 0.6, 1.5, 2.0, 2.5, 3.0]) for _ in range(rank))]
        inputs = [source, "", g.weight(scales, "float32")]
    else:
        sizes = [*shape[:2], *(g.number(1, 12) for _ in range(rank))]
        inputs = [source, "", "", g.weight(sizes, "int64")]
    if g.opset < 13:
        inputs[1] = g.weight([], "float32")
        if len(inputs) == 4:
            inputs[2] = g.weight([], "float32")
    return g.add("Resize", inputs, **attributes)


def _grid_sample(g: Graph) -> Any:
    if g.opset < 16:
        raise RejectedError("GridSample: since 16")
    source = g.input(g.array("float32", [2, 2, *g.spatial(2)]))
    grid = g.input(g.array("float32", [2, 3, 4, 2], -1.2, 1.2))
    modes = ["linear", "nearest", "cubic"] if g.opset >= 20 else ["bilinear", "nearest", "bicubic"]
    padding = g.pick(["zeros", "border", "reflection"])
    return g.add(
        "GridSample",
        [source, grid],
        mode=g.pick(modes),
        padding_mode=padding,
        align_corners=g.number(0, 1),
    )


def _roi_align(g: Graph) -> Any:
    source = g.input(g.array("float32", [2, 3, 8, 9]))
    corners = (
        np.sort(g.rng.uniform(0, 8, (3, 2, 2)), 1).reshape(3, 4)[:, [0, 1, 2, 3]].astype(np.float32)
    )
    batch = g.either(g.rng.integers(0, 2, 3).astype(np.int64))
    attributes = (
        {"coordinate_transformation_mode": g.pick(["half_pixel", "output_half_pixel"])}
        if g.opset >= 16
        else {}
    )
    return g.add(
        "RoiAlign", [source, g.input(corners), batch], output_height=2, output_width=3,
        sampling_ratio=g.number(1, 2), spatial_scale=g.pick([1.0, 0.5]), mode=g.pick(["avg", "max"]),
        **attributes,
    )  # fmt: skip


def _qlinear_conv(g: Graph) -> Any:
    f32, channels = np.float32, g.number(1, 4)
    names = [
        g.input(g.array("uint8", [1, channels, 6, 5], 0, 255)), g.weight(f32(0.02)),
        g.weight(np.uint8(g.number(0, 255))),
        g.weight(g.array("int8", [3, channels, 3, 2], -128, 127)), g.weight(f32(0.03)),
        g.weight(np.int8(0)),
        g.weight(f32(0.4)), g.weight(np.uint8(g.number(0, 255))),
    ]  # fmt: skip
    return g.add("QLinearConv", names, pads=[1, 0, 1, 1])


def _conv_integer(g: Graph) -> Any:
    channels = g.number(1, 4)
    names = [
        g.input(g.array("uint8", [g.number(1, 2), channels, 6, 5], 0, 255)),
        g.either(g.array("uint8", [3, channels, 3, 2], 0, 255)),
    ]
    if g.chance(0.7):
        names += [g.weight(g.array("uint8", (), 0, 255)) for _ in range(g.number(1, 2))]
    attributes = _window(g, 2, [3, 2], dilated=False)
    return g.add("ConvInteger", names, **{**attributes, "kernel_shape": [3, 2]})


def _upsample(g: Graph) -> Any:
    if g.opset != 9:
        raise RejectedError("Upsample: replaced by Resize since 10")
    source = g.input(g.array("float32", [1, g.number(1, 3), *g.spatial(2)]))
    scales = [1.0, 1.0, g.pick([1.0, 2.0, 3.0]), g.pick([1.0, 2.0, 1.5])]
    mode = g.pick(["nearest", "linear"])
    return g.add("Upsample", [source, g.weight(scales, "float32")], mode=mode)


def _affine_grid(g: Graph) -> Any:
    if g.opset < 20:
        raise RejectedError("AffineGrid: since 20")
    theta = g.input(g.array("float32", [2, 2, 3], -1, 1))
    size = g.weight([2, 1, g.number(1, 5), g.number(1, 5)], "int64")
    return g.add("AffineGrid", [theta, size], align_corners=g.number(0, 1))


def _max_roi_pool(g: Graph) -> Any:
    source = g.input(g.array("float32", [2, 3, 8, 9]))
    corners = np.sort(g.rng.integers(0, 8, (3, 2, 2)), 1).reshape(3, 4)
    batch = g.rng.integers(0, 2, (3, 1))
    regions = np.concatenate([batch, corners], 1).astype(np.float32)
    return g.add(
        "MaxRoiPool", [source, g.input(regions)], pooled_shape=[2, 3], spatial_scale=g.pick([1.0, 0.5])
    )


#: By operator.
DRAWS: dict[str, Draw] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    **{op: _pool(op) for op in ("MaxPool", "AveragePool", "LpPool")},
    **{op: _global_pool(op) for op in ("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")},
    "Resize": _resize,
    "GridSample": _grid_sample,
    "RoiAlign": _roi_align,
    "QLinearConv": _qlinear_conv,
    "ConvInteger": _conv_integer,
    "Upsample": _upsample,
    "AffineGrid": _affine_grid,
    "MaxRoiPool": _max_roi_pool,
}
