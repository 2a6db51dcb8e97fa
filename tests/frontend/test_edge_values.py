"""Comparisons of bools, tensors without elements, and values that are much alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
import tvm
from tvm import tirx

from tests.frontend.evaluate import evaluate, make_model, onnx_runtime
from tests.frontend.run_module import TARGET, run_default
from tvm_sphinx.errors import ModelError
from tvm_sphinx.frontend.load import load_model
from tvm_sphinx.frontend.lower import lower_to_kernels
from tvm_sphinx.kernels.implement import implement_kernel, loops_over_nothing

torch = pytest.importorskip("torch", reason="no PyTorch: pip install 'tvm-sphinx[torch]'")


@pytest.mark.parametrize("name", ["eq", "ne", "lt", "le", "gt", "ge"])
def test_bools_are_compared_as_numbers(name: str) -> None:
    class Model(torch.nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> list[torch.Tensor]:
            compare = getattr(torch, name)
            return [compare(x, y), compare(x, True), compare(x, y[:1])]

    operands = torch.tensor([False, False, True, True]), torch.tensor([False, True, False, True])
    module = load_model(torch.export.export(Model(), operands))
    names = [str(param.name) for param in module["main"].params]
    feeds = dict(zip(names, (operand.numpy() for operand in operands), strict=True))
    for got, want in zip(evaluate(module, feeds), Model()(*operands), strict=True):
        np.testing.assert_array_equal(got, want.numpy())


def test_nothing_is_written_into_data_without_elements() -> None:
    class Model(torch.nn.Module):
        def forward(self, x: torch.Tensor, k: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
            return x.scatter(0, k, s)

    operands = (
        torch.zeros(4, 2, 4, 0),
        torch.zeros(1, 1, 3, 0, dtype=torch.int64),
        torch.ones(1, 1, 3, 0),
    )
    module = load_model(torch.export.export(Model(), operands))
    names = [str(param.name) for param in module["main"].params]
    (got,) = evaluate(module, dict(zip(names, (each.numpy() for each in operands), strict=True)))
    assert got.shape == (4, 2, 4, 0)


@pytest.mark.parametrize(("shape", "axis"), [((0,), 1), ((3, 0, 2), 1), ((3, 2, 0), 2), ((0, 4), 0)])
def test_flattened_tensors_without_elements_keep_their_extents(shape: list[int], axis: int) -> None:
    data = np.zeros(shape, np.float32)
    nodes = [
        onnx.helper.make_node("Flatten", ["x"], ["f"], axis=axis),
        onnx.helper.make_node("Neg", ["f"], ["y"]),
    ]
    model = make_model(nodes, {"x": data}, ["y"])
    (want,) = onnx_runtime(model, {"x": data})
    assert evaluate(model, {"x": data}, falls_back=True)[0].shape == want.shape


def test_values_that_are_much_alike_are_normalised_to_all_digits() -> None:
    data = (2 + np.random.default_rng(1).normal(size=(2, 3, 4, 5)) * 1e-3).astype(np.float32)
    node = onnx.helper.make_node("MeanVarianceNormalization", ["x"], ["y"], axes=[2, 3])
    wide = data.astype(np.float64)
    centred = wide - wide.mean((2, 3), keepdims=True)
    want = centred / centred.std((2, 3), keepdims=True)
    (got,) = evaluate(make_model([node], {"x": data}, ["y"]), {"x": data})
    np.testing.assert_allclose(got, want, atol=2e-3)


@pytest.mark.parametrize("falls_back", [False, True])
@pytest.mark.parametrize(
    ("function", "shape"),
    [
        (lambda x: x[:0], (7, 3, 0)),
        (lambda x: x[1:3], (7, 0)),
        (lambda x: x.transpose(0, 1), (4, 0)),
        (lambda x: x.expand(5, -1, -1), (1, 0, 3)),
        (lambda x: x.sum(0), (7, 0)),
        (lambda x: torch.cat([x, x], 1), (2, 0, 4)),
    ],
    ids=["none of them", "some", "transposed", "repeated", "summed", "joined"],
)
def test_a_kernel_without_elements_is_no_reshape(
    function: Callable[[torch.Tensor], torch.Tensor], shape: tuple[int, ...], falls_back: bool
) -> None:
    """Any two tensors without elements hold the same ones, so that TVM takes each kernel for a view."""

    class Model(torch.nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> list[torch.Tensor]:
            return [function(x), y.exp()]

    operands = torch.zeros(shape), torch.ones(3)
    module = load_model(torch.export.export(Model(), operands))
    feeds = [operand.numpy() for operand in operands]
    found = run_default(module, TARGET)(feeds) if falls_back else _on_a_lane(module, feeds)
    for got, want in zip(found, Model()(*operands), strict=True):
        assert got.shape == tuple(want.shape)
        np.testing.assert_allclose(got, want.numpy(), rtol=1e-6)


def _on_a_lane(module: Any, feeds: list[np.ndarray]) -> list[np.ndarray]:
    names = [str(param.name) for param in module["main"].params]
    return evaluate(module, dict(zip(names, feeds, strict=True)))


F = torch.nn.functional
EXTREMES: dict[str, Callable[[torch.Tensor], Any]] = {
    "max": lambda x: x.amax((1, 3)),
    "min": lambda x: (-x).amin(-1),
    "max of all": lambda x: (x[1].max(), x[0].max()),
    "max with places": lambda x: x.max(2)[0],
    "pool 1d": lambda x: F.max_pool1d(x[0], 2),
    "pool 2d, padded": lambda x: F.max_pool2d(x, 3, 2, 1),
    "pool 3d": lambda x: F.max_pool3d(x[None], 2),
    "adaptive pool": lambda x: F.adaptive_max_pool2d(x, 2),
    "what a mask has left": lambda x: x.exp().masked_fill(x < 5, -torch.inf).amax(-1),
    "the least finite number": lambda x: x.clamp(min=torch.finfo(x.dtype).min).amax(-1),
}


@pytest.mark.parametrize("falls_back", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize("function", EXTREMES.values(), ids=EXTREMES)
def test_the_maximum_of_infinities_is_one(
    function: Callable[[torch.Tensor], Any], dtype: torch.dtype, falls_back: bool
) -> None:
    class Model(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return function(x)

    x = torch.full((2, 4, 6, 6), -torch.inf, dtype=dtype)
    x[0, 1, 3, 4], x[0, 0, 0, 0], x[1, :, 5] = 7.0, -2.0, torch.finfo(dtype).min
    module = load_model(torch.export.export(Model(), (x,)))
    found = run_default(module, TARGET)([x.numpy()]) if falls_back else _on_a_lane(module, [x.numpy()])
    for got, want in zip(found, torch.utils._pytree.tree_leaves(function(x)), strict=True):
        np.testing.assert_array_equal(got, want.numpy())


@pytest.mark.parametrize(
    ("op", "attributes"),
    [
        ("ReduceMax", {"keepdims": 0}),
        ("ReduceMin", {"axes": [1], "keepdims": 1}),
        ("Hardmax", {"axis": -1}),
    ],
)
def test_extremes_of_infinities_are_as_in_onnx_runtime(op: str, attributes: dict[str, Any]) -> None:
    """Pools are not among them: those of ONNX Runtime start from the least finite number."""
    for sign in (-1, 1):
        data = np.full((2, 3, 5, 5), sign * np.inf, np.float32)
        model = make_model([onnx.helper.make_node(op, ["x"], ["y"], **attributes)], {"x": data}, ["y"])
        (want,) = onnx_runtime(model, {"x": data})
        np.testing.assert_array_equal(evaluate(model, {"x": data})[0], want)


PRODUCTS: dict[str, tuple[Callable[..., Any], list[tuple[int, ...]]]] = {
    "no batch, a weight": (lambda x: x @ torch.ones(3, 7), [(0, 4, 4, 3)]),
    "no rows": (lambda x, y: x @ y, [(2, 0, 3), (2, 3, 5)]),
    "no columns": (lambda x, y: x @ y, [(4, 3), (3, 0)]),
    "nothing to sum": (lambda x, y: x @ y, [(4, 0), (0, 16)]),
    "no image": (lambda x: F.conv2d(x, torch.ones(8, 16, 3, 3), padding=1), [(0, 16, 6, 6)]),
    "no rows to divide": (lambda x: x.mean(1), [(0, 4, 3)]),
    "no row to pool": (lambda x: F.max_pool2d(x, 2), [(0, 3, 4, 4)]),
    "no row to normalise": (lambda x: F.layer_norm(x, (8,)), [(0, 8)]),
    "a sum of nothing": (lambda x: x.sum((1, 2)), [(33, 0, 17)]),
    "scores of none": (lambda x: x.softmax(-1), [(2, 0, 9)]),
}


@pytest.mark.parametrize("cores", [1, 2])
@pytest.mark.parametrize(("function", "shapes"), PRODUCTS.values(), ids=PRODUCTS)
def test_kernels_without_elements_touch_nothing(
    function: Callable[..., Any], shapes: list[tuple[int, ...]], cores: int
) -> None:
    """TVM's schedules take a loop over nothing for one of one iteration, which wrote into the heap."""

    class Model(torch.nn.Module):
        def forward(self, *operands: torch.Tensor) -> Any:
            return function(*operands)

    operands = tuple(torch.ones(shape) for shape in shapes)
    target = tvm.target.Target({"kind": "llvm", "mcpu": "x86-64-v3", "num-cores": cores})
    module = load_model(torch.export.export(Model(), operands))
    lowered = lower_to_kernels(module, target, targets=[target])
    for kernel in lowered.functions.values():
        if isinstance(kernel, tirx.PrimFunc) and loops_over_nothing(kernel):
            assert loops_over_nothing(implement_kernel(kernel, target))
    (got,) = _on_a_lane(module, [operand.numpy() for operand in operands])
    want = function(*operands).numpy()
    assert got.shape == want.shape
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool", "LpPool"])
@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER"])
def test_automatic_padding_that_would_crop_is_refused(op: str, auto_pad: str) -> None:
    """ONNX Runtime refuses it in the first two, and crops in the third."""
    data = np.arange(8, dtype=np.float32).reshape(1, 1, 8)
    for size, step, is_defined in ((2, 4, False), (1, 3, False), (2, 3, True), (4, 4, True)):
        attributes = {"kernel_shape": [size], "strides": [step], "auto_pad": auto_pad}
        model = make_model([onnx.helper.make_node(op, ["x"], ["y"], **attributes)], {"x": data}, ["y"])
        if is_defined:
            (want,) = onnx_runtime(model, {"x": data})
            np.testing.assert_allclose(evaluate(model, {"x": data})[0], want, rtol=1e-6)
            continue
        with pytest.raises(ModelError, match=r"Pool \(node .*: expected auto_pad to add to axis 2"):
            load_model(model)
