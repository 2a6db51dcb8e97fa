"""Cores that change while a program runs, or that are not those it was compiled for: the same bits."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from tests.runtime.modules import (
    assert_same,
    build,
    cores,
    flat,
    one_after_another,
    platforms,
    random_inputs,
    random_module,
)
from tvm_sphinx.platform import Device, Platform
from tvm_sphinx.platform.slow_cores import SLOW_VARIABLE
from tvm_sphinx.platform.targets import host_target

pytestmark = pytest.mark.skipif(len(set(cores())) < 2, reason="one core is all there is")


def _unlike(speeds: tuple[float, float], leader: int = 0) -> Platform:
    """Return a fast and a slow core, and both as a team that one of them leads."""
    fast, slow = cores()
    both = (fast, slow) if leader == 0 else (slow, fast)
    return Platform(
        (
            Device("fast", host_target(), "cpu:0", (fast,), core_kinds=("P",), core_speeds=speeds[:1]),
            Device("slow", host_target(), "cpu:0", (slow,), core_kinds=("E",), core_speeds=speeds[1:]),
            Device("both", host_target(), "cpu:0", both, core_speeds=speeds),
        )
    )


@pytest.mark.parametrize("speeds", [(1.0, 0.4), (1.0, 0.001), (0.2, 1.0)])
@pytest.mark.parametrize("leader", [0, 1])
def test_a_team_of_unlike_cores_gives_the_same_bits(
    speeds: tuple[float, float], leader: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who runs which part of a loop depends on speeds that are said and on those that are."""
    monkeypatch.setenv(SLOW_VARIABLE, f"{cores()[1]}:3")
    executable = build(random_module(7, 24), _unlike(speeds, leader), 4)
    inputs = random_inputs(executable)
    expected = one_after_another(executable, inputs)
    for seed in range(25):
        executable.delay_lanes(seed, 20_000)
        assert_same(flat(executable.run(inputs)), expected)


def test_affinity_that_is_narrowed_while_a_program_runs() -> None:
    """All threads are put on one core, then on the other, again and again: no hang, the same bits."""
    executable = build(random_module(3, 24), platforms()["sharing"], 1)
    inputs = random_inputs(executable)
    expected = one_after_another(executable, inputs)
    executable.run(inputs)
    ended = threading.Event()

    def narrow() -> None:
        turn = 0
        while not ended.is_set():
            for thread in os.listdir("/proc/self/task"):
                try:
                    os.sched_setaffinity(int(thread), {cores()[turn % 2]})
                except ProcessLookupError:
                    continue
            turn += 1
            ended.wait(0.005)

    before = os.sched_getaffinity(0)
    changing = threading.Thread(target=narrow)
    changing.start()
    try:
        for _ in range(150):
            assert_same(flat(executable.run(inputs)), expected)
    finally:
        ended.set()
        changing.join()
        for thread in os.listdir("/proc/self/task"):
            with contextlib.suppress(ProcessLookupError):  # it has ended since it was listed
                os.sched_setaffinity(int(thread), before)


_LOAD = """
import os, sys
import numpy as np
os.sched_setaffinity(0, {int(sys.argv[1])})
from tvm_sphinx.errors import PlatformError
from tvm_sphinx.runtime.executable import ConcurrentExecutable
executable = ConcurrentExecutable.load("one.sphinx")
print(executable.plan.cores)
result = executable.run(dict(np.load("in.npz")))
np.save("out.npy", np.from_dlpack(result if not isinstance(result, tuple) else result[0]))
try:
    ConcurrentExecutable.load("both.sphinx")
except PlatformError as error:
    print(error)
"""


def test_a_program_for_one_core_runs_where_only_another_is_allowed(tmp_path: Path) -> None:
    """One for both cores is refused there, with what leaves the other one out."""
    first, second = cores()
    platform = Platform(
        (
            Device("one", host_target(), "cpu:0", (first,)),
            Device("both", host_target(), "cpu:0", (first, second)),
        )
    )
    module = random_module(2, 12)
    drawn = build(module, platform)
    assert drawn.schedule is not None
    executable = build(module, platform, [0] * drawn.schedule.num_tasks)
    executable.save(tmp_path / "one.sphinx")
    build(module, platform, [1] * drawn.schedule.num_tasks).save(tmp_path / "both.sphinx")
    inputs = random_inputs(executable)
    np.savez(tmp_path / "in.npz", **dict(zip(executable.inputs, inputs, strict=True)))
    found = subprocess.run(
        [sys.executable, "-c", _LOAD, str(second)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    told = found.stdout.splitlines()
    assert told[0] == f"({second},)", found.stderr
    assert_same([np.load(tmp_path / "out.npy")], flat(executable.run(inputs))[:1])
    assert f"core {first} cannot be used" in told[1]
    assert f"allowed: {second}" in told[1]
