from typing import final

from numpy import int64
from numpy.typing import NDArray

_Array = NDArray[int64]
_Plan = tuple[int, bytes, bytes, bytes]

@final
class Problem:
    def __new__(
        cls,
        exec_ns: _Array,
        release_ns: _Array,
        delivery_ns: _Array,
        edges: _Array,
        copy_class: _Array,
        copy_ns: _Array,
        resource_begin: _Array,
        resources: _Array,
        set_of_task: _Array,
        memory_bytes: _Array,
        weight_bytes: _Array,
        output_bytes: _Array,
        num_resources: int,
        num_sets: int,
    ) -> Problem: ...
    def heuristic(self, kind: int, only: int = 0, /) -> _Plan: ...
    def coarsen(self, target: int, /) -> tuple[int, bytes]: ...
    def lower_bound(self) -> int: ...
    def series(self, max_states: int, max_work: int, /) -> tuple[_Plan | None, int, int, int, bytes]: ...
    def memory_overflow(self, device: _Array, finish: _Array, /) -> int: ...
    def decode(self, order: _Array, device: _Array, rule: int, repeats: int = 1, /) -> _Plan: ...

@final
class Search:
    def __new__(cls, problem: Problem, params: _Array, seed: int) -> Search: ...
    def start(self, order: _Array, device: _Array, /) -> None: ...
    def run(self, max_evaluations: int, horizon: int, /) -> None: ...
    def best(self) -> _Plan: ...
    def progress(self) -> tuple[int, int, int, int]: ...
