"""From patterns to a smaller search space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..errors import ProblemError
from ..scheduling.graph import TaskGraph
from ..scheduling.problem import CANNOT_RUN, UNLIMITED, SchedulingProblem
from ..search.heuristics import KINDS, SINGLE
from ..search.native import native_problem
from ..search.space import SearchSpace
from .find import find_patterns
from .hierarchy import PatternHierarchy, check_same_graph
from .ties import tie_occurrences
from .units import bounded_units, serial_units


def prune_search_space(
    graph: TaskGraph,
    hierarchy: PatternHierarchy | None = None,
    problem: SchedulingProblem | None = None,
    *,
    upper_bound_ns: int | None = None,
    parallel: bool = False,
) -> SearchSpace:
    """Return the search space in which recurring tasks share a device gene.

    Occurrences of a pattern that follow each other share genes position by position
    (`tie_occurrences`); this is a guess, which the search takes back where it does not pay. With a
    problem at hand, chains that can gain nothing from being split become one gene, which is proven
    (`serial_units`, `bounded_units`); where such chains recur, they are joined only if all their
    recurrences can be. Genes then respect colocation, and share a device that can run them.

    Parameters
    ----------
    graph
        The task graph.
    hierarchy
        Its patterns, found if not given.
    problem
        The scheduling problem of the graph, for what depends on costs.
    upper_bound_ns
        Makespan of a schedule that is at hand; the best heuristic's if not given.
    parallel
        Also tie occurrences that could run side by side, for comparison.

    Raises
    ------
    ProblemError
        If hierarchy or problem were made for another graph.
    """
    patterns = find_patterns(graph) if hierarchy is None else hierarchy
    check_same_graph(graph, patterns)
    genes = tie_occurrences(graph, patterns, parallel=parallel)
    if problem is None:
        return SearchSpace.from_labels(genes)
    check_problem_of(graph, problem)
    if upper_bound_ns is None:
        upper_bound_ns = best_heuristic_ns(problem)
    for units in (serial_units(problem), bounded_units(problem, upper_bound_ns)):
        genes = _joined(genes, units)
    return SearchSpace.from_labels(genes).respecting(problem)


def check_problem_of(graph: TaskGraph, problem: SchedulingProblem) -> None:
    """Check that a problem is one of a graph.

    Raises
    ------
    ProblemError
        If it has other tasks or edges.
    """
    if problem.num_tasks != graph.num_tasks:
        raise ProblemError(f"Expected a problem of {graph.num_tasks} tasks; got {problem.num_tasks}.")
    if problem.edges.tolist() != [[edge.src, edge.dst] for edge in graph.edges]:
        raise ProblemError("Expected a problem with the edges of the graph; got those of another one.")


def best_heuristic_ns(problem: SchedulingProblem) -> int:
    """Return the makespan of the best cheap heuristic; 2**62 with a memory capacity: they ignore it."""
    if (problem.memory_bytes != UNLIMITED).any():
        return 2**62
    native = native_problem(problem)
    makespans = [native.heuristic(kind)[0] for kind in KINDS.values()]
    runs_all = (problem.exec_ns != CANNOT_RUN).all(axis=0)
    makespans += [native.heuristic(SINGLE, d)[0] for d in np.flatnonzero(runs_all).tolist()]
    return min(makespans)


def _joined(genes: Sequence[int], units: Sequence[Sequence[int]]) -> list[int]:
    """Join genes that lie in the same units: each of their tasks with one of each other gene."""
    unit_of = {task: index for index, unit in enumerate(units) for task in unit}
    lies_in: dict[int, set[int]] = {}
    for task, gene in enumerate(genes):
        lies_in.setdefault(gene, set()).add(unit_of.get(task, -1 - task))
    first: dict[tuple[int, ...], int] = {}
    label = {gene: first.setdefault(tuple(sorted(where)), gene) for gene, where in lies_in.items()}
    return [label[gene] for gene in genes]


@dataclass(frozen=True)
class PruningReport:
    """What pruning does to one search space; sizes are log10 of the number of placements."""

    model: str
    tasks: int
    edges: int
    kernels: int
    patterns: int
    levels: int
    genes_before: int
    genes_after: int
    log10_before: float
    log10_after: float

    @property
    def gene_ratio(self) -> float:
        """Genes before over genes after."""
        return self.genes_before / self.genes_after if self.genes_after else 1.0

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-serialisable form."""
        return {**asdict(self), "gene_ratio": self.gene_ratio}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> PruningReport:
        """Rebuild a report from `to_json`."""
        return cls(**{name: value for name, value in content.items() if name != "gene_ratio"})

    def describe(self) -> str:
        """Return the sizes in one line."""
        found = f"{self.patterns} pattern" + ("s" if self.patterns != 1 else "")
        return (
            f"{self.genes_before} genes, pruned {self.genes_after}; placements 10^"
            f"{self.log10_before:.1f}, pruned 10^{self.log10_after:.1f}; {found} of "
            f"{self.kernels} kernels"
        )


def report_pruning(
    graph: TaskGraph, hierarchy: PatternHierarchy, space: SearchSpace, problem: SchedulingProblem
) -> PruningReport:
    """Return the sizes of the space without and with pruning, on the devices of a problem."""
    untied = SearchSpace.untied(graph.num_tasks).respecting(problem)
    sizes = (log10_size(untied, problem), log10_size(space, problem))
    return _pruning_report(graph, hierarchy, untied, space, sizes)


def report_structure(graph: TaskGraph, hierarchy: PatternHierarchy, num_devices: int) -> PruningReport:
    """Return the sizes of the space by structure alone, where every device can run everything.

    Raises
    ------
    ProblemError
        If the hierarchy was made for another graph.
    """
    space = prune_search_space(graph, hierarchy)
    digits = float(np.log10(num_devices))
    untied = SearchSpace.untied(graph.num_tasks)
    sizes = (untied.num_genes * digits, space.num_genes * digits)
    return _pruning_report(graph, hierarchy, untied, space, sizes)


def _pruning_report(
    graph: TaskGraph,
    hierarchy: PatternHierarchy,
    untied: SearchSpace,
    space: SearchSpace,
    log10_sizes: tuple[float, float],
) -> PruningReport:
    return PruningReport(
        model=graph.name,
        tasks=graph.num_tasks,
        edges=len(graph.edges),
        kernels=hierarchy.num_kernels,
        patterns=len(hierarchy.patterns),
        levels=max((pattern.level for pattern in hierarchy.patterns), default=0),
        genes_before=untied.num_genes,
        genes_after=space.num_genes,
        log10_before=log10_sizes[0],
        log10_after=log10_sizes[1],
    )


def log10_size(space: SearchSpace, problem: SchedulingProblem) -> float:
    """Return log10 of the number of ways to place the genes on devices that can run them."""
    choices = space.allowed(problem).sum(axis=1)
    return float(np.log10(np.maximum(choices, 1)).sum())
