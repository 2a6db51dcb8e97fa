"""What is measured without a budget: the schedule is as short as with everything measured."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.synthetic import BOARDS, make_problem
from tvm_sphinx.cost.choose.decisive import Outlook, to_measure
from tvm_sphinx.cost.choose.intervals import ranges
from tvm_sphinx.scheduling.graph import TaskGraph
from tvm_sphinx.scheduling.problem import CANNOT_RUN, SchedulingProblem
from tvm_sphinx.search import search_schedule

GRAPHS = Path(__file__).parents[2] / "data" / "graphs"
BOARD = {board.name: board for board in BOARDS}
# A search that is no proof may find another schedule of the same problem, by luck.
LUCK = 0.005


@dataclass(frozen=True, eq=False)
class Bench:
    """A graph, what its kernels really take, and how often one was measured."""

    outlook: Outlook
    truth_ns: np.ndarray
    predicted_ns: np.ndarray
    spread_ns: np.ndarray

    def measure(self) -> tuple[np.ndarray, int]:
        """Return what was measured in the end, (K, C), and in how many rounds."""
        is_measured = ~np.isfinite(self.truth_ns)
        rounds = 0
        while True:
            times = ranges(self.predicted_ns, self.spread_ns, self.truth_ns, is_measured)
            wanted = to_measure(self.outlook, times, is_measured)
            if not wanted.any():
                return is_measured, rounds
            assert not (wanted & is_measured).any()
            is_measured = is_measured | wanted
            rounds += 1

    def makespan_ns(self, allowed: np.ndarray | None = None) -> int:
        """Return what the network takes, where a kernel runs only where it is allowed to."""
        exec_ns = self.outlook.exec_ns(self.truth_ns, allowed)
        found = search_schedule(self.outlook.problem(exec_ns)).best.makespan_ns
        return min(found, self.single_ns(allowed))

    def single_ns(self, allowed: np.ndarray | None = None) -> int:
        """Return what the best single device takes."""
        problem = self.outlook.alone(self.outlook.exec_ns(self.truth_ns, allowed))
        return search_schedule(problem, algorithm="single").best.makespan_ns


def read_graph(name: str) -> TaskGraph:
    return TaskGraph.from_json(json.loads(gzip.decompress((GRAPHS / f"{name}.json.gz").read_bytes())))


def bench_of(
    problem: SchedulingProblem,
    graph: TaskGraph,
    class_of: np.ndarray,
    error: Callable[[np.random.Generator, tuple[int, int]], np.ndarray],
) -> Bench:
    """Return a graph with the times of a problem, and predictions with errors as drawn (logarithms)."""
    names = list(dict.fromkeys(task.kernel for task in graph.tasks))
    kernel_of = np.array([names.index(task.kernel) for task in graph.tasks])
    truth = np.full((len(names), int(class_of.max()) + 1), np.inf)
    for device, kind in enumerate(class_of.tolist()):
        times = problem.exec_ns[:, device]
        truth[kernel_of, kind] = np.where(times == CANNOT_RUN, np.inf, times)
    rng = np.random.default_rng(0)
    predicted = np.where(np.isfinite(truth), truth, 1.0) * np.exp(error(rng, truth.shape))

    def with_times(exec_ns: np.ndarray) -> SchedulingProblem:
        return replace(problem, exec_ns=exec_ns)

    outlook = Outlook(kernel_of, class_of, with_times, with_times)
    return Bench(outlook, truth, predicted, 0.1 * predicted)


def of_the_models_size(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Return errors of which half are below 10 % and a quarter above 25 %, partly the kernel's own."""
    own, kernel = rng.standard_normal(shape), rng.standard_normal((shape[0], 1))
    heavy = np.where(rng.random(shape) < 0.15, 3.0, 1.0)
    return 0.1 / 0.6745 * heavy * (0.6 * kernel + 0.8 * own)


def three_times_off(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Return errors of the model's size, and a factor of three to either side for a class of devices."""
    factors = np.log(3.0) * (-1.0) ** np.arange(shape[1])
    return of_the_models_size(rng, shape) + factors


def noise(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Return errors of a factor of e, of which the predictor that claims 10 % knows nothing."""
    return rng.standard_normal(shape)


SMALL = ["bert_base", "densenet121", "inception_v1", "mobilenet_v2", "resnet18", "squeezenet", "swin_t"]


@pytest.mark.parametrize("board", list(BOARD))
@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("error", [of_the_models_size, three_times_off, noise])
def test_the_schedule_is_as_short_as_with_all_measured(
    name: str, board: str, error: Callable[[np.random.Generator, tuple[int, int]], np.ndarray]
) -> None:
    graph = read_graph(name)
    bench = bench_of(make_problem(graph, BOARD[board]), graph, np.arange(3), error)
    is_measured, _ = bench.measure()
    assert bench.makespan_ns(is_measured) <= (1 + LUCK + 0.005) * bench.makespan_ns()
    assert bench.single_ns(is_measured) == bench.single_ns()
    again = ranges(bench.predicted_ns, bench.spread_ns, bench.truth_ns, is_measured)
    assert not to_measure(bench.outlook, again, is_measured).any()  # who asks again is told the same
