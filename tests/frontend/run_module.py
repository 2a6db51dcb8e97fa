"""Run a Relax module on one CPU device, with the rules' kernels and nothing measured."""

import numpy as np
import tvm
from tvm import relax, tirx

from tvm_sphinx.errors import UnsupportedError, cause_of
from tvm_sphinx.frontend.default_pipeline import compile_default
from tvm_sphinx.frontend.lower import lower_to_kernels
from tvm_sphinx.kernels.implement import implement_kernel
from tvm_sphinx.runtime.packed_functions import register_functions

# What is looked at is the numbers, not the speed: LLVM optimises nothing, which takes most of its time.
TARGET = tvm.target.Target({"kind": "llvm", "mcpu": "x86-64-v3", "num-cores": 1, "opt-level": 0})

_LOWER = [
    relax.transform.ToNonDataflow(),
    relax.transform.RemovePurityChecking(),
    relax.transform.CallTIRRewrite(),
    relax.transform.StaticPlanBlockMemory(),
    relax.transform.LowerAllocTensor(),
    relax.transform.KillAfterLastUse(),
    relax.transform.LowerRuntimeBuiltin(),
    relax.transform.ComputePrimValue(),
    relax.transform.VMShapeLower(),
    relax.transform.AttachGlobalSymbol(),
]


def run_default(module, target, function="main"):
    """Return what runs a module, built by TVM's own pipeline, on arrays in the order of its inputs."""
    register_functions()
    try:
        machine = relax.VirtualMachine(compile_default(module, target), tvm.cpu())
    except Exception as error:  # as the fallback of `compile` does
        raise UnsupportedError(f"Nor can TVM compile the whole model: {cause_of(error)}") from error
    return lambda feeds: flatten(
        machine[function](*[tvm.runtime.tensor(np.array(feed, order="C")) for feed in feeds])
    )


def evaluate(module, feeds, function="main"):
    """Return the outputs of a module as arrays; ``feeds`` are in the order of its parameters."""
    lowered = lower_to_kernels(module, TARGET, function, targets=[TARGET])
    for var, kernel in lowered.functions_items():
        if isinstance(kernel, tirx.PrimFunc):
            lowered[var] = implement_kernel(kernel, TARGET)
    with TARGET:
        lowered = tvm.transform.Sequential(_LOWER)(lowered)
    executable = relax.build(lowered, TARGET, relax_pipeline=None)
    machine = relax.VirtualMachine(executable, tvm.cpu())
    result = machine[function](*[tvm.runtime.tensor(np.array(feed, order="C")) for feed in feeds])
    return flatten(result)


def flatten(result):
    """Return the arrays of a result, which may be a tensor or nested tuples of them."""
    if hasattr(result, "numpy"):
        return [result.numpy()]
    return [array for field in result for array in flatten(field)]


def module_of(build, *arrays):
    """Return a module of one function of tensors like the arrays, which returns what ``build`` lists."""
    builder = relax.BlockBuilder()
    params = [
        relax.Var(f"x{number}", relax.TensorType(array.shape, str(array.dtype)))
        for number, array in enumerate(arrays)
    ]
    with builder.function("main", params):
        with builder.dataflow():
            outputs = [builder.emit(output) for output in build(*params)]
            result = builder.emit_output(relax.Tuple(outputs))
        builder.emit_func_output(result)
    return builder.get()
