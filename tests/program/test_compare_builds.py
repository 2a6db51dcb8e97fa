"""The race of two builds: their ratio, within a time limit, with its progress told."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tvm_sphinx.program import compare_builds
from tvm_sphinx.program.compare_builds import race


class Racer:
    """Takes a fixed time for a run, by a clock of its own."""

    def __init__(self, clock: list[float], once_s: float) -> None:
        self.clock, self.once_s, self.runs = clock, once_s, 0

    def durations_ns(self, _: Any, count: int) -> np.ndarray:
        self.clock[0] += (count + 1) * self.once_s
        self.runs += count + 1
        return np.full(count, round(1e9 * self.once_s))


@pytest.mark.parametrize(("once_s", "most_s", "rounds"), [(0.001, 15.0, 15), (1.0, 25.0, 3)])
def test_a_slow_model_is_raced_for_as_long_as_the_limit_allows(
    once_s: float, most_s: float, rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(compare_builds.time, "monotonic", lambda: clock[0])
    mine, other = Racer(clock, once_s), Racer(clock, 2 * once_s)
    told: list[tuple[str, int, int]] = []
    ratio = race(mine, other, {}, lambda *step: told.append(step), limit_s=10.0)  # type: ignore[arg-type]
    assert ratio == 2.0
    assert clock[0] <= most_s
    assert (told[0][1], told[-1][1:]) == (0, (15, 15))
    assert len({done for _, done, _ in told if done > 0}) >= rounds
