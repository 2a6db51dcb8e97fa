import numpy as np
import pytest
from tvm import relax

from .run_module import evaluate, module_of

op = relax.op


@pytest.mark.parametrize("bits", [8, 16, 32, 64])
@pytest.mark.parametrize("kind", ["int", "uint"])
def test_division_of_whole_numbers_does_not_trap(kind, bits):
    info = np.iinfo(f"{kind}{bits}")
    left = np.array([5, 7, info.min, info.max, 3, info.min, 9, 0], info.dtype)
    right = np.array([2, 0, 3, 3, 2, 0, 7, 0], info.dtype)
    if kind == "int":
        left = np.concatenate([left, np.array([-7, -7, 7, info.min, 6], info.dtype)])
        right = np.concatenate([right, np.array([2, -2, -2, -1, -1], info.dtype)])

    def build(a, b):
        return [op.floor_divide(a, b), op.floor_mod(a, b), op.mod(a, b), op.divide(a, b)]

    floored, floor_rest, rest, truncated = evaluate(module_of(build, left, right), [left, right])
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(floored, left // right)
        np.testing.assert_array_equal(floor_rest, left % right)
        np.testing.assert_array_equal(rest, np.fmod(left, right))
        # What truncation leaves is the remainder, except where the remainder is not defined.
        defined = right != 0
        np.testing.assert_array_equal((truncated * right + rest)[defined], left[defined])
    np.testing.assert_array_equal(truncated[~defined], 0)


def test_constant_divisors_may_be_zero():
    left = np.array([5, -7], "int32")
    zero, row = relax.const(0, "int32"), relax.const(np.array([0, -1], "int32"), "int32")
    module = module_of(lambda a: [op.divide(a, zero), op.mod(a, row), op.floor_divide(a, row)], left)
    by_zero, rest, floored = evaluate(module, [left])
    np.testing.assert_array_equal(by_zero, [0, 0])
    np.testing.assert_array_equal(rest, [0, 0])
    np.testing.assert_array_equal(floored, [0, 7])
