"""Timelines of a run for people: SVG, HTML and text, from a trace. No network, no scripts."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING

from ..scheduling.problem import SchedulingProblem
from ..scheduling.schedule import Schedule, validate
from .why import find_waits

if TYPE_CHECKING:
    from ..runtime.trace import Link, Trace, TracedStep

_WIDTH, _LEFT, _RIGHT = 1600, 150, 20
_ROW, _BAR, _TOP = 54, 20, 34
# Okabe and Ito's palette, told apart by colour-blind readers too.
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#7f7f7f")
_STYLE = (
    "text{font:12px sans-serif;fill:#222}.name{font-weight:bold}.tick{fill:#777}"
    ".predicted{opacity:.35}.critical{stroke:#c00;stroke-width:1.5}.flow{stroke:#444;opacity:.35;fill:none}"
)
_PAGE_STYLE = (
    "body{font:14px sans-serif;margin:24px;color:#222}table{border-collapse:collapse;margin:8px 0 24px}"
    "td,th{padding:2px 12px 2px 0;text-align:right}td:first-child,th:first-child,.l{text-align:left}"
    "th{border-bottom:1px solid #999}pre{font:13px monospace}svg{max-width:100%;height:auto}"
)


def timeline_svg(trace: Trace) -> str:
    """Return a timeline: for each device its steps as measured, and below them as predicted.

    Steps of the critical path have a red edge, lines lead from each step to the readers of its results
    on other devices; hovering over a step shows its numbers.
    """
    span = max(trace.makespan_ns, trace.predicted_makespan_ns or 0, 1)
    height = _TOP + _ROW * len(trace.devices) + 24
    critical = {link.step for link in trace.critical_path()}
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        f'width="{_WIDTH}" height="{height}"><style>{_STYLE}</style>',
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
        *_axis(span, height),
    ]
    for device, name in enumerate(trace.devices):
        parts.append(
            f'<text class="name" x="8" y="{_bar_top(device) + 15}">{escape(name)}</text>'
            f'<text class="tick" x="8" y="{_bar_top(device) + 30}">'
            f"{trace.device_busy_ns[device] / span:.0%} busy</text>"
        )
    for number, step in enumerate(trace.steps):
        parts.extend(_bars(trace, number, step, span, number in critical))
    for producer, reader in trace.crossings():
        source, target = trace.steps[producer], trace.steps[reader]
        down = target.device > source.device
        y1 = _bar_top(source.device) + (_BAR if down else 0)
        y2 = _bar_top(target.device) + (0 if down else _BAR)
        x1, x2 = _x(source.end_ns, span), _x(target.begin_ns, span)
        parts.append(f'<path class="flow" d="M{x1:.2f} {y1}L{x2:.2f} {y2}"/>')
    return "".join([*parts, "</svg>"])


def schedule_svg(problem: SchedulingProblem, schedule: Schedule) -> str:
    """Return the timeline of a schedule of any problem, with its critical path.

    Raises
    ------
    InvalidScheduleError
        If the schedule is not valid for the problem.
    """
    from ..runtime.trace import Trace, TracedStep

    validate(problem, schedule)
    place = {task: step for step, task in enumerate(schedule.order)}
    sources: dict[int, list[int]] = {}
    for source, target in problem.edges.tolist():
        sources.setdefault(target, []).append(place[source])
    waits = find_waits(problem, schedule)
    steps = []
    for task in schedule.order:
        times = int(schedule.start_ns[task]), int(schedule.finish_ns[task])
        after = waits[task].after if waits[task].cause == "core" else None
        steps.append(
            TracedStep(
                name=f"task {task}",
                kind="call",
                function="",
                device=int(schedule.device[task]),
                begin_ns=times[0],
                end_ns=times[1],
                task=task,
                predicted_ns=None,
                producers=tuple(sources.get(task, ())),
                previous=() if after is None else (place[after],),
            )
        )
    return timeline_svg(Trace(problem.devices, problem.device_cores, tuple(steps), None))


def timeline_html(trace: Trace, title: str) -> str:
    """Return a page with the timeline, the critical path, utilisation, and every task's two times."""
    sections = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{escape(_headline(trace))}</p>",
        timeline_svg(trace),
        "<p>Above: measured. Below, pale: predicted. Red edges: the critical path.</p>",
        "<h2>Utilisation</h2>",
        _table(_utilisation(trace)),
        "<h2>Critical path</h2>",
        _table(_path_rows(trace)),
        "<h2>Tasks</h2>",
        _table(_task_rows(trace)),
    ]
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{_PAGE_STYLE}</style>'
    return f"<!doctype html><html><head>{head}</head><body>{''.join(sections)}</body></html>\n"


def timeline_text(trace: Trace) -> str:
    """Return the critical path, the utilisation and the tasks as text."""
    blocks = [
        [_headline(trace)],
        ["utilisation", *_columns(_utilisation(trace))],
        ["critical path", *_columns(_path_rows(trace))],
        ["tasks", *_columns(_task_rows(trace))],
    ]
    return "\n\n".join("\n".join(block) for block in blocks) + "\n"


def _headline(trace: Trace) -> str:
    measured = f"measured {trace.makespan_ns / 1e3:.1f} us"
    if trace.predicted_makespan_ns is None:
        return measured
    predicted = trace.predicted_makespan_ns
    ratio = trace.makespan_ns / predicted if predicted else float("nan")
    return f"{measured}, predicted {predicted / 1e3:.1f} us, ratio {ratio:.3f}"


def _utilisation(trace: Trace) -> list[list[str]]:
    span = max(trace.makespan_ns, 1)
    rows = [["device", "steps", "busy us", "of the run"]]
    for device, name in enumerate(trace.devices):
        busy = trace.device_busy_ns[device]
        count = sum(step.device == device for step in trace.steps)
        rows.append([name, str(count), f"{busy / 1e3:.1f}", f"{busy / span:.1%}"])
    for core, busy in trace.core_busy_ns.items():
        rows.append([f"core {core}", "", f"{busy / 1e3:.1f}", f"{busy / span:.1%}"])
    return rows


def _path_rows(trace: Trace) -> list[list[str]]:
    rows = [["step", "device", "begin us", "measured us", "predicted us", "waited for", "gap us"]]
    for link in trace.critical_path():
        step = trace.steps[link.step]
        reason = wait_reason(trace, link)
        times = [f"{step.begin_ns / 1e3:.1f}", f"{step.duration_ns / 1e3:.1f}", _predicted(step)]
        rows.append([step.name, trace.devices[step.device], *times, reason, f"{link.gap_ns / 1e3:.1f}"])
    return rows


def wait_reason(trace: Trace, link: Link) -> str:
    """Return what a step of the critical path waited for."""
    if link.after is None:
        return "the start of the run"
    other = trace.steps[link.after]
    if link.cause != "data":
        return f"its core, taken by {other.name}"
    is_here = other.device == trace.steps[link.step].device
    return f"the result of {other.name}" + ("" if is_here else f" from {trace.devices[other.device]}")


def _task_rows(trace: Trace) -> list[list[str]]:
    rows = [["step", "device", "kernel", "begin us", "measured us", "predicted us", "ratio"]]
    for step in trace.steps:
        ratio = ""
        if step.predicted_ns is not None and step.predicted_ns[1] > step.predicted_ns[0]:
            ratio = f"{step.duration_ns / (step.predicted_ns[1] - step.predicted_ns[0]):.2f}"
        times = [f"{step.begin_ns / 1e3:.1f}", f"{step.duration_ns / 1e3:.1f}", _predicted(step), ratio]
        rows.append([step.name, trace.devices[step.device], step.function or step.kind, *times])
    return rows


def _predicted(step: TracedStep) -> str:
    if step.predicted_ns is None:
        return ""
    return f"{(step.predicted_ns[1] - step.predicted_ns[0]) / 1e3:.1f}"


def _columns(rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if _is_text(rows, index) else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  " + "  ".join(cells).rstrip())
    return lines


def _is_text(rows: list[list[str]], column: int) -> bool:
    return rows[0][column] in ("step", "device", "kernel", "waited for")


def _table(rows: list[list[str]]) -> str:
    lines = []
    for number, row in enumerate(rows):
        tag = "td" if number else "th"
        cells = [
            f'<{tag} class="{"l" if _is_text(rows, column) else "r"}">{escape(cell)}</{tag}>'
            for column, cell in enumerate(row)
        ]
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return f"<table>{''.join(lines)}</table>"


def _axis(span: int, height: int) -> Iterator[str]:
    step = _round_step(span / 10)
    unit, scale = ("ms", 1e6) if step >= 1e6 else ("us", 1e3)
    for tick in range(0, span + 1, step):
        x = _x(tick, span)
        yield f'<path d="M{x:.2f} {_TOP - 8}V{height - 20}" stroke="#ddd"/>'
        yield f'<text class="tick" x="{x + 3:.2f}" y="{_TOP - 12}">{tick / scale:g} {unit}</text>'


def _round_step(raw: float) -> int:
    """Return the next of 1, 2, 5, 10, ... ns."""
    step = 1
    while True:
        for factor in (1, 2, 5):
            if step * factor >= raw:
                return step * factor
        step *= 10


def _bars(trace: Trace, number: int, step: TracedStep, span: int, critical: bool) -> Iterator[str]:
    colour = _COLOURS[step.device % len(_COLOURS)] if step.kind not in ("copy", "turn") else "#555"
    top = _bar_top(step.device)
    told = f"{step.name} on {trace.devices[step.device]}: {step.duration_ns / 1e3:.1f} us"
    if step.predicted_ns is not None:
        told += f", predicted {_predicted(step)} us"
        begin, end = step.predicted_ns
        yield _bar("predicted", begin, end, top + _BAR + 2, _BAR // 2, colour, told, span)
    css = "critical" if critical else "measured"
    yield _bar(css, step.begin_ns, step.end_ns, top, _BAR, colour, f"{told} (step {number})", span)


def _bar(
    css: str, begin: int, end: int, top: int, height: int, colour: str, told: str, span: int
) -> str:
    x = _x(begin, span)
    width = max(_x(end, span) - x, 0.4)
    return (
        f'<rect class="{css}" x="{x:.2f}" y="{top}" width="{width:.2f}" height="{height}" '
        f'fill="{colour}"><title>{escape(told)}</title></rect>'
    )


def _bar_top(device: int) -> int:
    return _TOP + device * _ROW


def _x(time_ns: int, span: int) -> float:
    return _LEFT + time_ns / span * (_WIDTH - _LEFT - _RIGHT)
