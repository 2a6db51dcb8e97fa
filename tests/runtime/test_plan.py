"""Plans: what may overlap in memory, who waits for whom, and that nothing is left to luck."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvm_sphinx.errors import ArtifactError, UnsupportedError
from tvm_sphinx.platform import Device, Platform
from tvm_sphinx.runtime.plan import ALIGNMENT, LanePlan, happens_before, make_plan
from tvm_sphinx.runtime.program import Buffer, LaneProgram, Step, TensorView

_LAYOUTS = (
    ((0,),),
    ((0,), (1,)),
    ((0,), (1,), (0, 1)),
    ((0, 1), (1, 2), (2,), (0, 1, 2)),
    ((0,), (0,)),
)


def platform_of(layout: tuple[tuple[int, ...], ...]) -> Platform:
    return Platform(
        tuple(Device(f"d{i}", '{"kind": "llvm"}', "cpu:0", cores) for i, cores in enumerate(layout))
    )


@st.composite
def programs(draw: st.DrawFn) -> tuple[LaneProgram, Platform]:
    """Programs of random wiring, buffer sizes and devices, with outputs among their results."""
    layout = draw(st.sampled_from(_LAYOUTS))
    buffers = [Buffer("input", 0, 64)]
    tensors = [TensorView(0, (16,), "float32")]
    steps = []
    for index in range(draw(st.integers(0, 24))):
        reads = draw(st.lists(st.integers(0, len(tensors) - 1), min_size=1, max_size=3))
        outputs = []
        for _ in range(draw(st.integers(1, 2))):
            extent = draw(st.integers(0, 200))
            buffers.append(Buffer("arena", len(buffers), 4 * extent))
            tensors.append(TensorView(len(buffers) - 1, (extent,), "float32"))
            outputs.append(len(tensors) - 1)
        device = draw(st.integers(0, len(layout) - 1))
        steps.append(Step(f"s{index}", "nothing", device, "", (*reads, *outputs), len(outputs)))
    program = LaneProgram(tuple(buffers), tuple(tensors), tuple(steps), ("x",), (0,), (), [])
    return program, platform_of(layout)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(programs())
def test_every_step_comes_after_what_it_reads(drawn: tuple[LaneProgram, Platform]) -> None:
    plan = make_plan(*drawn)
    before = happens_before(plan)
    for step in range(len(plan.program.steps)):
        for producer in plan.program.producers(step):
            assert before[step] >> producer & 1


@settings(max_examples=150, deadline=None, derandomize=True)
@given(programs())
def test_devices_that_share_a_core_take_turns_in_order(drawn: tuple[LaneProgram, Platform]) -> None:
    program, platform = drawn
    before = happens_before(make_plan(program, platform))
    for later, step in enumerate(program.steps):
        cores = set(platform.devices[step.device].cores)
        for earlier in range(later):
            if cores & set(platform.devices[program.steps[earlier].device].cores):
                assert before[later] >> earlier & 1


@settings(max_examples=150, deadline=None, derandomize=True)
@given(programs())
def test_buffers_overlap_only_when_all_readers_came_before(drawn: tuple[LaneProgram, Platform]) -> None:
    plan = make_plan(*drawn)
    arena = [b for b in plan.program.space_buffers("arena") if plan.program.buffers[b].bytes]
    for first in arena:
        end = plan.offsets[first] + plan.program.buffers[first].bytes
        assert plan.offsets[first] % ALIGNMENT == 0
        assert end <= plan.arena_bytes
        for second in arena:
            if first < second and overlap(plan, first, second):
                assert dead_before(plan, first, second) or dead_before(plan, second, first)


def overlap(plan: LanePlan, first: int, second: int) -> bool:
    ends = [plan.offsets[b] + plan.program.buffers[b].bytes for b in (first, second)]
    return plan.offsets[first] < ends[1] and plan.offsets[second] < ends[0]


def dead_before(plan: LanePlan, old: int, new: int) -> bool:
    """Whether all that touch the old buffer have ended when the new one is written."""
    before = happens_before(plan)[plan.program.writer[new]]
    touching = (plan.program.writer[old], *plan.program.readers.get(old, ()))
    return all(before >> step & 1 for step in touching)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(programs())
def test_no_wait_is_implied_by_the_others(drawn: tuple[LaneProgram, Platform]) -> None:
    plan = make_plan(*drawn)
    before = happens_before(plan)
    for step, waits in enumerate(plan.waits):
        for wait in waits:
            assert plan.leader(wait) != plan.leader(step)
            assert not any(before[other] >> wait & 1 for other in waits if other != wait)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(programs())
def test_program_survives_json(drawn: tuple[LaneProgram, Platform]) -> None:
    program, _ = drawn
    assert LaneProgram.from_json(json.loads(json.dumps(program.to_json()))) == program


def chain(num_steps: int, devices: list[int]) -> LaneProgram:
    buffers = [Buffer("input", 0, 400), *(Buffer("arena", i + 1, 400) for i in range(num_steps))]
    tensors = [TensorView(i, (100,), "float32") for i in range(num_steps + 1)]
    steps = [Step(f"s{i}", "nothing", devices[i], "", (i, i + 1), 1) for i in range(num_steps)]
    return LaneProgram(tuple(buffers), tuple(tensors), tuple(steps), ("x",), (0,), (num_steps,), 0)


def test_chain_needs_two_buffers() -> None:
    plan = make_plan(chain(8, [0, 1] * 4), platform_of(((0,), (1,))))
    assert plan.arena_bytes == 2 * 512
    assert plan.total_bytes == 8 * 400


def test_branches_on_two_lanes_do_not_share_memory() -> None:
    """Nothing orders the two branches, so each keeps its own buffers, whatever the schedule's times."""
    buffers = [Buffer("input", 0, 400), *(Buffer("arena", i + 1, 400) for i in range(4))]
    tensors = [TensorView(i, (100,), "float32") for i in range(5)]
    wiring = [(0, 1), (0, 2), (1, 3), (2, 4)]
    steps = [Step(f"s{i}", "nothing", i % 2, "", pair, 1) for i, pair in enumerate(wiring)]
    program = LaneProgram(tuple(buffers), tuple(tensors), tuple(steps), ("x",), (0,), (), [])
    assert make_plan(program, platform_of(((0,), (1,)))).arena_bytes == 4 * 512
    assert make_plan(program, platform_of(((0,), (0,)))).arena_bytes == 3 * 512


def test_loops_are_shared_out_by_what_bounds_the_kernel() -> None:
    """Cores of one team differ less in what they read of memory than in what they compute."""
    pair = Device(
        "pair",
        '{"kind": "llvm"}',
        "cpu:0",
        (0, 1),
        core_speeds=(1.0, 0.25),
        core_memory_speeds=(1.0, 0.8),
    )
    program = chain(4, [0] * 4)
    steps = [replace(step, memory_bound=i % 2 == 1) for i, step in enumerate(program.steps)]
    plan = make_plan(replace(program, steps=tuple(steps)), Platform((pair,)))
    assert list(plan.teams) == [((0, 1), (1.0, 0.25)), ((0, 1), (1.0, 0.8))]
    for worker in plan.entries:
        assert [entry.team for entry in worker] == [0, 1, 0, 1]
    without = Platform((replace(pair, core_memory_speeds=()),))
    assert list(make_plan(replace(program, steps=tuple(steps)), without).teams) == [
        ((0, 1), (1.0, 0.25))
    ]


def test_device_that_lanes_do_not_know_is_refused_by_name() -> None:
    devices = (Device("cpu", '{"kind": "llvm"}', "cpu:0", (0,)), Device("gpu", "{}", "vulkan:0"))
    with pytest.raises(UnsupportedError, match="'gpu' is vulkan:0"):
        make_plan(chain(2, [0, 1]), Platform(devices))


def test_program_that_reads_before_writing_is_refused() -> None:
    content = chain(2, [0, 0]).to_json()
    content["steps"] = list(content["steps"])[::-1]
    with pytest.raises(ArtifactError, match="holds together"):
        LaneProgram.from_json(content)
