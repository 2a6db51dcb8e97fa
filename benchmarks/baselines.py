"""What CPGA is measured against: random search, a plain GA, greedy correction.

All value their schedules with the native decoder, from a seed and within a `Stop`.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from tvm_sphinx.scheduling.problem import CANNOT_RUN, Int64Array, SchedulingProblem
from tvm_sphinx.scheduling.schedule import validate
from tvm_sphinx.search import HistoryPoint, NoRoomError, SearchResult, Stop, search_schedule
from tvm_sphinx.search.bounds import lower_bound_ns
from tvm_sphinx.search.native import (
    INSERT,
    NativePlan,
    colocated_sets,
    native_problem,
    to_int64,
    to_schedule,
)

#: Evaluations of a baseline that is given no budget.
DEFAULT_EVALUATIONS = 20_000

_POPULATION = 100
_TOURNAMENT = 3


class _BudgetSpentError(Exception):
    """Ends a baseline from wherever it is."""


class Evaluator:
    """Decodes orders and devices with insertion, keeps the best, and ends when the budget is spent."""

    def __init__(self, problem: SchedulingProblem, stop: Stop | None) -> None:
        self.problem, self.native = problem, native_problem(problem)
        self.stop = stop or Stop(max_evaluations=DEFAULT_EVALUATIONS)
        self.bound_ns = lower_bound_ns(problem)
        self.begin_s, self.begin_cpu_s = time.monotonic(), time.thread_time()
        self.evaluations = self.last_improvement = 0
        self.history: list[HistoryPoint] = []
        self.best: NativePlan | None = None
        self.reason = "stagnation"
        self.set_of_task = colocated_sets(problem)
        count = len(np.unique(self.set_of_task))
        #: Tasks that share a device, and the devices that can run them all.
        self.sets = [np.flatnonzero(self.set_of_task == number) for number in range(count)]
        can_run = problem.exec_ns != CANNOT_RUN
        self.choices = [np.flatnonzero(can_run[tasks].all(axis=0)) for tasks in self.sets]
        order = to_int64(self.native.heuristic(0)[1])
        self.rank_order: Int64Array = order

    def value(self, order: Int64Array, device: Int64Array) -> tuple[int, Int64Array]:
        """Return the makespan and the finish times; a schedule that lacks memory counts as endless."""
        elapsed_s, cpu_s = time.monotonic() - self.begin_s, time.thread_time() - self.begin_cpu_s
        stale = self.evaluations - self.last_improvement
        reason = self.stop.reason(self.evaluations, stale, elapsed_s, cpu_s)
        if reason is not None:
            self.reason = reason
            raise _BudgetSpentError
        plan = self.native.decode(order, device, INSERT)
        self.evaluations += 1
        if self.native.memory_overflow(device, to_int64(plan[3])):
            return np.iinfo(np.int64).max, to_int64(plan[3])
        if self.best is None or plan[0] < self.best[0]:
            self.best, self.last_improvement = plan, self.evaluations
            self.history.append(HistoryPoint(self.evaluations, cpu_s, plan[0]))
            if plan[0] <= self.bound_ns:
                self.reason = "optimal"
                raise _BudgetSpentError
        return plan[0], to_int64(plan[3])

    def spread(self, chosen: list[Int64Array] | Int64Array) -> Int64Array:
        """Return the device of every task from that of every set."""
        devices: Int64Array = np.asarray(chosen, dtype=np.int64)[self.set_of_task]
        return devices

    def random_device(self, rng: np.random.Generator) -> Int64Array:
        """Return a random device for every task, one for all tasks of a set."""
        return self.spread([rng.choice(choices) for choices in self.choices])

    def fastest_device(self) -> Int64Array:
        """Return the device on which each set takes the least time in all."""
        return self.spread(
            [
                choices[self.problem.exec_ns[tasks][:, choices].sum(axis=0).argmin()]
                for tasks, choices in zip(self.sets, self.choices, strict=True)
            ]
        )

    def result(self, name: str, seed: int, search: Callable[[], None]) -> SearchResult:
        """Run a search until it returns or its budget is spent."""
        try:
            search()
        except _BudgetSpentError:
            pass
        except KeyboardInterrupt:
            self.reason = "interrupted"
        if self.best is None:
            raise NoRoomError("Found no schedule that fits the memory within the budget.")
        return SearchResult(
            best=to_schedule(self.problem, self.best, self.bound_ns),
            algorithm=name,
            seed=seed,
            history=tuple(self.history),
            evaluations=self.evaluations,
            runtime_s=time.monotonic() - self.begin_s,
            stop_reason=self.reason,
        )


def random_topological_order(problem: SchedulingProblem, rng: np.random.Generator) -> Int64Array:
    """Return a random topological order: of the ready tasks any may be next."""
    waiting = np.bincount(problem.edges[:, 1], minlength=problem.num_tasks)
    followers: list[list[int]] = [[] for _ in range(problem.num_tasks)]
    for src, dst in problem.edges.tolist():
        followers[src].append(dst)
    ready = np.flatnonzero(waiting == 0).tolist()
    order = []
    while ready:
        pick = int(rng.integers(len(ready)))
        ready[pick], ready[-1] = ready[-1], ready[pick]
        order.append(ready.pop())
        for follower in followers[order[-1]]:
            waiting[follower] -= 1
            if not waiting[follower]:
                ready.append(follower)
    return np.array(order, dtype=np.int64)


def random_search(
    problem: SchedulingProblem,
    *,
    seed: int = 0,
    stop: Stop | None = None,
) -> SearchResult:
    """Draw random orders and devices: the floor of every comparison."""
    evaluator, rng = Evaluator(problem, stop), np.random.default_rng(seed)

    def search() -> None:
        while True:
            order = random_topological_order(problem, rng)
            evaluator.value(order, evaluator.random_device(rng))

    return evaluator.result("random", seed, search)


def plain_ga(
    problem: SchedulingProblem,
    *,
    seed: int = 0,
    stop: Stop | None = None,
) -> SearchResult:
    """Run a genetic search that knows no critical path and no local search.

    Order and devices as in Omara, Arafa: "Genetic algorithms for task scheduling problem", JPDC 70(1),
    2010: one-point crossover of topological orders, uniform crossover of devices, elitist.
    """
    evaluator, rng = Evaluator(problem, stop), np.random.default_rng(seed)

    def search() -> None:
        members: list[tuple[int, Int64Array, Int64Array]] = []
        for member in range(_POPULATION):
            device = evaluator.fastest_device() if member == 0 else evaluator.random_device(rng)
            members.append(
                (evaluator.value(evaluator.rank_order, device)[0], evaluator.rank_order, device)
            )
        while problem.num_tasks:
            first, second = (
                min((members[i] for i in rng.integers(len(members), size=_TOURNAMENT)), key=_makespan)
                for _ in range(2)
            )
            order, device = _crossover(evaluator, first, second, rng)
            makespan = evaluator.value(order, device)[0]
            worst = max(range(len(members)), key=lambda i: members[i][0])
            if makespan < members[worst][0]:
                members[worst] = (makespan, order, device)

    return evaluator.result("ga", seed, search)


def _makespan(member: tuple[int, Int64Array, Int64Array]) -> int:
    return member[0]


def _crossover(
    evaluator: Evaluator,
    first: tuple[int, Int64Array, Int64Array],
    second: tuple[int, Int64Array, Int64Array],
    rng: np.random.Generator,
) -> tuple[Int64Array, Int64Array]:
    num_tasks = len(first[1])
    cut = int(rng.integers(num_tasks + 1))
    prefix = first[1][:cut]
    order = np.concatenate([prefix, second[1][~np.isin(second[1], prefix)]])
    count = len(evaluator.sets)
    leaders = np.array([tasks[0] for tasks in evaluator.sets])
    from_first = rng.random(count) < 0.5
    chosen = np.where(from_first, first[2][leaders], second[2][leaders])
    for number in np.flatnonzero(rng.random(count) < 2.0 / count).tolist():
        chosen[number] = rng.choice(evaluator.choices[number])
    return order, evaluator.spread(chosen)


def greedy_correction(
    problem: SchedulingProblem,
    *,
    seed: int = 0,
    stop: Stop | None = None,
) -> SearchResult:
    """Start from the fastest device of each task, and correct one placement at a time while it helps.

    After the greedy-correction scheduler of DUET (Zhang, Hu, Fang, He, He: "DUET: a compiler-runtime
    subgraph scheduling approach for tensor programs on a coupled CPU-GPU architecture", IPDPS 2021),
    on tasks instead of subgraphs and on any number of devices.
    """
    evaluator = Evaluator(problem, stop)

    def search() -> None:
        device = evaluator.fastest_device()
        best = evaluator.value(evaluator.rank_order, device)[0]
        improved = True
        while improved:
            improved = False
            for tasks, choices in zip(evaluator.sets, evaluator.choices, strict=True):
                for to in choices.tolist():
                    trial = device.copy()
                    trial[tasks] = to
                    makespan = evaluator.value(evaluator.rank_order, trial)[0]
                    if makespan < best:
                        best, device, improved = makespan, trial, True

    return evaluator.result("greedy", seed, search)


#: The peers by name.
BASELINES: dict[str, Callable[..., SearchResult]] = {
    "ga": plain_ga,
    "greedy": greedy_correction,
    "random": random_search,
}


def search_with(
    problem: SchedulingProblem, algorithm: str, *, seed: int = 0, stop: Stop | None = None
) -> SearchResult:
    """Search with one of these peers, or with an algorithm of the package."""
    if algorithm not in BASELINES:
        return search_schedule(problem, algorithm=algorithm, seed=seed, stop=stop)
    found = BASELINES[algorithm](problem, seed=seed, stop=stop)
    validate(problem, found.best)
    return found
