"""How a long stage tells its progress, and how long each stage took."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

#: Called as ``progress(stage, done, total)`` whenever a step of a stage is done.
Progress = Callable[[str, int, int], None]


class StageClock:
    """Wall seconds of each stage, in order: ``with clock("search"): ...``."""

    def __init__(self) -> None:
        self.stages_s: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time what is done in the context."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.stages_s[stage] = time.perf_counter() - begin
