"""Which kernels a library can compute, as which product of matrices, and what is left to ours."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import tvm
from tvm import relax, tirx

from tests.networks import branching_cnn, recurrent_net, transformer
from tvm_sphinx.frontend.extract import Kernel, extract_task_graph
from tvm_sphinx.frontend.lower import lower_for_platform
from tvm_sphinx.kernels import LibraryProduct, find_library_product
from tvm_sphinx.kernels.library_epilogue import ACTIVATIONS
from tvm_sphinx.platform import Device, Platform
from tvm_sphinx.platform.machine import usable_cores
from tvm_sphinx.platform.targets import host_target

_PLATFORM = Platform(
    (
        Device("core", host_target(), "cpu:0", usable_cores()[:1]),
        Device("gpu", '{"kind": "cuda", "arch": "sm_90", "max_num_threads": 1024}', "cuda:9"),
    )
)
op = relax.op


def kernels_of(
    build: Callable[..., Any], shapes: Sequence[Sequence[int]], dtype: str = "float32"
) -> list[Kernel]:
    """Return the kernels of an expression over some arguments, as beside a GPU."""
    builder = relax.BlockBuilder()
    types = [relax.TensorType(list(shape), dtype) for shape in shapes]
    params = [relax.Var(f"x{number}", ty) for number, ty in enumerate(types)]
    with builder.function("main", params):
        with builder.dataflow():
            output = builder.emit_output(build(*params))
        builder.emit_func_output(output)
    lowered = lower_for_platform(builder.finalize(), _PLATFORM)
    return list(extract_task_graph(lowered).kernels.values())


def only_kernel(
    build: Callable[..., Any], shapes: Sequence[Sequence[int]], dtype: str = "float32"
) -> Any:
    (kernel,) = kernels_of(build, shapes, dtype)
    return kernel.function


def computed(func: Any, product: LibraryProduct, arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Return what a library and the rest compute, the library by the definition of BLAS."""
    flat = [array.astype(np.float64).ravel() for array in arrays]
    batch, row, column, k = np.ogrid[: product.batch, : product.rows, : product.columns, : product.depth]

    def element(factor: Any, at_row: Any, at_column: Any) -> np.ndarray:
        first, second = (at_column, at_row) if factor.transposed else (at_row, at_column)
        return flat[factor.param][first + second * factor.leading + batch * factor.stride]

    sums = (element(product.left, row, k) * element(product.right, k, column)).sum(axis=-1)
    sums = product.scale * sums
    if product.bias >= 0:
        sums = sums + flat[product.bias][None, :, None]
    if product.residual >= 0:
        result = product.result
        place = row + column * result.leading + batch * result.stride
        sums = sums + flat[product.residual][place[..., 0]]
    sums = ACTIVATIONS[product.activation](sums)
    shape = [int(extent) for extent in func.params[-1].shape]
    if product.rest is not None:
        between = product.rest.params[-1]
        shape = [int(extent) for extent in between.shape]
    result = np.full(math.prod(shape), np.nan)
    batch, row, column = batch[..., 0], row[..., 0], column[..., 0]
    place = row + column * product.result.leading + batch * product.result.stride
    result[place] = sums
    result = result.reshape(shape)
    return result if product.rest is None else _run(product.rest, arrays, result)


def _run(func: Any, arrays: Sequence[np.ndarray], between: np.ndarray) -> np.ndarray:
    dtype, shape = str(func.params[-2].dtype), [int(extent) for extent in func.params[-2].shape]
    operands = [
        *map(tvm.runtime.tensor, arrays),
        tvm.runtime.empty(shape, dtype),
        tvm.runtime.tensor(between.astype(str(func.params[-1].dtype))),
    ]
    named = func.with_attr("global_symbol", "rest").without_attr("target")
    tirx.build(tvm.IRModule({"rest": named}), target="llvm")["rest"](*operands)
    return operands[-2].numpy().astype(np.float64)


def drawn(shapes: Sequence[Sequence[int]], dtype: str = "float32") -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


_MATMUL: list[tuple[str, Callable[..., Any], list[list[int]], Callable[..., Any]]] = [
    ("two axes", op.matmul, [[3, 5], [5, 7]], np.matmul),
    ("three and two", op.matmul, [[2, 3, 5], [5, 7]], np.matmul),
    ("batch", op.matmul, [[2, 4, 3, 5], [2, 4, 5, 7]], np.matmul),
    ("two and three", op.matmul, [[3, 5], [2, 5, 7]], np.matmul),
    ("a batch of one side", op.matmul, [[2, 3, 5], [1, 5, 7]], np.matmul),
    ("one row", op.matmul, [[1, 5], [5, 7]], np.matmul),
    ("one column", op.matmul, [[3, 5], [5, 1]], np.matmul),
    ("depth of one", op.matmul, [[3, 1], [1, 7]], np.matmul),
    (
        "einsum over heads",
        lambda x, y: op.einsum((x, y), "bqhd,bkhd->bhqk"),
        [[1, 3, 2, 5], [1, 4, 2, 5]],
        lambda x, y: np.einsum("bqhd,bkhd->bhqk", x, y),
    ),
    (
        "right side transposed",
        lambda x, y: op.einsum((x, y), "mk,nk->mn"),
        [[3, 5], [7, 5]],
        lambda x, y: x @ y.T,
    ),
    (
        "left side transposed",
        lambda x, y: op.einsum((x, y), "km,kn->mn"),
        [[5, 3], [5, 7]],
        lambda x, y: x.T @ y,
    ),
    (
        "result transposed",
        lambda x, y: op.einsum((x, y), "mk,kn->nm"),
        [[3, 5], [5, 7]],
        lambda x, y: (x @ y).T,
    ),
    (
        "convolution of single pixels",
        lambda x, w: op.nn.conv2d(x, w),
        [[2, 3, 4, 5], [7, 3, 1, 1]],
        lambda x, w: np.einsum("nchw,fc->nfhw", x, w[:, :, 0, 0]),
    ),
]


@pytest.mark.parametrize(
    ("build", "shapes", "numpy"), [case[1:] for case in _MATMUL], ids=[c[0] for c in _MATMUL]
)
def test_products_of_any_layout_are_those_of_blas(build: Any, shapes: Any, numpy: Any) -> None:
    func = only_kernel(build, shapes)
    product = find_library_product(func)
    assert product is not None
    assert product.rest is None
    arrays = drawn(shapes)
    np.testing.assert_allclose(computed(func, product, arrays), numpy(*arrays), rtol=1e-6, atol=1e-6)


def number(value: float) -> Any:
    return relax.const(np.float32(value))


def gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


_SHAPES = [[2, 3, 5], [5, 7], [7]]
# What the library leaves of each: nothing with a bias and without, or all of it.
_EPILOGUES: list[tuple[str, Callable[..., Any], Any, str, tuple[bool, bool]]] = [
    ("bias", lambda x: x, lambda x: x, "linear", (True, True)),
    ("relu", op.nn.relu, ACTIVATIONS["relu"], "relu", (True, True)),
    ("gelu by tanh", op.nn.gelu_tanh, ACTIVATIONS["gelu_tanh"], "gelu_tanh", (True, True)),
    ("gelu by the error function", op.nn.gelu, gelu, "linear", (False, False)),
    ("relu6", op.nn.relu6, lambda x: np.clip(x, 0, 6), "linear", (False, False)),
    ("silu", op.nn.silu, lambda x: x / (1 + np.exp(-x)), "linear", (False, False)),
    ("a scale of both", lambda x: x * number(0.125), lambda x: x / 8, "linear", (False, True)),
    (
        "a scale and relu",
        lambda x: op.nn.relu(x * number(0.125)),
        lambda x: np.maximum(x / 8, 0),
        "relu",
        (False, True),
    ),
    ("less than nothing", lambda x: x * number(-3), lambda x: -3 * x, "linear", (False, True)),
    ("nothing", lambda x: x * number(0), lambda x: 0 * x, "linear", (False, False)),
]


@pytest.mark.parametrize("with_bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize(
    ("build", "numpy", "activation", "whole"),
    [case[1:] for case in _EPILOGUES],
    ids=[c[0] for c in _EPILOGUES],
)
def test_bias_and_activation_are_the_library_s_where_it_defines_them_so(
    build: Any, numpy: Any, activation: str, whole: tuple[bool, bool], with_bias: bool
) -> None:
    shapes = _SHAPES if with_bias else _SHAPES[:2]

    def made(x: Any, y: Any, *bias: Any) -> Any:
        product = op.matmul(x, y)
        return build(op.add(product, *bias) if bias else product)

    arrays = drawn(shapes)
    func = only_kernel(made, shapes)
    product = find_library_product(func)
    assert product is not None
    is_whole = whole[0] if with_bias else whole[1]
    assert product.rest is None if is_whole else product.rest is not None
    assert product.activation == (activation if is_whole else "linear")
    assert (product.bias == 2) == (with_bias and is_whole)
    wanted = numpy(np.matmul(*arrays[:2]) + (arrays[2] if with_bias else 0))
    np.testing.assert_allclose(computed(func, product, arrays), wanted, rtol=1e-5, atol=1e-6)


_RESIDUALS: list[tuple[str, Callable[..., Any], list[list[int]], Callable[..., Any], int]] = [
    (
        "alone",
        lambda x, y, z: op.matmul(x, y) + z,
        [[3, 5], [5, 7], [3, 7]],
        lambda x, y, z: x @ y + z,
        -1,
    ),
    (
        "square, and no bias",
        lambda x, y, z: op.matmul(x, y) + z,
        [[4, 4], [4, 4], [4, 4]],
        lambda x, y, z: x @ y + z,
        -1,
    ),
    (
        "with a bias, before relu",
        lambda x, y, b, z: op.nn.relu(op.matmul(x, y) * number(0.5) + b + z),
        [[2, 3, 5], [5, 7], [7], [2, 3, 7]],
        lambda x, y, b, z: np.maximum(x @ y / 2 + b + z, 0),
        2,
    ),
    (
        "before the bias",
        lambda x, y, z, b: (op.matmul(x, y) + z) + b,
        [[2, 4, 3, 5], [2, 4, 5, 7], [2, 4, 3, 7], [7]],
        lambda x, y, z, b: x @ y + b + z,
        3,
    ),
]


@pytest.mark.parametrize(
    ("build", "shapes", "numpy", "bias"),
    [case[1:] for case in _RESIDUALS],
    ids=[case[0] for case in _RESIDUALS],
)
def test_a_residual_is_the_matrix_that_is_added(build: Any, shapes: Any, numpy: Any, bias: int) -> None:
    func = only_kernel(build, shapes)
    product = find_library_product(func)
    assert product is not None
    assert product.rest is None
    assert product.bias == bias
    assert product.residual == (2 if bias != 2 else 3)
    arrays = drawn(shapes)
    np.testing.assert_allclose(computed(func, product, arrays), numpy(*arrays), rtol=1e-5, atol=1e-6)


_REST: list[tuple[str, Callable[..., Any], list[list[int]], Callable[..., Any]]] = [
    (
        "two residuals",
        lambda x, y, z, u: op.matmul(x, y) + z + u,
        [[3, 5], [5, 7], [3, 7], [3, 7]],
        lambda x, y, z, u: x @ y + z + u,
    ),
    (
        "a residual twice",
        lambda x, y, z: op.matmul(x, y) + z + z,
        [[3, 5], [5, 7], [3, 7]],
        lambda x, y, z: x @ y + z + z,
    ),
    (
        "a residual behind relu",
        lambda x, y, z: op.nn.relu(op.matmul(x, y)) + z,
        [[3, 5], [5, 7], [3, 7]],
        lambda x, y, z: np.maximum(x @ y, 0) + z,
    ),
    (
        "a residual that is multiplied",
        lambda x, y, z: op.matmul(x, y) * z,
        [[3, 5], [5, 7], [3, 7]],
        lambda x, y, z: x @ y * z,
    ),
    (
        "a bias of rows",
        lambda x, y, z: op.matmul(x, y) + z,
        [[3, 5], [5, 7], [3, 1]],
        lambda x, y, z: x @ y + z,
    ),
    ("a number", lambda x, y, z: op.matmul(x, y) + z, [[3, 5], [5, 7], [1]], lambda x, y, z: x @ y + z),
    (
        "two biases",
        lambda x, y, a, b: op.matmul(x, y) + a + b,
        [[3, 5], [5, 7], [7], [7]],
        lambda x, y, a, b: x @ y + a + b,
    ),
    (
        "a bias of a convolution's channels",
        lambda x, w, b: op.nn.relu(op.nn.conv2d(x, w) + b),
        [[1, 3, 4, 5], [7, 3, 1, 1], [1, 7, 1, 1]],
        lambda x, w, b: np.maximum(np.einsum("nchw,fc->nfhw", x, w[:, :, 0, 0]) + b, 0),
    ),
]


@pytest.mark.parametrize(
    ("build", "shapes", "numpy"), [case[1:] for case in _REST], ids=[c[0] for c in _REST]
)
def test_what_no_library_adds_is_left_to_a_kernel_of_ours(build: Any, shapes: Any, numpy: Any) -> None:
    func = only_kernel(build, shapes)
    product = find_library_product(func)
    assert product is not None
    assert product.rest is not None
    assert (product.bias, product.residual, product.activation) == (-1, -1, "linear")
    arrays = drawn(shapes)
    np.testing.assert_allclose(computed(func, product, arrays), numpy(*arrays), rtol=1e-5, atol=1e-5)


def test_a_square_bias_is_one_of_columns_not_of_rows() -> None:
    """Rows and columns that are alike are no excuse to take one for the other."""
    shapes = [[4, 4], [4, 4], [4, 1]]
    product = find_library_product(only_kernel(lambda x, y, z: op.matmul(x, y) + z, shapes))
    assert product is not None
    assert product.rest is not None


def test_gelu_by_tanh_may_be_written_in_other_ways() -> None:
    """As exporters write it, with a power or a cube, and constants that are rounded."""
    forms: list[Callable[[Any], Any]] = [
        lambda x: op.power(x, number(3.0)),
        lambda x: x * x * x,
    ]
    for cube in forms:

        def made(x: Any, y: Any, cube: Callable[[Any], Any] = cube) -> Any:
            z = op.matmul(x, y)
            inner = number(0.7978845608) * (z + number(0.044715) * cube(z))
            return z * number(0.5) * (number(1.0) + op.tanh(inner))

        product = find_library_product(only_kernel(made, [[3, 5], [5, 7]]))
        assert product is not None
        assert (product.activation, product.rest) == ("gelu_tanh", None)


@pytest.mark.parametrize("network", [transformer, recurrent_net, branching_cnn])
def test_products_of_networks_are_theirs(network: Callable[[], Any]) -> None:
    """What a library and the rest compute is what TVM's own loops do."""
    kernels = extract_task_graph(lower_for_platform(network(), _PLATFORM)).kernels.values()
    found = [
        (kernel.function, product)
        for kernel in kernels
        if not kernel.is_external
        and (product := find_library_product(kernel.function)) is not None
        and product.rows * product.columns * product.depth * product.batch < 10_000_000
    ]
    assert len(found) >= 2
    for func, product in found:
        *shapes, last = [[int(extent) for extent in param.shape] for param in func.params]
        arrays, out = drawn(shapes), tvm.runtime.empty(last, "float32")
        named = func.with_attr("global_symbol", "whole").without_attr("target")
        whole = tirx.build(tvm.IRModule({"whole": named}), target="llvm")["whole"]
        whole(*map(tvm.runtime.tensor, arrays), out)
        wanted = out.numpy()
        atol = 1e-5 * float(np.abs(wanted).max())
        np.testing.assert_allclose(computed(func, product, arrays), wanted, rtol=0, atol=atol)


def test_the_sum_alone_is_scaled() -> None:
    """As in attention with a mask for a bias: the bias is not."""
    shapes = [[3, 5], [5, 7], [7]]
    func = only_kernel(lambda x, y, b: op.nn.relu(op.matmul(x, y) * number(0.5) + b), shapes)
    product = find_library_product(func)
    assert product is not None
    assert (product.scale, product.bias, product.activation, product.rest) == (0.5, 2, "relu", None)
    arrays = drawn(shapes)
    wanted = np.maximum(arrays[0] @ arrays[1] / 2 + arrays[2], 0)
    np.testing.assert_allclose(computed(func, product, arrays), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "build",
    [
        lambda x, y, b: op.astype(op.matmul(x, y) + b, "float16"),
        lambda x, y, b: op.astype(op.astype(op.matmul(x, y), "float16"), "float32") + b,
    ],
    ids=["at the end", "before the bias"],
)
def test_sums_that_are_rounded_are_left_to_a_kernel_of_ours(build: Callable[..., Any]) -> None:
    """The library would write numbers of another type, or more exact ones than the model has."""
    shapes = [[3, 5], [5, 7], [7]]
    func = only_kernel(build, shapes)
    product = find_library_product(func)
    assert product is not None
    assert product.rest is not None
    assert (product.dtype, product.bias) == ("float32", -1)
    x, y, b = arrays = drawn(shapes)
    np.testing.assert_allclose(computed(func, product, arrays), x @ y + b, rtol=0, atol=1e-2)


def test_halves_are_products_too() -> None:
    func = only_kernel(lambda x, y, b: op.matmul(x, y) + b, [[3, 5], [5, 7], [7]], "float16")
    product = find_library_product(func)
    assert product is not None
    assert (product.dtype, product.rest is None, product.bias) == ("float16", True, 2)


@pytest.mark.parametrize(
    ("build", "shapes"),
    [
        (lambda x: op.nn.softmax(x), [[3, 5]]),
        (lambda x, y: op.add(x, y), [[3, 5], [3, 5]]),
        (lambda x, w: op.nn.conv2d(x, w), [[1, 3, 8, 8], [4, 3, 3, 3]]),
        (lambda x, w: op.nn.conv2d(x, w, padding=1), [[1, 3, 8, 8], [4, 3, 3, 3]]),
        (lambda x, w: op.nn.conv2d(x, w, strides=2), [[1, 3, 8, 8], [4, 3, 1, 1]]),
    ],
    ids=["softmax", "sum", "convolution", "border", "strides"],
)
def test_others_are_none(build: Any, shapes: Any) -> None:
    assert all(find_library_product(kernel.function) is None for kernel in kernels_of(build, shapes))
