"""Implement a kernel for a target: the one place that chooses how a PrimFunc is scheduled. [TVM]"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from .._tvm import tirx, tvm, tvm_ffi
from .blocks import PRIMITIVE_ERRORS, is_output, reaches_all, root_blocks
from .code_cache import cache_key, read_cached, write_cached
from .compilable import is_compilable
from .repack import pack_ahead, repack
from .schedule import schedule_kernel
from .staged import is_staged, with_stages

# A kernel is asked for to be timed and for each placement of a model; scheduling it takes some
# hundredths of a second, and writing it down or reading it a few thousandths.
_MOST_REMEMBERED = 4096
# To be raised with whatever changes a schedule, but for what its name on disk tells.
_SCHEDULE_FORM = "tvm-sphinx schedule 1"
_implemented: dict[tuple[str, str], Any] = {}


def implement_kernel(function: Any, target: Any) -> Any:
    """Return a PrimFunc scheduled for a target, which it carries from then on.

    A CPU kernel takes our schedule rules (`tvm_sphinx.kernels`) for the target's ``num-cores`` threads,
    a GPU kernel TVM's default schedules (dlight), which bind threads. A CPU kernel over plain operands
    packs them itself (`tvm_sphinx.kernels.repack`). A function that is scheduled
    already, that no rule fits, of which TVM cannot generate code once it is scheduled, or that has a
    loop over nothing, keeps the loops that it has.
    """
    key = tvm_ffi.serialization.to_json_graph_str(function), str(target)
    if key not in _implemented:
        while len(_implemented) >= _MOST_REMEMBERED:
            del _implemented[next(iter(_implemented))]
        _implemented[key] = _kept(key, lambda: _implement(function.with_attr("target", target), target))
    return _implemented[key].with_attr("target", target)


def for_target(function: Any, constants: Collection[int], target: Any) -> Any:
    """Return what to schedule of a PrimFunc for a target: on a CPU with its weights packed ahead.

    It stays as it is where none can be, or no rule schedules it then.

    Parameters
    ----------
    function
        As a model has it, unscheduled.
    constants
        Positions of its parameters that may come packed, see `tvm_sphinx.kernels.pack_ahead`.
    target
    """
    if not constants or target.kind.name != "llvm":
        return function
    ahead = pack_ahead(function, constants)
    if ahead is None or not implement_kernel(ahead, target).attrs.get("tirx.is_scheduled", 0):
        return function
    return ahead


def _kept(key: Sequence[str], make: Callable[[], Any]) -> Any:
    """Return a scheduled PrimFunc from disk where it is there, beside the machine code of kernels."""
    versions = str(tvm.__version__), str(tvm_ffi.__version__)
    name = cache_key(_SCHEDULE_FORM, *versions, _rules_digest(), pass_options(), *key)
    kept = read_cached(name)
    if kept is not None:
        return tvm_ffi.serialization.from_json_graph_str(kept.decode())
    made = make()
    write_cached(name, tvm_ffi.serialization.to_json_graph_str(made).encode())
    return made


@functools.cache
def _rules_digest() -> str:
    """Return a digest of the source of the rules: other rules give other schedules."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return cache_key(*(path.read_text(encoding="utf-8") for path in sources))


def pass_options() -> str:
    """Return what TVM's own passes are told that changes the code that they make."""
    now = tvm.transform.PassContext.current()
    config = sorted((str(name), str(value)) for name, value in now.config.items())
    return str([now.opt_level, sorted(now.required_pass), sorted(now.disabled_pass), config])


def _implement(function: Any, target: Any) -> Any:
    is_gpu = "gpu" in [str(key) for key in target.keys]
    if not is_gpu and is_staged(function):
        return with_stages(
            function, lambda stage: _implement(stage.with_attr("target", target), target)
        ).with_attr("target", target)
    if loops_over_nothing(function):
        return function
    if is_gpu:
        return _schedule_for_gpu(function, target)
    cores = int(target.attrs.get("num-cores") or 1)
    for form in (repack(function), function):
        scheduled = None if form is None else schedule_kernel(form, target, cores)
        if scheduled is not None:
            scheduled = scheduled.with_attr("target", target)
            if is_compilable(scheduled, target):
                return scheduled
    return function


def loops_over_nothing(function: Any) -> bool:
    """Return whether a loop of a PrimFunc has no iteration.

    TVM's schedules take such a loop for one of one iteration, which reads and writes beyond tensors.
    """
    found: list[Any] = []
    tvm_ffi.structural_walk(function.body, (tirx.For, found.append))
    return any(isinstance(loop.extent, tirx.IntImm) and int(loop.extent) == 0 for loop in found)


def _schedule_for_gpu(function: Any, target: Any) -> Any:
    from tvm.s_tir import dlight

    gpu = dlight.gpu
    named = (gpu.Matmul(), gpu.GEMV(), gpu.Reduction(), gpu.GeneralReduction(), gpu.Fallback())
    rules = dlight.ApplyDefaultSchedule(*map(_WhereItFits, named))
    with target:
        return rules(tvm.IRModule({"main": function}))["main"]


class _WhereItFits:
    """A rule of dlight that leaves to the next one what it asserts not to be there, or would not write.

    GEMV asserts that no sum is over axes of one element, such as a convolution of 1x1 with a group a
    channel; and what it moves behind a product it takes to be of its shape, without a border.
    """

    def __init__(self, rule: Any) -> None:
        self.rule = rule

    def apply(self, function: Any, target: Any, tunable: bool) -> Any:
        """Return the schedule of the rule, None where it does not fit."""
        try:
            found = self.rule.apply(function, target, tunable)
        except (AssertionError, *PRIMITIVE_ERRORS):
            return None
        if found is None:
            return None
        written = [block for block in root_blocks(found) if is_output(found, block)]
        return found if all(reaches_all(found, block) for block in written) else None


@tvm.transform.module_pass(opt_level=0, name="ImplementKernels")
class ImplementKernels:
    """Apply `implement_kernel` to each PrimFunc of a module that carries a target."""

    def transform_module(self, mod: Any, _ctx: Any) -> Any:
        """Return the module with its kernels scheduled."""
        functions = {
            var: implement_kernel(function, function.attrs["target"])
            if isinstance(function, tirx.PrimFunc) and "target" in function.attrs
            else function
            for var, function in mod.functions.items()
        }
        return tvm.IRModule(functions, attrs=mod.attrs, global_infos=mod.global_infos)
