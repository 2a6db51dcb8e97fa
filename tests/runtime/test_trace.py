"""Traces: what they hold of a run, and what is drawn from them."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
import pytest

from tests.runtime.modules import build, platforms, random_inputs, random_module
from tvm_sphinx.errors import InvalidScheduleError
from tvm_sphinx.program.kinds import flatten_outputs
from tvm_sphinx.report.timeline import timeline_html, timeline_svg, timeline_text
from tvm_sphinx.runtime.executable import ConcurrentExecutable
from tvm_sphinx.runtime.image import Image
from tvm_sphinx.runtime.trace import Trace
from tvm_sphinx.scheduling.schedule import Schedule


def traced(seed: int = 3) -> tuple[ConcurrentExecutable, Trace]:
    executable = build(random_module(seed, 20), platforms()["sharing"], seed)
    executable.delay_lanes(seed + 1, 50_000)
    return executable, executable.run_traced(random_inputs(executable))[1]


@pytest.mark.parametrize("seed", range(5))
def test_measured_times_keep_every_order(seed: int) -> None:
    trace = traced(seed)[1]
    assert min(step.begin_ns for step in trace.steps) == 0
    for step in trace.steps:
        assert step.begin_ns <= step.end_ns <= trace.makespan_ns
        for other in (*step.producers, *step.previous):
            assert trace.steps[other].end_ns <= step.begin_ns
    for core in {core for cores in trace.device_cores for core in cores}:
        held = [s for s in trace.steps if core in trace.device_cores[s.device]]
        for earlier, later in pairwise(held):
            assert earlier.end_ns <= later.begin_ns, "two steps held one core at once"


def test_predictions_are_the_schedules() -> None:
    executable, trace = traced()
    schedule = executable.schedule
    tasks = [step.task for step in trace.steps if step.kind != "copy"]
    assert sorted(tasks) == list(range(schedule.num_tasks))
    for step in trace.steps:
        if step.task is not None:
            planned = (int(schedule.start_ns[step.task]), int(schedule.finish_ns[step.task]))
            assert step.predicted_ns == planned
            assert step.device == schedule.device[step.task]


def test_critical_path_explains_the_makespan() -> None:
    _, trace = traced()
    path = trace.critical_path()
    assert path[0].cause == "start"
    total = sum(link.gap_ns + trace.steps[link.step].duration_ns for link in path)
    assert total == trace.makespan_ns
    for earlier, later in pairwise(path):
        assert later.after == earlier.step


def test_chrome_trace_has_a_row_for_each_device_and_an_arrow_for_each_crossing() -> None:
    _, trace = traced()
    events = json.loads(trace.to_chrome())["traceEvents"]
    rows = [e["args"]["name"] for e in events if e["name"] == "thread_name" and e["pid"] == 1]
    assert [re.sub(r" \(.*", "", row) for row in rows[:3]] == ["one", "two", "both"]
    slices = [e for e in events if e["ph"] == "X" and e["pid"] == 1]
    assert len(slices) == len(trace.steps)
    crossings = list(trace.crossings())
    assert crossings
    for kind in "sf":
        assert sum(e["ph"] == kind for e in events) == len(crossings)
    predicted = [e for e in events if e["ph"] == "X" and e["pid"] == 2]
    assert len(predicted) == sum(step.predicted_ns is not None for step in trace.steps)


def test_trace_without_a_schedule_has_no_predictions() -> None:
    executable, _ = traced()
    image = executable.image
    bare = ConcurrentExecutable(Image(image.program, image.platform, None, image.weights, image.library))
    trace = bare.run_traced(random_inputs(bare))[1]
    assert trace.predicted_makespan_ns is None
    assert not [e for e in json.loads(trace.to_chrome())["traceEvents"] if e["pid"] == 2]
    assert "predicted" not in timeline_text(trace).splitlines()[0]
    ElementTree.fromstring(timeline_svg(trace))


def test_schedule_of_another_program_is_refused() -> None:
    executable, _ = traced()
    image = executable.image
    placed = executable.schedule
    moved = Schedule((placed.device + 1) % 3, placed.start_ns, placed.finish_ns, 1, 0, "")
    with pytest.raises(InvalidScheduleError, match="on device"):
        ConcurrentExecutable(Image(image.program, image.platform, moved, image.weights, image.library))
    short = Schedule([0], [0], [1], 1, 0, "")
    with pytest.raises(InvalidScheduleError, match="got one of 1"):
        ConcurrentExecutable(Image(image.program, image.platform, short, image.weights, image.library))


def test_drawings_need_no_network_and_no_scripts() -> None:
    _, trace = traced()
    page = timeline_html(trace, "a <model> & its lanes")
    assert "a &lt;model&gt; &amp; its lanes" in page
    assert "<script" not in page
    links = [link for link in re.findall(r"https?://[^\"' ]+", page) if "www.w3.org" not in link]
    assert not links
    svg = ElementTree.fromstring(timeline_svg(trace))
    bars = [node for node in svg.iter() if node.tag.endswith("rect")]
    drawn = len(trace.steps) + sum(step.predicted_ns is not None for step in trace.steps)
    assert len(bars) == drawn + 1


def test_text_names_what_each_link_waited_for() -> None:
    _, trace = traced()
    text = timeline_text(trace)
    assert text.startswith("measured ")
    assert "the start of the run" in text
    assert "the result of" in text or "its core, taken by" in text
    for step in trace.steps:
        assert step.name in text


def test_runs_before_a_trace_change_nothing_of_it() -> None:
    executable, _ = traced()
    inputs = random_inputs(executable)
    cold, first = executable.run_traced(inputs)
    warm, second = executable.run_traced(inputs, warm_runs=3)
    for one, other in zip(flatten_outputs(cold), flatten_outputs(warm), strict=True):
        np.testing.assert_array_equal(one, other)
    assert [step.name for step in first.steps] == [step.name for step in second.steps]
