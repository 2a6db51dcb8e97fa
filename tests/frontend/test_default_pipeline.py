import numpy as np
import tvm
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R

from tvm_sphinx.frontend.default_pipeline import compile_default


@I.ir_module
class ReshapeInBothBranches:
    @R.function
    def main(c: R.Tensor((), "bool"), x: R.Tensor((4, 8), "float32")) -> R.Tensor((4, 8), "float32"):
        if c:
            a = R.reshape(x, (32,))
            b = R.reshape(a, (4, 8))
            y = R.add(b, b)
        else:
            d = R.reshape(x, (32,))
            e = R.reshape(d, (4, 8))
            y = R.multiply(e, e)
        return y


def test_both_branches_of_an_if_have_their_own_storage():
    executable = compile_default(ReshapeInBothBranches, tvm.target.Target("llvm"))
    machine = relax.VirtualMachine(executable, tvm.cpu())
    x = np.full((4, 8), 3, "float32")
    for condition, want in ((True, x + x), (False, x * x), (True, x + x)):
        got = machine["main"](tvm.runtime.tensor(np.array(condition)), tvm.runtime.tensor(x))
        np.testing.assert_array_equal(got.numpy(), want)
