"""The peers, as strong as they can be made: our seeds, our encoding, our native decoder.

Each returns (best makespan in ns, CPU seconds at which it was found, evaluations by then; 0 for CP-SAT,
which values no schedules). GAs decode by the rule that they are given, append or insertion.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from functools import partial

import numpy as np

from tvm_sphinx.scheduling.problem import SchedulingProblem
from tvm_sphinx.search import search_schedule
from tvm_sphinx.search.exact_model import ExactModel
from tvm_sphinx.search.native import APPEND, INSERT, native_problem, to_int64

POPULATION = 100


class Budget(Exception):  # noqa: N818 - not an error
    """The CPU time is used up."""


class Objective:
    """Priorities (N numbers) and devices (N numbers in [0, D)) to a makespan, best and time kept."""

    def __init__(self, problem: SchedulingProblem, cpu_s: float, rule: int) -> None:
        self.problem, self.native, self.rule = problem, native_problem(problem), rule
        self.end = time.thread_time() + cpu_s
        self.begin = time.thread_time()
        self.evaluations = 0
        self.best, self.best_s, self.best_evaluations = np.iinfo(np.int64).max, 0.0, 0
        self.preds: list[list[int]] = [[] for _ in range(problem.num_tasks)]
        for src, dst in problem.edges.tolist():
            self.preds[dst].append(src)

    def order(self, keys: np.ndarray) -> np.ndarray:
        """Make keys feasible: no task before its predecessors."""
        level = np.array(keys, dtype=np.float64)
        for task, preds in enumerate(self.preds):
            for pred in preds:
                if level[pred] >= level[task]:
                    level[task] = np.nextafter(level[pred], np.inf)
        return np.argsort(level, kind="stable")

    def __call__(self, vector: np.ndarray) -> int:
        """Return the makespan of a vector."""
        if time.thread_time() >= self.end:
            raise Budget
        num = self.problem.num_tasks
        device = np.clip(vector[num:].astype(np.int64), 0, self.problem.num_devices - 1)
        value = self.native.decode(self.order(vector[:num]), device, self.rule)[0]
        self.evaluations += 1
        if value < self.best:
            self.best, self.best_evaluations = value, self.evaluations
            self.best_s = time.thread_time() - self.begin
        return value

    def seeds(self) -> list[np.ndarray]:
        """Return HEFT, CPOP, PEFT, fastest device and every single device as vectors."""
        vectors = []
        for kind, only in [(0, 0), (1, 0), (2, 0), (3, 0)] + [
            (4, d) for d in range(self.problem.num_devices)
        ]:
            try:
                _, order, device, _ = self.native.heuristic(kind, only)
            except ValueError:
                continue
            keys = np.empty(self.problem.num_tasks)
            keys[to_int64(order)] = np.arange(self.problem.num_tasks) / self.problem.num_tasks
            vectors.append(np.concatenate([keys, to_int64(device) + 0.5]))
        return vectors

    def random(self, rng: np.random.Generator) -> np.ndarray:
        """Return the order of HEFT with random devices."""
        vector = self.seeds()[0].copy()
        vector[self.problem.num_tasks :] = rng.uniform(
            0, self.problem.num_devices, self.problem.num_tasks
        )
        return vector

    def result(self) -> tuple[int, float, int]:
        """Return the best makespan, when it was found, and after how many evaluations."""
        return int(self.best), self.best_s, self.best_evaluations


def pymoo_ga(problem: SchedulingProblem, cpu_s: float, rule: int = INSERT) -> tuple[int, float, int]:
    """Run pymoo's GA with its default real-coded operators."""
    from pymoo.algorithms.soo.nonconvex.ga import GA
    from pymoo.core.problem import ElementwiseProblem
    from pymoo.optimize import minimize

    objective = Objective(problem, cpu_s, rule)
    num = problem.num_tasks
    upper = np.concatenate([np.ones(num), np.full(num, problem.num_devices - 1e-9)])

    class Task(ElementwiseProblem):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(n_var=2 * num, n_obj=1, xl=np.zeros(2 * num), xu=upper)

        def _evaluate(self, x: np.ndarray, out: dict[str, object], *_: object, **__: object) -> None:
            out["F"] = objective(x)

    rng = np.random.default_rng(0)
    first = objective.seeds()
    first += [objective.random(rng) for _ in range(POPULATION - len(first))]
    with contextlib.suppress(Budget):
        minimize(Task(), GA(pop_size=POPULATION, sampling=np.array(first)), ("n_gen", 10**9), seed=0)
    return objective.result()


def deap_ga(problem: SchedulingProblem, cpu_s: float, rule: int = INSERT) -> tuple[int, float, int]:
    """Run a generational GA of DEAP's tools: two-point crossover, tournaments of three."""
    import random

    from deap import algorithms, base, creator, tools

    objective = Objective(problem, cpu_s, rule)
    rng, num = np.random.default_rng(0), problem.num_tasks
    random.seed(0)
    if not hasattr(creator, "ScheduleVector"):
        creator.create("Shortest", base.Fitness, weights=(-1.0,))
        creator.create("ScheduleVector", list, fitness=creator.Shortest)

    def mutate(vector: list[float]) -> tuple[list[float]]:
        for i in range(2 * num):
            if random.random() < 1.0 / num:
                vector[i] = random.random() * (1.0 if i < num else problem.num_devices)
        return (vector,)

    toolbox = base.Toolbox()
    toolbox.register("evaluate", lambda vector: (objective(np.array(vector)),))
    toolbox.register("mate", tools.cxTwoPoint)
    toolbox.register("mutate", mutate)
    toolbox.register("select", tools.selTournament, tournsize=3)
    first = objective.seeds()
    first += [objective.random(rng) for _ in range(POPULATION - len(first))]
    members = [creator.ScheduleVector(vector.tolist()) for vector in first]
    with contextlib.suppress(Budget):
        algorithms.eaMuPlusLambda(
            members, toolbox, POPULATION, POPULATION, 0.7, 0.3, ngen=10**9, verbose=False
        )
    return objective.result()


def cp_sat(problem: SchedulingProblem, cpu_s: float) -> tuple[int, float, int]:
    """Run CP-SAT on one thread with HEFT's schedule as its hint; the time is that of the whole run."""
    first = search_schedule(problem, algorithm="heft").best
    begin = time.process_time()
    model = ExactModel(problem, first.makespan_ns)
    model.hint(first)
    best, _ = model.solve(cpu_s, num_workers=1, seed=0)
    return (best or first).makespan_ns, time.process_time() - begin, 0


PEERS: dict[str, Callable[[SchedulingProblem, float], tuple[int, float, int]]] = {
    "pymoo": partial(pymoo_ga, rule=INSERT),
    "pymoo append": partial(pymoo_ga, rule=APPEND),
    "deap": partial(deap_ga, rule=INSERT),
    "deap append": partial(deap_ga, rule=APPEND),
    "cp-sat": cp_sat,
}
