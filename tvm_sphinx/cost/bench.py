"""Each kernel's speed beside what the machine reaches at best, worst first. [TVM]

The list is for people who work on kernels: on top is what a model loses most time on. Times are those
that a compilation measures and records (`measure.py`): what was compiled before is not measured again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .._tvm import tvm
from ..errors import UnsupportedError
from ..frontend.extract import Extraction, Kernel, kernel_flops
from ..kernels import compute, rule_of
from ..platform import Device
from ..progress import Progress
from ..report.text import format_table
from ..wording import counted
from .choose.candidates import CandidateSource
from .choose.costing import decide_kernels
from .choose.kernel_costs import Implementation
from .measure.kernel_timing import MeasureConfig, kernel_of, operand_bytes
from .measure.kernels import measure_kernels
from .records.store import RecordStore, median_and_spread

# A matrix product whose operands stay in the nearest caches, and a copy of more than the caches hold.
_PRODUCT_ROWS, _PRODUCT_INNER, _PRODUCT_COLUMNS = 7 * 64, 256, 32
_COPY_SHAPE = (1 << 14, 1 << 10)


@dataclass(frozen=True)
class Peak:
    """What a device reaches on kernels that are made for it.

    Attributes
    ----------
    gflops
        Multiply-adds of float32 out of the caches, in 1e9 operations per second.
    gbytes_per_s
        A copy between arrays larger than the caches, read and written bytes together.
    """

    gflops: float
    gbytes_per_s: float


@dataclass(frozen=True)
class KernelRow:
    """One distinct kernel of a model on one device.

    Attributes
    ----------
    name
        Its kinds of operators, the shape of its output, and the begin of its id.
    kernel
        Its id, as in records and task graphs.
    calls
        How often one inference calls it.
    time_ns, total_ns
        Median time of one call, and `calls` times that.
    gflops, gbytes_per_s
        Operations, and bytes of its operands, per second.
    peak_share
        The larger of the two as a share of the device's peak.
    lost_ns
        What an inference would gain if the kernel ran at that peak; rows are sorted by it.
    rule
        What implements it: a schedule rule, "tuned", "extern" for a library function; empty for TVM's
        default.
    """

    name: str
    kernel: str
    calls: int
    time_ns: int
    total_ns: int
    gflops: float
    gbytes_per_s: float
    peak_share: float
    lost_ns: int
    rule: str


def measure_peak(device: Device) -> Peak:
    """Measure what a CPU device reaches at best, with the rules of `tvm_sphinx.kernels`.

    Raises
    ------
    UnsupportedError
        If the device is no set of CPU cores.
    """
    if not device.is_cpu:
        raise UnsupportedError(
            f"The peak is measured on CPU devices; {device.name!r} is {device.runtime}."
        )
    columns = _PRODUCT_COLUMNS * len(device.cores)
    product = compute.matmul((_PRODUCT_ROWS,), _PRODUCT_INNER, columns, "float32", "float32")
    source = tvm.te.placeholder(_COPY_SHAPE, name="source")
    copied = tvm.te.compute(_COPY_SHAPE, lambda i, j: source[i, j], name="copy")
    kernels = [
        kernel_of(product, "peak-product"),
        kernel_of(tvm.te.create_prim_func([source, copied]), "peak-copy"),
    ]
    records = measure_kernels(kernels, device, RecordStore(None), MeasureConfig())
    product_ns, copy_ns = (max(1, median_and_spread(record.samples_ns)[0]) for record in records)
    return Peak(kernel_flops(product) / product_ns, operand_bytes(kernels[1]) / copy_ns)


def bench_kernels(
    extraction: Extraction,
    device: Device,
    records: RecordStore,
    peak: Peak,
    sources: Sequence[CandidateSource] = (),
    *,
    config: MeasureConfig | None = None,
    progress: Progress | None = None,
) -> list[KernelRow]:
    """Return a row for each distinct kernel that runs on a device, what loses most first.

    A kernel is implemented as a compilation with the same records and sources would choose.

    Parameters
    ----------
    extraction
        The model's task graph and kernels.
    device
        A CPU device of this machine.
    records
        Measured times to use and to extend; each is on record before the next one starts.
    peak
        What `measure_peak` returned for the device.
    sources
        Implementations beside those of the rules, such as tuned ones.
    config, progress
        As for `tvm_sphinx.cost.choose.costing.cost_kernels`.
    """
    calls = Counter(task.kernel for task in extraction.graph.tasks)
    first = {task.kernel: task for task in reversed(extraction.graph.tasks)}
    kernels = extraction.kernels.values()
    costs = decide_kernels(kernels, (device,), records, sources, config=config, progress=progress)
    rows = []
    for cost in costs.values():
        best, kernel = cost.best, cost.rule.kernel
        if best.time_ns < 0:
            continue  # it has no code for this device
        task = first[kernel.id]
        time_ns = max(1, best.time_ns)
        gflops, gbytes = task.flops / time_ns, operand_bytes(kernel) / time_ns
        share = min(1.0, max(gflops / peak.gflops, gbytes / peak.gbytes_per_s))
        total_ns = calls[kernel.id] * time_ns
        rows.append(
            KernelRow(
                name=_row_name(task.op_kinds, kernel),
                kernel=kernel.id,
                calls=calls[kernel.id],
                time_ns=time_ns,
                total_ns=total_ns,
                gflops=gflops,
                gbytes_per_s=gbytes,
                peak_share=share,
                lost_ns=int(total_ns * (1.0 - share)),
                rule=_rule(best),
            )
        )
    return sorted(rows, key=lambda row: (-row.lost_ns, row.name))


def _row_name(kinds: Sequence[str], kernel: Kernel) -> str:
    shape = "x".join(str(int(extent)) for extent in kernel.argument_types[-1].shape.values)
    return f"{'+'.join(kinds)} -> {shape or 'scalar'} [{kernel.id[:8]}]"


def _rule(best: Implementation) -> str:
    if best.kernel.is_external:
        return "extern"
    origin = best.candidate.origin
    if origin == "default":
        return ""
    return rule_of(best.function) if origin == "rule" else origin


def format_rows(rows: Sequence[KernelRow], peak: Peak, limit: int | None = None) -> str:
    """Return the rows as a table, in their order, and what has TVM's default schedule.

    ``limit`` rows are printed; None prints all.
    """
    table = [("calls", "us each", "ms all", "GFLOP/s", "GB/s", "of peak", "rule", "kernel")]
    for row in rows[:limit]:
        table.append(
            (
                str(row.calls),
                f"{row.time_ns / 1e3:.1f}",
                f"{row.total_ns / 1e6:.2f}",
                f"{row.gflops:.1f}",
                f"{row.gbytes_per_s:.1f}",
                f"{row.peak_share:.0%}",
                row.rule or "TVM's default",
                row.name,
            )
        )
    total = sum(row.total_ns for row in rows) / 1e6
    calls = counted(sum(row.calls for row in rows), "call")
    default = [row.name for row in rows if not row.rule]
    return "\n".join(
        [
            format_table(table),
            "",
            f"peak                 {peak.gflops:.1f} GFLOP/s, {peak.gbytes_per_s:.1f} GB/s",
            f"kernels              {len(rows)} distinct, {calls}, {total:.2f} ms in all",
            f"without a rule       {len(default)}{': ' if default else ''}{', '.join(default)}",
        ]
    )


def to_json(rows: Sequence[KernelRow], device: Device, peak: Peak) -> dict[str, Any]:
    """Return a device's rows and peak in a JSON-serialisable form."""
    return {
        "device": device.name,
        "target": device.target_config,
        "cores": list(device.cores),
        "peak": asdict(peak),
        "kernels": [asdict(row) for row in rows],
    }
