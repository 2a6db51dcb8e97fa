"""The search space: which tasks share one device gene."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ..errors import ProblemError
from ..scheduling.problem import CANNOT_RUN, NO_GROUP, Int64Array, SchedulingProblem


@dataclass(frozen=True, eq=False)
class SearchSpace:
    """Genes, each a set of tasks that a tied search places on one device.

    Parameters
    ----------
    genes
        For each gene its task ids, ascending; together they partition the tasks. Genes are ordered
        by their first task.

    Raises
    ------
    ProblemError
        If the genes do not partition 0..N-1.
    """

    genes: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        tasks = sorted(task for gene in self.genes for task in gene)
        if tasks != list(range(len(tasks))) or not all(self.genes):
            raise ProblemError("Expected non-empty genes that partition the tasks 0..N-1.")
        if any(list(gene) != sorted(gene) for gene in self.genes) or (
            [gene[0] for gene in self.genes] != sorted(gene[0] for gene in self.genes)
        ):
            raise ProblemError("Expected sorted genes, ordered by their first task.")

    @classmethod
    def untied(cls, num_tasks: int) -> SearchSpace:
        """Return the whole space: one gene per task."""
        return cls(tuple((task,) for task in range(num_tasks)))

    @classmethod
    def from_labels(cls, labels: npt.ArrayLike) -> SearchSpace:
        """Return the space in which tasks with equal labels share a gene."""
        members: dict[int, list[int]] = {}
        for task, label in enumerate(np.asarray(labels).tolist()):
            members.setdefault(label, []).append(task)
        return cls(tuple(tuple(tasks) for tasks in members.values()))

    @property
    def num_tasks(self) -> int:
        """Number of tasks, N."""
        return sum(len(gene) for gene in self.genes)

    @property
    def num_genes(self) -> int:
        """Number of genes, G."""
        return len(self.genes)

    def gene_of_task(self) -> Int64Array:
        """Return the gene of each task, shape (N,)."""
        gene_of = np.empty(self.num_tasks, dtype=np.int64)
        for gene, tasks in enumerate(self.genes):
            gene_of[list(tasks)] = gene
        return gene_of

    def expand(self, gene_device: npt.ArrayLike) -> Int64Array:
        """Return the device of each task, shape (N,), from the device of each gene, shape (G,)."""
        devices: Int64Array = np.asarray(gene_device, dtype=np.int64)[self.gene_of_task()]
        return devices

    def allowed(self, problem: SchedulingProblem) -> npt.NDArray[np.bool_]:
        """Return where all tasks of a gene can run, shape (G, D).

        Raises
        ------
        ProblemError
            If the problem has another number of tasks than the space.
        """
        if problem.num_tasks != self.num_tasks:
            raise ProblemError(
                f"Expected a search space of the problem's {problem.num_tasks} tasks; "
                f"got one of {self.num_tasks}."
            )
        allowed = np.empty((self.num_genes, problem.num_devices), dtype=np.bool_)
        for gene, tasks in enumerate(self.genes):
            allowed[gene] = (problem.exec_ns[list(tasks)] != CANNOT_RUN).all(axis=0)
        return allowed

    def respecting(self, problem: SchedulingProblem) -> SearchSpace:
        """Return the space that also ties colocated tasks, and unties genes that can run nowhere.

        Raises
        ------
        ProblemError
            If the problem has another number of tasks than the space.
        """
        labels = self.gene_of_task()
        for gene, allowed in enumerate(self.allowed(problem)):
            if not allowed.any():
                tasks = list(self.genes[gene])
                labels[tasks] = self.num_genes + np.array(tasks)
        for group in np.unique(problem.colocation[problem.colocation != NO_GROUP]).tolist():
            members = np.flatnonzero(problem.colocation == group)
            # Tying a whole gene to the group could leave it without a device: tie the members alone.
            labels[members] = self.num_genes + problem.num_tasks + group
        return SearchSpace.from_labels(labels)

    def tied(self, problem: SchedulingProblem) -> SchedulingProblem:
        """Return the problem in which the tasks of each gene have to share a device.

        Raises
        ------
        ProblemError
            If the problem has another number of tasks than the space.
        """
        colocation = np.full(self.num_tasks, NO_GROUP, dtype=np.int64)
        for group, tasks in enumerate(self.respecting(problem).genes):
            if len(tasks) > 1:
                colocation[list(tasks)] = group
        return replace(problem, colocation=colocation)
