"""MetaSchedule's search space for a kernel on a CPU device. [TVM]"""

from __future__ import annotations

import logging
from typing import Any

from tvm.s_tir.meta_schedule import TuneContext, _ffi_api
from tvm.s_tir.meta_schedule.logging import get_logging_func
from tvm.s_tir.meta_schedule.mutator import (
    MutateComputeLocation,
    MutateParallel,
    MutateTileSize,
    MutateUnroll,
)
from tvm.s_tir.meta_schedule.postproc import (
    DisallowDynamicLoop,
    RewriteParallelVectorizeUnroll,
    RewriteReductionBlock,
)
from tvm.s_tir.meta_schedule.schedule_rule import (
    AddRFactor,
    AutoInline,
    InlineConstantScalars,
    MultiLevelTiling,
    ParallelizeVectorizeUnroll,
    RandomComputeLocation,
    ReuseType,
)
from tvm.s_tir.meta_schedule.search_strategy import EvolutionarySearch
from tvm.s_tir.meta_schedule.space_generator import PostOrderApply

from .._tvm import tirx, tvm
from ..frontend.extract import Kernel
from ..kernels import is_staged
from ..kernels.implement import loops_over_nothing
from ..kernels.vector_math import expand_functions

# Parallel jobs a core, as MetaSchedule's CPU rules have it; -1 is no parallel loop.
_JOBS_PER_CORE = 16
_NO_PARALLEL = -1
# Unrolling further (MetaSchedule goes to 512) makes code that LLVM takes seconds to compile.
_UNROLL_STEPS = [0, 16, 64, 256]
# MetaSchedule's own are 512 candidates over 4 generations, some 10 s a batch on one core: more than it
# takes to compile and time them.
_POPULATION = 96
_GENERATIONS = 3
_LEAST_RANDOM = 24


def workload_module(kernel: Kernel) -> Any | None:
    """Return what is tuned for a kernel: an IRModule with its PrimFunc as the schedule rules receive it.

    Kernels of all models that compute the same are one workload. None for what cannot be tuned: an
    external function, one that is scheduled or dynamic, branches of an ``if``, or loops over nothing.
    """
    function = kernel.function
    if kernel.is_external or kernel.target_kind not in (None, "llvm") or is_staged(function):
        return None
    if loops_over_nothing(function):
        return None
    if function.attrs and function.attrs.get("tirx.is_scheduled", 0):
        return None
    if not isinstance(function.body, tvm.s_tir.SBlockRealize):
        return None
    for param in function.params:
        shape = getattr(param, "shape", None)
        if shape is None or not all(isinstance(extent, tirx.IntImm) for extent in shape):
            return None
    named = expand_functions(function).with_attr({"global_symbol": "main", "tirx.noalias": True})
    return tvm.IRModule({"main": named})


def make_context(module: Any, target: Any, cores: int, threads: int, seed: int) -> Any:
    """Return a MetaSchedule ``TuneContext`` with its evolutionary search over CPU schedules.

    Its rules are those of MetaSchedule for LLVM without tensor intrinsics; with one core no loop is
    made parallel. The context is made without ``TuneContext.__init__``, which imports all tensor
    intrinsics of TVM for tens of seconds.

    Parameters
    ----------
    module
        What `workload_module` returns.
    target
        The device's target.
    cores
        Threads that the kernel may use.
    threads
        Threads that generate candidates.
    seed
        At least 1; equal arguments give equal candidates for equal measurements.
    """
    jobs = _JOBS_PER_CORE if cores > 1 else _NO_PARALLEL
    mutators = {MutateTileSize(): 0.9, MutateComputeLocation(): 0.05, MutateUnroll(): 0.03}
    if cores > 1:
        mutators[MutateParallel(jobs)] = 0.02
    generator = PostOrderApply(
        sch_rules=_rules(jobs),
        postprocs=[DisallowDynamicLoop(), RewriteParallelVectorizeUnroll(), RewriteReductionBlock()],
        mutator_probs=mutators,
    )
    strategy = EvolutionarySearch(
        population_size=_POPULATION,
        init_measured_ratio=0.3,
        init_min_unmeasured=_LEAST_RANDOM,
        genetic_num_iters=_GENERATIONS,
        eps_greedy=0.1,
    )
    context = TuneContext.__new__(TuneContext)
    context.__init_handle_by_constructor__(
        _ffi_api.TuneContext,
        module,
        target,
        generator,
        strategy,
        "main",
        threads,
        seed,
        get_logging_func(_quiet_logger()),
    )
    _ffi_api.TuneContextInitialize(context)
    return context


def _rules(jobs: int) -> list[Any]:
    return [
        InlineConstantScalars(),
        AutoInline(
            into_producer=False,
            into_consumer=True,
            inline_const_tensor=True,
            disallow_if_then_else=True,
            require_injective=True,
            require_ordered=True,
            disallow_op=["tirx.exp"],
        ),
        *([AddRFactor(max_jobs_per_core=jobs, max_innermost_factor=64)] if jobs > 0 else []),
        MultiLevelTiling(
            structure="SSRSRS",
            tile_binds=None,
            max_innermost_factor=64,
            vector_load_lens=None,
            reuse_read=None,
            reuse_write=ReuseType(req="may", levels=[1, 2], scope="global"),
        ),
        ParallelizeVectorizeUnroll(
            max_jobs_per_core=jobs,
            max_vectorize_extent=64,
            unroll_max_steps=_UNROLL_STEPS,
            unroll_explicit=True,
        ),
        RandomComputeLocation(),
    ]


def scheduled_function(schedule: Any) -> Any:
    """Return the PrimFunc of a MetaSchedule schedule, marked so that no rule schedules it again."""
    return mark_scheduled(schedule.mod["main"])


def mark_scheduled(function: Any) -> Any:
    """Return a PrimFunc whose loops stay as they are for `tvm_sphinx.kernels.implement`."""
    return function.with_attr("tirx.is_scheduled", True)


def _quiet_logger() -> logging.Logger:
    logger = logging.getLogger("tvm_sphinx.tune.meta_schedule")
    logger.setLevel(logging.ERROR)
    return logger
