"""Reductions, pooling, softmax, layer norm and injective chains keep their numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tvm
from tvm import te, tirx, topi

from tests.kernels.reference import TARGET, check, draw, run
from tvm_sphinx.errors import PlatformError
from tvm_sphinx.kernels import schedule_kernel

SHAPES = [(1, 100), (3, 197), (2, 5, 49), (1, 12, 7, 64), (6, 1), (1, 1, 768), (4, 33)]


def unary(shape: tuple[int, ...], body: Callable[[Any], Any], dtype: str = "float32") -> Any:
    data = te.placeholder(shape, dtype, name="data")
    return te.create_prim_func([data, body(data)])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("cores", [1, 2])
def test_softmax_keeps_its_numbers(shape: tuple[int, ...], cores: int) -> None:
    rng = np.random.default_rng(1)
    func = unary(shape, lambda data: topi.nn.softmax(data, axis=-1))
    check(func, [draw(shape, "float32", rng)], cores)


@pytest.mark.parametrize("shape", SHAPES)
def test_layer_norm_keeps_its_numbers(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(2)
    data = te.placeholder(shape, name="data")
    scale, bias = (te.placeholder(shape[-1:], name=name) for name in ("scale", "bias"))
    norm = topi.nn.layer_norm(data, scale, bias, axis=[len(shape) - 1], epsilon=1e-5)
    args = [draw(s, "float32", rng) for s in (shape, shape[-1:], shape[-1:])]
    check(te.create_prim_func([data, scale, bias, norm]), args)


def test_a_row_kernel_with_a_shifted_consumer_keeps_its_numbers() -> None:
    """A border around softmax reads other rows than its own."""
    rng = np.random.default_rng(3)
    shape = (1, 6, 5, 48)
    func = unary(shape, lambda data: topi.nn.pad(topi.nn.softmax(data), (0, 1, 2, 0), (0, 1, 0, 0)))
    check(func, [draw(shape, "float32", rng)])


@pytest.mark.parametrize("axis", [(1, 2), (3,), (0, 1, 2, 3), (2,)])
@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("name", ["sum", "max"])
def test_a_reduction_keeps_its_numbers(axis: tuple[int, ...], keepdims: bool, name: str) -> None:
    rng = np.random.default_rng(4)
    shape = (2, 7, 5, 83)
    func = unary(shape, lambda data: getattr(topi, name)(data, axis=axis, keepdims=keepdims))
    check(func, [draw(shape, "float32", rng)])


@pytest.mark.parametrize("dtype", ["float16", "int8", "int32"])
@pytest.mark.parametrize("axis", [(2,), (1,), (0, 1, 2)])
def test_a_reduction_of_another_type_keeps_its_numbers(dtype: str, axis: tuple[int, ...]) -> None:
    rng = np.random.default_rng(8)
    shape = (3, 16, 96)
    check(unary(shape, lambda data: topi.max(data, axis=axis), dtype), [draw(shape, dtype, rng)])
    if dtype == "int32":
        check(unary(shape, lambda data: topi.sum(data, axis=axis), dtype), [draw(shape, dtype, rng)])


@pytest.mark.parametrize("axis", [(2,), (1,), (0, 1, 2)])
def test_a_reduction_of_truth_values_keeps_tvm_s_loops(axis: tuple[int, ...]) -> None:
    """TVM cannot vectorize its accumulator: the scheduled kernel would not compile."""
    func = unary((3, 16, 96), lambda data: topi.any(data, axis=axis), "bool")
    assert schedule_kernel(func, TARGET, 1) is None


@pytest.mark.parametrize("shape", [(4, 33), (2, 5, 64)])
def test_float16_softmax_and_pooling_keep_their_numbers(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(9)
    check(unary(shape, topi.nn.softmax, "float16"), [draw(shape, "float16", rng)])
    image = (1, 9, 9, shape[-1])

    def pool(data: Any) -> Any:
        return topi.nn.pool2d(data, (3, 3), (2, 2), (1, 1), (0, 0, 0, 0), "max", layout="NHWC")

    for dtype in ("float16", "int8"):
        check(unary(image, pool, dtype), [draw(image, dtype, rng)])


@pytest.mark.parametrize(("extent", "channels"), [(13, 32), (8, 5), (7, 83), (3, 1)])
@pytest.mark.parametrize("kind", ["max", "avg"])
def test_pooling_keeps_its_numbers(extent: int, channels: int, kind: str) -> None:
    rng = np.random.default_rng(5)
    shape = (1, extent, extent, channels)
    func = unary(
        shape,
        lambda data: topi.nn.pool2d(
            data, (3, 3), (2, 2), (1, 1), (1, 1, 1, 1), kind, layout="NHWC", count_include_pad=False
        ),
    )
    check(func, [draw(shape, "float32", rng)])


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "bool"])
@pytest.mark.parametrize("shape", [(5, 7, 11), (1, 64), (3, 1, 1), (2, 16, 33)])
def test_an_injective_chain_keeps_its_numbers(dtype: str, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(6)
    axes = list(range(len(shape)))[::-1]

    def chain(data: Any) -> Any:
        other = topi.transpose(topi.transpose(data, axes), axes)
        return topi.logical_not(other) if dtype == "bool" else topi.maximum(other + other, data)

    check(unary(shape, chain, dtype), [draw(shape, dtype, rng)], 2)


def _scheduled(compute: Any, values: np.ndarray) -> np.ndarray:
    scheduled = schedule_kernel(unary(values.shape, compute), TARGET, 1)
    assert scheduled is not None
    assert "pow(" not in scheduled.script()
    assert "log(" not in scheduled.script()
    return run(scheduled, [values])[0]


#: From subnormal numbers to the largest, and what is no positive number.
SPECIAL = np.array(
    [0.0, -0.0, 1.0, -1.0, -2.5, np.inf, -np.inf, np.nan, 1e-45, 1e-40, 1.1754944e-38, 3.4028235e38],
    "float32",
)


def _of_many_sizes() -> np.ndarray:
    rng = np.random.default_rng(11)
    sizes = np.exp(rng.uniform(-87, 88, 40_000))
    near_one = 1 + np.linspace(-1e-3, 1e-3, 4001)
    return np.concatenate([SPECIAL, sizes, near_one, rng.uniform(0, 4, 40_000)]).astype("float32")


def test_a_logarithm_is_the_library_s() -> None:
    values = _of_many_sizes()
    with np.errstate(all="ignore"):
        want = np.log(values.astype("float64"))
    np.testing.assert_allclose(_scheduled(topi.log, values), want, rtol=3e-7)


@pytest.mark.parametrize("exponent", [2, 3, 7, 0.5, 0.25, 0.75, 1.75, -0.5, -0.75, -1, -2, -3.25])
def test_a_constant_power_is_the_library_s(exponent: float) -> None:
    values = _of_many_sizes()
    with np.errstate(all="ignore"):
        # An array of exponents: for a single one numpy takes the square root, which differs at -0.
        want = np.power(values.astype("float64"), np.full(values.shape, exponent)).astype("float32")
    got = _scheduled(lambda x: topi.power(x, tirx.const(exponent, "float32")), values)
    # Results below the smallest normal number may come out as zero.
    np.testing.assert_allclose(got, want, rtol=5e-7, atol=1.2e-38)
    np.testing.assert_array_equal(np.signbit(got[want == 0]), np.signbit(want[want == 0]))


@pytest.mark.parametrize("exponent", [0.0, 0.3, 9.0])
def test_another_power_is_left_to_the_library(exponent: float) -> None:
    func = unary((64,), lambda x: topi.power(x, tirx.const(exponent, "float32")))
    check(func, [np.linspace(0.1, 3, 64, dtype="float32")])


@pytest.mark.parametrize("name", ["exp", "erf", "tanh", "sigmoid"])
def test_elementary_functions_stay_within_float_error(name: str) -> None:
    values = np.linspace(-20, 20, 4099, dtype="float32")
    func = unary(values.shape, getattr(topi, name))
    check(func, [values])


def test_infinities_and_nan_pass_through_elementary_functions() -> None:
    values = np.array([np.inf, -np.inf, np.nan, 0.0, 89.0, -120.0], "float32")
    for name in ("exp", "erf", "tanh", "sigmoid"):
        check(unary(values.shape, getattr(topi, name)), [values])


@pytest.mark.parametrize("transposed", [False, True])
def test_an_unpacked_product_keeps_its_numbers(transposed: bool) -> None:
    rng = np.random.default_rng(7)
    left = te.placeholder((13, 37), name="left")
    right = te.placeholder((21, 37) if transposed else (37, 21), name="right")
    product = topi.matmul(left, right, False, transposed)
    args = [draw((13, 37), "float32", rng), draw((21, 37), "float32", rng)]
    args[1] = args[1] if transposed else np.ascontiguousarray(args[1].T)
    check(te.create_prim_func([left, right, product]), args)


def test_other_targets_and_dynamic_shapes_are_left_alone() -> None:
    extent = tirx.Var("n", "int64")
    dynamic = unary((extent,), topi.exp)
    assert schedule_kernel(dynamic, TARGET, 1) is None
    cuda = tvm.target.Target("cuda")
    assert schedule_kernel(unary((8,), topi.exp), cuda, 1) is None


def test_a_scheduled_kernel_is_not_scheduled_again() -> None:
    once = schedule_kernel(unary((8, 64), topi.exp), TARGET, 1)
    assert once is not None
    assert schedule_kernel(once, TARGET, 1) is None


def test_a_kernel_needs_a_core() -> None:
    with pytest.raises(PlatformError, match="cores = 0"):
        schedule_kernel(unary((8,), topi.exp), TARGET, 0)


@pytest.mark.parametrize("dtype", ["float32", "int64"])
@pytest.mark.parametrize("shape", [(40, 21), (4, 6), (3, 35)])
def test_a_gather_whose_rows_are_no_multiple_of_the_lanes_compiles(
    shape: tuple[int, int], dtype: str
) -> None:
    """TVM fails at the remainder of a loop that looks an index up for each of its steps."""
    rng = np.random.default_rng(7)
    data, places = te.placeholder(shape, dtype, name="data"), te.placeholder(shape, "int32", name="at")
    func = te.create_prim_func([data, places, topi.gather(data, 0, places)])
    args = [draw(shape, dtype, rng), rng.integers(0, shape[0], shape).astype(np.int32)]
    check(func, args)


@pytest.mark.parametrize("width", [19, 31])
def test_a_gather_by_two_indices_compiles_for_any_width(width: int) -> None:
    """TVM fails at the remainder of a loop inside of which two indices are looked up."""
    rng = np.random.default_rng(7)
    shapes = [(20, 20, width), (20, 1), (1, 20)]
    data, rows, columns = (
        te.placeholder([tirx.IntImm("int64", extent) for extent in shape], dtype, name=name)
        for shape, dtype, name in zip(shapes, ["float32", "int64", "int64"], "xij", strict=True)
    )
    func = te.create_prim_func([data, rows, columns, topi.index_tensor(data, [rows, columns])])
    args = [draw(shapes[0], "float32", rng), *(rng.integers(0, 20, shape) for shape in shapes[1:])]
    check(func, args)


@pytest.mark.parametrize("start", [float("-inf"), -3.4028234663852886e38])
def test_a_maximum_is_split_into_partial_results_wherever_it_starts(start: float) -> None:
    """TVM knows the one from the least finite number; ours starts from infinity."""
    source = tvm.te.placeholder((33, 1000), name="source")
    k = tvm.te.reduce_axis((0, 1000))
    largest = tvm.te.comm_reducer(lambda x, y: tvm.tirx.max(x, y), lambda t: tvm.tirx.const(start, t))
    found = tvm.te.compute((33,), lambda i: largest(source[i, k], axis=k), name="largest")
    func = tvm.te.create_prim_func([source, found])
    scheduled = check(func, [np.random.default_rng(0).normal(size=(33, 1000)).astype(np.float32)])
    assert "rfactor" in scheduled.script() or "_rf" in scheduled.script()
