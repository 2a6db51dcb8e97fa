"""The report of a placement as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt

from ..wording import counted
from .placement import PlacementReport
from .text import format_bytes, format_ns, format_table

_MOST_NAMED = 8  # kernels that the report names in a line
_MOST_IDLE = 8  # devices, from which on those that run nothing are only counted
_MOST_ORIGINS = 3  # operators of the source that it names for a task


def format_summary(report: PlacementReport) -> str:
    """Return what was decided in one line: where tasks run, the prediction, and how good it can be."""
    used = sorted((row for row in report.devices if row.tasks), key=lambda row: -row.tasks)
    counts = ["all"] if len(used) == 1 else [str(row.tasks) for row in used]
    placed = ", ".join(f"{n} on {row.name}" for n, row in zip(counts, used, strict=True)) or "none"
    is_single = len(used) == 1 and used[0].name == report.best_single_device
    if is_single:
        placed += ", the best single device"
    single = f"{format_ns(report.whole_single_device_ns)} ({report.best_single_device})"
    predicted, tasks = f"predicted {format_ns(report.whole_ns)}", counted(len(report.tasks), "task")
    if report.dynamic is not None:
        count = len(report.dynamic.operators)
        placed += f", then {counted(count, 'operator')} of open shapes"
    if is_single:
        return f"{tasks}: {placed}; {predicted}"
    if report.lower_bound_ns == report.makespan_ns > 0:
        proof = "optimal for these costs"
    elif report.lower_bound_ns:
        gap = report.whole_ns / report.whole_lower_bound_ns - 1
        proof = f"at most {gap:.1%} above the optimum for these costs"
    else:
        proof = "no bound known"
    return f"{tasks}: {placed}; {predicted}, best single device {single}; {proof}"


def format_fixed(values: Mapping[str, npt.NDArray[Any]]) -> dict[str, str]:
    """Return the type of each input that is fixed, and its value where that is one number."""
    told = {}
    for name, value in values.items():
        type_ = f"{value.dtype}[{', '.join(map(str, value.shape))}]"
        told[name] = f"{value.item()} ({type_})" if value.size == 1 else type_
    return told


def format_report(report: PlacementReport, *, verbose: bool = False) -> str:
    """Return the report as text; ``verbose`` adds a line for each task."""
    rows = [("device", "tasks", "busy", "of makespan", "copies in", "bytes", "hand-overs in")]
    shown = report.devices
    if len(shown) > _MOST_IDLE:
        shown = tuple(row for row in report.devices if row.tasks)
    for row in shown:
        share = row.busy_ns / report.makespan_ns if report.makespan_ns else 0.0
        rows.append(
            (
                row.name,
                str(row.tasks),
                format_ns(row.busy_ns),
                f"{share:.0%}",
                str(row.copies),
                format_bytes(row.copied_bytes),
                str(row.handovers),
            )
        )
    lines = [format_table(rows)]
    if idle := len(report.devices) - len(shown):
        lines.append(f"{idle} other devices run nothing")
    lines.append("")
    bound_ns = report.whole_lower_bound_ns
    gap = report.whole_ns / bound_ns - 1 if bound_ns else 0.0
    proof = ", proven optimal" if report.lower_bound_ns == report.makespan_ns > 0 else ""
    speedup = report.whole_single_device_ns / report.whole_ns if report.whole_ns else 1.0
    lines += [
        f"predicted makespan   {format_ns(report.whole_ns)}",
        f"best single device   {format_ns(report.whole_single_device_ns)} on "
        f"{report.best_single_device} ({speedup:.2f}x the makespan)",
        f"lower bound          {format_ns(bound_ns)} (certified gap {gap:.1%}{proof})",
        f"search               {report.algorithm}, seed {report.seed}, {report.evaluations} evaluations",
        f"costs                {_format_costs(report)}",
        f"kernels              {_format_kernels(report)}",
    ]
    if verbose:
        table = [("task", "kernel", "device", "start", "finish", "source")]
        for task in report.tasks:
            times = format_ns(task.start_ns), format_ns(task.finish_ns)
            table.append((task.name, task.kernel, task.device, *times, _format_origin(task.origin)))
        lines += ["", format_table(table)]
    return "\n".join(lines)


def _format_origin(origin: Sequence[str]) -> str:
    """Return the first operators of the source that a task computes, and how many there are more."""
    more = f" and {len(origin) - _MOST_ORIGINS} more" if len(origin) > _MOST_ORIGINS else ""
    return (", ".join(origin[:_MOST_ORIGINS]) + more) or "-"


def _format_costs(report: PlacementReport) -> str:
    """Return the share of costs that are measured, and where there was no model to predict them."""
    names = ", ".join(report.always_measured)
    outside = f"; all of {names}, which no model predicts" if names else ""
    links = report.num_estimated_links
    guessed = f"; {links} kinds of link between devices estimated, not measured" if links else ""
    total = len(report.tasks)
    absent = "".join(
        f"; {name} is not at hand: {count} of its {total} times are estimates, {total - count} on record"
        for name, count in report.estimated.items()
    )
    count = report.num_traced
    traced = f"; corrected by traces of {counted(count, 'program')} in place" if count else ""
    told = f"{report.measured_share:.0%} measured{_format_left_out(report)}"
    return f"{told}{traced}{outside}{absent}{guessed}"


def _format_left_out(report: PlacementReport) -> str:
    """Return what predicted times that were not measured, and how many are left out."""
    if not report.num_left_out:
        return f"; the others by {report.predicted_by}" if report.predicted_by else ""
    return (
        f"; {report.num_left_out} of {report.num_times} times of kernels are predicted "
        f"({report.predicted_by}) and left out, since they decide nothing"
    )


def _format_kernels(report: PlacementReport) -> str:
    """Return how many kernels there are, where their code comes from, and which are TVM's own loops."""
    text = f"{report.num_kernels} distinct"
    if report.implementations:
        text += "; " + ", ".join(f"{count} {name}" for name, count in report.implementations.items())
    names = report.default_kernels
    if names:
        shown = ", ".join(names[:_MOST_NAMED]) + (", ..." if len(names) > _MOST_NAMED else "")
        text += f"; {len(names)} in TVM's default loops: {shown}"
    return text
