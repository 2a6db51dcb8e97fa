import tvm
from tvm import te, tirx

from tvm_sphinx.cost.measure.divisors import divisor_operands


def test_an_operand_that_a_divisor_is_computed_from_is_found_through_a_buffer():
    a, b, c = (te.placeholder((4,), "int64", name=name) for name in "abc")
    shifted = te.compute((4,), lambda i: b[i] + b[3 - i], name="shifted")
    quotient = te.compute((4,), lambda i: tirx.truncdiv(a[i], shifted[i]) + c[i], name="quotient")
    assert divisor_operands(te.create_prim_func([a, b, c, quotient])) == {1}


def test_floats_and_constants_are_no_divisors_that_trap():
    a, b = (te.placeholder((4,), "float32", name=name) for name in "ab")
    i = te.placeholder((4,), "int32", name="i")
    result = te.compute((4,), lambda k: a[k] / b[k] + tvm.tirx.floormod(i[k], 3).astype("float32"))
    assert divisor_operands(te.create_prim_func([a, b, i, result])) == frozenset()
    assert divisor_operands("some.external.function") == frozenset()
