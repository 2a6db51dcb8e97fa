"""Why a task lies where it lies, held against hand-made schedules and against moving the task."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.report.decisions import drawn_decision
from tests.scheduling.test_replay import diamond
from tvm_sphinx.errors import SphinxError
from tvm_sphinx.report.why import (
    Analysis,
    critical_path,
    explain_tasks,
    find_waits,
    format_reasons,
    slack_ns,
)
from tvm_sphinx.scheduling.constraints import find_tasks, parse_pin
from tvm_sphinx.scheduling.problem import CANNOT_RUN
from tvm_sphinx.scheduling.replay import replay_schedule
from tvm_sphinx.scheduling.schedule import Schedule, validate


def test_waits_path_and_slack_of_a_diamond() -> None:
    """0..10 on a, 10..40 on a beside 15..55 on b, 60..70 on a: the copies of 5 are on the path."""
    problem = diamond()
    schedule = replay_schedule(problem, np.array([0, 0, 1, 0]), [0, 1, 2, 3])
    waits = find_waits(problem, schedule)
    assert [(wait.cause, wait.after, wait.copy_ns) for wait in waits] == [
        ("start", None, 0),
        ("data", 0, 0),
        ("data", 0, 5),
        ("data", 2, 5),
    ]
    assert critical_path(problem, schedule, waits) == [0, 2, 3]
    assert slack_ns(problem, schedule).tolist() == [0, 20, 0, 0]
    # Both readers on one core: the second waits for it.
    serial = replay_schedule(problem, np.array([0, 0, 0, 0]), [0, 1, 2, 3])
    assert find_waits(problem, serial)[2] == ("core", 1, 0)
    assert slack_ns(problem, serial).tolist() == [0, 0, 0, 0]


def test_a_task_may_end_later_by_its_slack_and_no_more() -> None:
    decision, graph = drawn_decision(4)
    problem, schedule = decision.problem, decision.schedule
    slack = slack_ns(problem, schedule)
    assert slack.min() == 0
    for task in range(graph.num_tasks):
        for more, is_longer in ((0, False), (1, True)):
            times = problem.exec_ns.copy()
            times[task, schedule.device[task]] += slack[task] + more
            slower = replace(problem, exec_ns=times)
            replayed = replay_schedule(slower, schedule.device, schedule.order)
            assert (replayed.makespan_ns > schedule.makespan_ns) == is_longer


def test_alternatives_are_what_moving_costs() -> None:
    decision, graph = drawn_decision(3)
    reasons = Analysis(decision, graph).reasons(5)
    for device, one in enumerate(reasons.alternatives):
        place = decision.schedule.device.copy()
        place[5] = device
        moved = replay_schedule(decision.problem, place, decision.schedule.order)
        assert one.moved_ns == moved.makespan_ns
        assert one.exec_ns == decision.exec_ns[5, device]


def test_what_binds_is_said() -> None:
    decision, graph = drawn_decision(3, pins=(parse_pin("matmul=both"),))
    (reasons,) = explain_tasks(decision, graph, "matmul_5")
    assert "a pin keeps it off core0, core1 (matmul=both)" in reasons.binds
    assert "both shares cores with core0, core1: while it runs, they wait" in reasons.binds
    assert [one.moved_ns for one in reasons.alternatives][:2] == [-1, -1]
    text = format_reasons(reasons, decision)
    assert "forbidden by a pin" in text
    assert "matmul (net.py:6:" in text
    critical = [Analysis(decision, graph).reasons(task) for task in Analysis(decision, graph).path]
    assert all(any("on the critical path" in told for told in one.binds) for one in critical)


def test_a_device_that_was_left_out_is_said_to_be_so() -> None:
    decision, graph = drawn_decision(3)
    (task,) = find_tasks(graph, "matmul_5")
    here = int(decision.schedule.device[task])
    there = (here + 1) % decision.problem.num_devices
    exec_ns, measured = decision.problem.exec_ns.copy(), decision.measured.copy()
    exec_ns[task, there], measured[task, there] = CANNOT_RUN, False
    problem = replace(decision.problem, exec_ns=exec_ns)
    schedule = replace(decision.schedule, problem_fingerprint=problem.fingerprint)
    decided = replace(decision, problem=problem, schedule=schedule, measured=measured)
    (reasons,) = explain_tasks(decided, graph, "matmul_5")
    name = problem.devices[there]
    assert f"it was not measured on {name}, where it is predicted to gain too little" in reasons.binds
    text = format_reasons(reasons, decided)
    assert "left out" in text
    assert "pin" not in text


def test_tasks_are_found_by_number_name_and_source() -> None:
    decision, graph = drawn_decision(20)
    assert [one.task for one in explain_tasks(decision, graph, "7")] == [7]
    assert [one.task for one in explain_tasks(decision, graph, "block3")] == [15]
    with pytest.raises(SphinxError, match="'conv2d' names 20 tasks; expected at most 12"):
        explain_tasks(decision, graph, "conv2d")


def test_a_decision_survives_json() -> None:
    decision, _ = drawn_decision(2)
    again = type(decision).from_json(decision.to_json())
    assert again.to_json() == decision.to_json()
    assert isinstance(again.schedule, Schedule)
    validate(again.problem, again.schedule)
