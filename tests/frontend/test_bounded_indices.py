import numpy as np
import pytest
from tvm import relax

from tvm_sphinx.errors import ModelError
from tvm_sphinx.frontend.safe_operators import make_safe

from .run_module import evaluate, module_of

X = np.random.default_rng(0).standard_normal((3, 4, 5)).astype("float32")
op = relax.op


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64", "uint64"])
def test_take_counts_a_negative_index_from_the_end_and_stays_inside(dtype):
    index = np.array([0, 3, 1], dtype) if dtype.startswith("u") else np.array([0, -1, -4], dtype)
    far = np.array([7, 100, 4], dtype)
    module = module_of(lambda x, i, j: [op.take(x, i, 1), op.take(x, j, 1)], X, index, far)
    near, outside = evaluate(module, [X, index, far])
    np.testing.assert_array_equal(near, np.take(X, index.astype("int64"), 1))
    np.testing.assert_array_equal(outside, np.take(X, [3, 0, 0], 1))  # it counts on round the axis


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_gathers_count_negative_indices_from_the_end(dtype):
    along = np.array([[[0, -1, 2, 1, -4]] * 2] * 3, dtype)
    tuples = np.array([[0, -1], [-3, 2]], dtype)
    batched = np.array([[[0, -1], [3, 2]], [[-4, -1], [3, 2]], [[0, 1], [-3, 2]]], dtype)
    first, second = np.array([0, -1, 2, 2], dtype), np.array([-1], dtype)

    def build(x, along, tuples, batched, first, second):
        return [
            op.gather_elements(x, along, 1),
            op.gather_nd(x, op.astype(tuples, "int64")),
            op.gather_nd(x, op.astype(batched, "int64"), 1),
            op.index_tensor(x, [first, second]),
        ]

    feeds = [X, along, tuples, batched, first, second]
    got = evaluate(module_of(build, *feeds), feeds)
    np.testing.assert_array_equal(got[0], np.take_along_axis(X, along, 1))
    np.testing.assert_array_equal(got[1], X[tuples[:, 0], tuples[:, 1]])
    rows = np.arange(3)[:, None]
    np.testing.assert_array_equal(got[2], X[rows, batched[..., 0], batched[..., 1]])
    np.testing.assert_array_equal(got[3], X[first, second])


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_scatters_write_where_numpy_writes(dtype):
    rng = np.random.default_rng(1)
    tuples, rows = np.array([[0, -1], [-3, 2]], dtype), rng.standard_normal((2, 5)).astype("float32")
    small = rng.integers(-3, 3, (2, 2, 3)).astype(dtype)  # smaller than the data on the other axes
    added = rng.standard_normal((2, 2, 3)).astype("float32")
    places = [np.array([0, -1, 2, 2], dtype), np.array([1], dtype), np.array([-1, 0, 1, 1], dtype)]
    values = rng.standard_normal(4).astype("float32")

    def build(x, tuples, rows, small, added, *put):
        return [
            op.scatter_nd(x, tuples, rows),
            op.scatter_elements(x, small, added, 0, "add"),
            op.index_put(x, put[:3], put[3], accumulate=True),
        ]

    feeds = [X, tuples, rows, small, added, *places, values]
    got = evaluate(module_of(build, *feeds), feeds)
    want = [X.copy() for _ in got]
    want[0][tuples[:, 0], tuples[:, 1]] = rows
    for place in np.ndindex(*small.shape):
        want[1][small[place], place[1], place[2]] += added[place]
    np.add.at(want[2], tuple(places), values)
    for right, mine in zip(want, got, strict=True):
        np.testing.assert_allclose(mine, right, rtol=1e-6)


def test_indices_outside_leave_foreign_memory_alone():
    far = np.array([[[10**6] * 5] * 4, [[-(10**6)] * 5] * 4, [[2**31 - 1] * 5] * 4], "int64")
    feeds = [X, far]
    module = module_of(
        lambda x, i: [op.gather_elements(x, i, 0), op.scatter_elements(x, i, x, 0)], *feeds
    )
    gathered, scattered = evaluate(module, feeds)
    assert np.isin(gathered, X).all()
    assert np.isin(scattered, X).all()


@pytest.mark.parametrize(
    "bounds", [(1, 3, 1), (0, 3, 1), (2, 4, 1), (0, 4, 2), (-3, -1, 1), (0, 4, 1)], ids=str
)
def test_slice_scatter_reads_nothing_behind_its_source(bounds):
    source = -np.ones((3, len(range(4)[slice(*bounds)]), 5), "float32")
    module = module_of(lambda x, y: [op.slice_scatter(x, y, *bounds, 1)], X, source)
    want = X.copy()
    want[:, slice(*bounds)] = source
    np.testing.assert_array_equal(evaluate(module, [X, source])[0], want)


def test_a_constant_index_out_of_range_is_refused_by_name():
    module = module_of(lambda x: [op.take(x, relax.const(4, "int64"), 1)], X)
    with pytest.raises(ModelError, match=r"indices of take along axis 1 in -4\.\.3; got the constant 4"):
        make_safe(module)
