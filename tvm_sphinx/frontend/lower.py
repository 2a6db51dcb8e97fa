"""Lower a Relax module to one kernel call per fused group of operators, with stock passes. [TVM]"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .._tvm import relax, tirx, tvm
from ..errors import SphinxError, UnsupportedError, cause_of
from ..kernels import hides_work, prepare_layouts, sink_reshapes
from ..platform import Platform
from ..platform.targets import device_target
from .branch_kernels import BranchKernels
from .dataflow import PLAIN_WEIGHTS, first_empty
from .fold_constants import FoldConstants
from .fold_scales import FoldBatchNorms, JoinScales
from .legalise import legalise
from .load import entry_function, public_functions
from .origins import FuseNamedOps
from .outline_branches import PREFIX, outline_branches
from .safe_operators import make_safe
from .without_weights import WithoutWeights


def lower_to_kernels(
    module: Any, target: Any, function: str | None = None, *, targets: Sequence[Any] = ()
) -> Any:
    """Return the module with its operators legalised, fused, and each view written as a view.

    Parameters
    ----------
    module
        Relax IRModule; it is not changed. Calls to kernels that are already there stay as they are.
    target
        ``tvm.target.Target`` for which operators are legalised (that of the host device).
    function
        Name of the entry function, see `tvm_sphinx.frontend.load.entry_function`.
    targets
        The targets of all devices, for which the layouts of convolutions and matrix products are chosen
        and weights are packed ahead of time; none leaves the layouts as they are.

    Raises
    ------
    UnsupportedError
        If TVM has no kernel for an operator, or none for its types or shapes.
    """
    entry = entry_function(module, function)
    transform = relax.transform
    module, outlined = outline_branches(module, entry)
    public = [name for name in [entry, *public_functions(module)] if not name.startswith(PREFIX)]
    passes = [
        # Graph level: simplify for inference.
        transform.RunCodegen(),
        transform.InlinePrivateFunctions(),
        transform.FoldBatchnormToConv2D(),
        SimplifyDropout(),
        FoldBatchNorms(),
        transform.DecomposeOpsForInference(),
        transform.CanonicalizeBindings(),
        WithoutWeights(transform.RemoveRedundantReshape()),
        transform.ConvertToDataflow(),
        FoldConstants(),
        JoinScales(),
        *([PrepareLayouts(targets)] if targets else []),
        # Kernel level: one PrimFunc per operator, then one per fused group.
        legalise(),
        # What legalising takes out of a tuple would otherwise be lost between fused groups.
        transform.CanonicalizeBindings(),
        BindHostKernels(target),
        transform.AnnotateTIROpPattern(),
        FuseNamedOps(entry),
        transform.FuseTIR(),
        *([BranchKernels(outlined, target)] if outlined else []),
        # Clean up: kernels that only rename their input become views. Any kernel without elements would,
        # and an extent of 0 then means that of the input.
        *([transform.RewriteDataflowReshape()] if first_empty(module[entry]) is None else []),
        transform.CanonicalizeBindings(),
        transform.DeadCodeElimination(list(dict.fromkeys(public))),
    ]
    module = make_safe(module)
    try:
        with target:
            return tvm.transform.Sequential(passes)(module)
    except SphinxError:
        raise
    except Exception as error:  # TVM's passes raise many types
        empty = first_empty(module[entry])
        cause = cause_of(error)
        if empty is not None:
            name = str(empty.name)
            cause = f"its kernels need tensors of one element or more, and {name!r} is a {empty.ty}."
        raise UnsupportedError(f"TVM cannot lower function {entry!r}: {cause}") from error


def lower_for_platform(module: Any, platform: Platform, function: str | None = None) -> Any:
    """Return a module lowered for all devices of a platform, legalised for its host device.

    Parameters and result as of `lower_to_kernels`.
    """
    targets = [device_target(device) for device in platform.devices]
    return lower_to_kernels(module, targets[platform.host_index], function, targets=targets)


@tvm.transform.module_pass(opt_level=0, name="BindHostKernels")
class BindHostKernels:
    """Give the host's target to kernels whose work does not show in their loops, such as a sort.

    They are tasks of the host's kind of device alone.
    """

    def __init__(self, target: Any) -> None:
        self.target = target

    def transform_module(self, mod: Any, _ctx: Any) -> Any:
        """Return the module with these kernels bound."""
        bound = {
            var: function.with_attr("target", self.target)
            for var, function in mod.functions_items()
            if isinstance(function, tirx.PrimFunc) and hides_work(function)
        }
        if not bound:
            return mod
        functions = {**dict(mod.functions_items()), **bound}
        return tvm.IRModule(functions, attrs=mod.attrs, global_infos=mod.global_infos)


@tvm.transform.module_pass(opt_level=0, name="PrepareLayouts")
class PrepareLayouts:
    """Choose layouts for the packed CPU kernels, see `tvm_sphinx.kernels.prepare_layouts`."""

    def __init__(self, targets: Sequence[Any]) -> None:
        self.targets = list(targets)

    def transform_module(self, mod: Any, _ctx: Any) -> Any:
        """Return the module with packed layouts.

        Where a target does not know them it stays as it is, marked `PLAIN_WEIGHTS`.
        """
        mod = sink_reshapes(mod)
        if all(target.kind.name == "llvm" for target in self.targets):
            return prepare_layouts(mod, self.targets)
        functions = {
            var: function.with_attr(PLAIN_WEIGHTS, 1)
            if isinstance(function, relax.Function)
            else function
            for var, function in mod.functions_items()
        }
        return tvm.IRModule(functions, attrs=mod.attrs, global_infos=mod.global_infos)


@relax.transform.function_pass(opt_level=0, name="SimplifyDropout")
class SimplifyDropout:
    """Replace the first output of ``nn.dropout`` by its input: at inference it is the identity."""

    def transform_function(self, func: Any, _mod: Any, _ctx: Any) -> Any:
        """Return the function without the dropouts whose mask is not used."""
        from tvm.relax import dpl

        data = dpl.wildcard()
        pattern = dpl.TupleGetItemPattern(dpl.is_op("relax.nn.dropout")(data), 0)
        return dpl.rewrite_call(pattern, lambda _expr, matches: matches[data], func)
