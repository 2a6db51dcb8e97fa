"""Each kernel's speed beside the machine's measured peak, worst first: the work list of this package."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import tvm
from tvm import relax, tirx

from . import compute
from .schedule import schedule_kernel

_ROUNDS = 5
_ROUND_S = 0.01


@dataclass(frozen=True)
class Peak:
    """What the cores reach on kernels made for it.

    Attributes
    ----------
    gflops
        Multiply-adds out of the first level cache, in 1e9 operations per second.
    gbytes_per_s
        A copy between arrays larger than the caches, read and written bytes together.
    """

    gflops: float
    gbytes_per_s: float


@dataclass(frozen=True)
class KernelRow:
    """One distinct kernel of a model.

    Attributes
    ----------
    name
        Name of the PrimFunc.
    calls
        How often the model calls it in one inference.
    time_ns
        Median time of one call.
    total_ns
        `calls` times `time_ns`.
    gflops, gbytes_per_s
        Operations and parameter bytes per second.
    peak_share
        The larger of the two as a share of the machine's peak.
    lost_ns
        What the model would gain if the kernel ran at that peak; rows are sorted by it.
    scheduled
        Whether a rule fitted; otherwise it is TVM's default schedule.
    """

    name: str
    calls: int
    time_ns: int
    total_ns: int
    gflops: float
    gbytes_per_s: float
    peak_share: float
    lost_ns: int
    scheduled: bool


def _configure_threads(cores: int) -> None:
    tvm.get_global_func("runtime.config_threadpool")(1, cores)


def _time_ns(call: Callable[[], Any]) -> int:
    """Return the median over rounds of the mean time of one call."""
    call()
    start = time.perf_counter_ns()
    call()
    once = max(1, time.perf_counter_ns() - start)
    repeat = max(1, min(10_000, int(_ROUND_S * 1e9 / once)))
    samples = []
    for _ in range(_ROUNDS):
        start = time.perf_counter_ns()
        for _ in range(repeat):
            call()
        samples.append((time.perf_counter_ns() - start) // repeat)
    return int(statistics.median(samples))


def _shape(param: Any) -> tuple[int, ...]:
    return tuple(int(extent) for extent in param.shape)


def _arguments(func: tirx.PrimFunc) -> list[Any]:
    """Draw an array for every parameter; integers are small, so that they are valid indices."""
    rng = np.random.default_rng(0)
    arrays = []
    for param in func.params:
        dtype, shape = str(param.dtype), _shape(param)
        if dtype.startswith(("float", "bfloat")):
            array = rng.standard_normal(shape).astype(dtype)
        else:
            array = rng.integers(0, 2, shape).astype(dtype)
        arrays.append(tvm.runtime.tensor(array))
    return arrays


def _bytes(func: tirx.PrimFunc) -> int:
    return sum(int(np.prod(_shape(p))) * max(1, int(p.dtype.bits) // 8) for p in func.params)


def count_calls(mod: tvm.IRModule) -> dict[str, int]:
    """Return how often each PrimFunc of a fused module is called, by name."""
    calls: dict[str, int] = {}

    def visit(expr: relax.Expr) -> None:
        if isinstance(expr, relax.Call) and getattr(expr.op, "name", "") == "relax.call_tir":
            name = str(expr.args[0].name_hint)
            calls[name] = calls.get(name, 0) + 1

    for func in mod.functions.values():
        if isinstance(func, relax.Function):
            relax.analysis.post_order_visit(func, visit)
    return calls


def measure_peak(target: tvm.target.Target, cores: int) -> Peak:
    """Measure what the cores reach at best, with kernels of this package.

    Parameters
    ----------
    target
        An LLVM target of this machine.
    cores
        Threads to use.
    """
    _configure_threads(cores)
    product = compute.matmul((7 * 64,), 256, 32 * cores, "float32", "float32")
    bare = product.with_attr("global_symbol", "main")
    scheduled = schedule_kernel(bare, target, cores)
    flops_ns = _time_built(scheduled, bare, target)
    lines = 1 << 14
    copy = _copy_kernel(lines, 1 << 10)
    copy_ns = _time_built(schedule_kernel(copy, target, cores), copy, target)
    return Peak(compute.flops(product) / flops_ns, _bytes(copy) / copy_ns)


def _copy_kernel(rows: int, columns: int) -> tirx.PrimFunc:
    from tvm import te

    source = te.placeholder((rows, columns), name="source")
    return te.create_prim_func(
        [source, te.compute(source.shape, lambda i, j: source[i, j], name="copy")]
    )


def _time_built(
    func: tirx.PrimFunc | None, unscheduled: tirx.PrimFunc, target: tvm.target.Target
) -> int:
    built = tvm.build(tvm.IRModule({"main": func or unscheduled}), target=target)
    args, entry = _arguments(unscheduled), built["main"]
    return _time_ns(lambda: entry(*args))


def bench_kernels(mod: tvm.IRModule, target: tvm.target.Target, cores: int) -> list[KernelRow]:
    """Time every distinct kernel of a fused module under the default rules.

    Parameters
    ----------
    mod
        A module after FuseTIR, its kernels not yet scheduled.
    target
        An LLVM target of this machine.
    cores
        Threads that each kernel may use.

    Returns
    -------
    One row per called kernel, the one that loses most against the peak first.
    """
    peak = measure_peak(target, cores)
    calls = count_calls(mod)
    rows = []
    for gvar, func in mod.functions_items():
        if not isinstance(func, tirx.PrimFunc) or gvar.name_hint not in calls:
            continue
        named = func.with_attr("global_symbol", "main")
        scheduled = schedule_kernel(named, target, cores)
        time_ns = _time_built(scheduled, named, target)
        rows.append(_row(gvar.name_hint, calls[gvar.name_hint], func, scheduled, time_ns, peak))
    return sorted(rows, key=lambda row: (-row.lost_ns, row.name))


def _row(
    name: str, calls: int, func: tirx.PrimFunc, scheduled: Any, time_ns: int, peak: Peak
) -> KernelRow:
    gflops = compute.flops(func) / max(1, time_ns)
    gbytes = _bytes(func) / max(1, time_ns)
    share = min(1.0, max(gflops / peak.gflops, gbytes / peak.gbytes_per_s))
    total = calls * time_ns
    lost = int(total * (1.0 - share))
    return KernelRow(name, calls, time_ns, total, gflops, gbytes, share, lost, scheduled is not None)


def format_rows(rows: Sequence[KernelRow], limit: int | None = None) -> str:
    """Return the rows as a table, in their order.

    Parameters
    ----------
    rows
        What `bench_kernels` returned.
    limit
        Rows to print; None prints all.
    """
    columns = ("us each", 10), ("ms all", 8), ("GFLOP/s", 8), ("GB/s", 7), ("of peak", 8)
    head = f"{'calls':>5} " + " ".join(f"{name:>{width}}" for name, width in columns) + "  kernel"
    lines = [head]
    for row in rows[:limit]:
        mark = "" if row.scheduled else "  (TVM's default)"
        lines.append(
            f"{row.calls:>5} {row.time_ns / 1e3:>10.1f} {row.total_ns / 1e6:>8.2f} "
            f"{row.gflops:>8.1f} {row.gbytes_per_s:>7.1f} {row.peak_share:>8.0%}  {row.name}{mark}"
        )
    total = sum(row.total_ns for row in rows) / 1e6
    lines.append(f"{len(rows)} distinct kernels, {total:.2f} ms in all")
    return "\n".join(lines)


def to_json(rows: Sequence[KernelRow]) -> list[dict[str, Any]]:
    """Return the rows as plain dictionaries."""
    return [asdict(row) for row in rows]
