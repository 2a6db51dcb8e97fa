"""How a long stage tells its progress, and how long each stage took."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

#: Called as ``progress(stage, done, total)`` whenever a step of a stage is done.
Progress = Callable[[str, int, int], None]


class StageClock:
    """Wall seconds of each stage, in order: ``with clock("search"): ...``; one may go on later."""

    def __init__(self) -> None:
        self.stages_s: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time what is done in the context."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            taken_s = time.perf_counter() - begin
            self.stages_s[stage] = self.stages_s.get(stage, 0.0) + taken_s
