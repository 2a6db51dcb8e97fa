"""A placement as one page that needs nothing else: no network, no server."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from html import escape
from importlib import resources
from typing import TYPE_CHECKING, Any

from ..patterns import find_patterns
from ..scheduling.graph import TaskGraph
from .decision import Decision
from .text import format_ns
from .timeline import wait_reason
from .why import Analysis

if TYPE_CHECKING:
    from ..runtime.trace import Trace

_DAY_S = 86_400


def report_page(content: dict[str, Any]) -> str:
    """Return the page of what `report_content` returned."""
    parts = {name: (resources.files(__package__) / "page" / name).read_text("utf-8") for name in _PARTS}
    # A text in JSON could end the script that holds it.
    told = json.dumps(content, separators=(",", ":")).replace("<", "\\u003c")
    page = parts["page.html"].replace("TITLE", escape(content["title"]), 1)
    page = page.replace("STYLE", parts["page.css"], 1).replace("SCRIPT", parts["page.js"], 1)
    return page.replace("DATA", told, 1)


_PARTS = ("page.html", "page.css", "page.js")


def report_content(
    decision: Decision,
    graph: TaskGraph,
    title: str,
    summary: str,
    *,
    trace: Trace | None = None,
    not_measured: str = "It was not run.",
    told: Sequence[tuple[str, str]] = (),
) -> dict[str, Any]:
    """Return all that the page shows, JSON-serialisable; times in ns.

    Parameters
    ----------
    trace
        Of a run; None shows what was predicted alone, with the sentence ``not_measured``.
    told
        Further headings and texts, for the part on bounds and proof.
    """
    analysis = Analysis(decision, graph)
    schedule, problem = decision.schedule, decision.problem
    hierarchy = find_patterns(graph)
    groups = [
        {"name": f"P{index}", "tasks": list(hierarchy.patterns[index].occurrences[number])}
        for index, number in hierarchy.outermost
    ]
    busy = [0] * problem.num_devices
    for task in range(graph.num_tasks):
        busy[int(schedule.device[task])] += int(schedule.finish_ns[task] - schedule.start_ns[task])
    makespan = max(1, schedule.makespan_ns)
    return {
        "title": title,
        "summary": summary,
        "makespan_ns": schedule.makespan_ns,
        "devices": [
            {
                "name": name,
                "tasks": int((schedule.device == device).sum()),
                "share": busy[device] / makespan,
            }
            for device, name in enumerate(problem.devices)
        ],
        "tasks": [_task(analysis, task) for task in range(graph.num_tasks)],
        "edges": problem.edges.tolist(),
        "groups": groups,
        "path": analysis.path,
        "measured": None if trace is None else _measured(trace),
        "not_measured": not_measured,
        "weighed": sorted(decision.weighed.items(), key=lambda item: item[1]),
        "proof": [*_proof(decision), *told],
        "machine": _machine(decision),
    }


def _task(analysis: Analysis, task: int) -> dict[str, Any]:
    reasons = analysis.reasons(task)
    return {
        "name": reasons.name,
        "kernel": reasons.kernel,
        "device": int(analysis.decision.schedule.device[task]),
        "start": reasons.start_ns,
        "finish": reasons.finish_ns,
        "slack": reasons.slack_ns,
        "origin": list(reasons.origin),
        "waited": reasons.waited_for,
        "binds": list(reasons.binds),
        "alternatives": [
            {
                "exec": one.exec_ns,
                "spread": one.spread_ns,
                "measured": one.is_measured,
                "origin": one.origin,
                "moved": one.moved_ns,
            }
            for one in reasons.alternatives
        ],
    }


def _measured(trace: Trace) -> dict[str, Any]:
    return {
        "makespan_ns": trace.makespan_ns,
        "steps": [
            {
                "name": step.name,
                "kind": step.kind,
                "device": step.device,
                "begin": step.begin_ns,
                "end": step.end_ns,
                "task": step.task,
            }
            for step in trace.steps
        ],
        "path": [
            {"step": link.step, "waited": wait_reason(trace, link), "gap": link.gap_ns}
            for link in trace.critical_path()
        ],
    }


def _proof(decision: Decision) -> list[tuple[str, str]]:
    schedule = decision.schedule
    gap = "proven optimal for these costs" if schedule.gap == 0 else f"at most {schedule.gap:.2%} above"
    rows = [
        ("predicted makespan", format_ns(schedule.makespan_ns)),
        ("lower bound", f"{format_ns(schedule.lower_bound_ns)}: no schedule is shorter for these costs"),
        ("certified gap", f"{gap}{'' if schedule.gap == 0 else ' the optimum for these costs'}"),
        ("search", f"{decision.algorithm}, ended by {decision.stop_reason}"),
        ("problem", decision.problem.fingerprint),
    ]
    if decision.pins:
        rows.append(("pins", ", ".join(decision.pins)))
    if decision.free_ns is not None:
        rows.append(("without these limits", format_ns(decision.free_ns)))
    return rows


def _machine(decision: Decision) -> list[tuple[str, str]]:
    share = float(decision.measured.mean()) if decision.measured.size else 1.0
    rows = [("machine", decision.machine), ("TVM", decision.tvm), ("costs", f"{share:.0%} measured")]
    if decision.measured_at is not None:
        oldest, newest = (time.strftime("%Y-%m-%d %H:%M", time.gmtime(t)) for t in decision.measured_at)
        days = (time.time() - decision.measured_at[0]) / _DAY_S
        rows.append(
            ("measured", f"{oldest} to {newest} UTC; the oldest is {max(0.0, days):.1f} days old")
        )
    return rows
