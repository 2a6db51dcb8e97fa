"""Which images stand channels last on CPUs, where a model has them channels first for a GPU. [TVM]"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..kernels import ImageRole
from ..scheduling.graph import Operand, TaskGraph
from .dataflow import Dataflow

_IMAGE_AXES = 4


def choose_channels_last(
    graph: TaskGraph, dataflow: Dataflow, roles: Mapping[str, ImageRole]
) -> frozenset[Operand]:
    """Return the tensors that stand channels last on CPUs.

    They are images between kernels that take and give them so: what a convolution reads or writes, and
    what pools, joins and maps those. An image that is returned, is looked at in another shape, or read
    by any other kernel stays, and so do those that cost fewer bytes to turn within kernels: for each of
    the rest it costs its bytes where a convolution takes or gives it channels first, and where another
    kernel has operands and result of both forms. From all channels last, those are put back one by one
    by which this cost does not rise.

    Parameters
    ----------
    graph, dataflow
        Task i is ``dataflow.calls[i]``.
    roles
        Of each kernel.
    """
    images = _Images(graph, dataflow, roles)
    chosen = images.near_convolutions()
    while True:
        back = {tensor for tensor in sorted(chosen, reverse=True) if images.gain(tensor, chosen) <= 0}
        if not back:
            return frozenset(chosen)
        # One by one: each changes what the others cost.
        for tensor in sorted(back, reverse=True):
            if images.gain(tensor, chosen) <= 0:
                chosen.remove(tensor)


@dataclass(frozen=True)
class _Images:
    graph: TaskGraph
    dataflow: Dataflow
    roles: Mapping[str, ImageRole]

    def role(self, task: int) -> ImageRole:
        return self.roles[self.graph.tasks[task].kernel]

    @cached_property
    def readers(self) -> dict[Operand, list[int]]:
        """Tasks that read each tensor that a task makes."""
        found: dict[Operand, list[int]] = {}
        for number, task in enumerate(self.graph.tasks):
            for operand in dict.fromkeys(task.operands):
                if operand.producer >= 0:
                    found.setdefault(operand, []).append(number)
        return found

    @cached_property
    def free(self) -> frozenset[Operand]:
        """Images of which nobody asks that they stay as they are."""
        returned = set(self.graph.outputs)
        return frozenset(
            tensor
            for tensor, readers in self.readers.items()
            if tensor not in returned
            and self._is_image(tensor)
            and all(self.role(task) != ImageRole.KEEPS for task in (tensor.producer, *readers))
            and all(self._reads_as_it_is(task, tensor) for task in readers)
        )

    def near_convolutions(self) -> set[Operand]:
        """Return the free images that convolutions read or write, and those that go with them."""
        convolve = [t for t in range(self.graph.num_tasks) if self.role(t) == ImageRole.CONVOLVES]
        found: set[Operand] = set()
        waiting = [tensor for task in convolve for tensor in self._around(task)]
        while waiting:
            tensor = waiting.pop()
            if tensor not in found:
                found.add(tensor)
                for task in (tensor.producer, *self.readers[tensor]):
                    waiting += self._around(task)
        return found

    def gain(self, tensor: Operand, chosen: set[Operand]) -> int:
        """Return how many bytes more are turned if a tensor that is channels last were not."""
        tasks = dict.fromkeys((tensor.producer, *self.readers[tensor]))
        before = sum(self._turned_bytes(task, chosen) for task in tasks)
        return sum(self._turned_bytes(task, chosen, tensor) for task in tasks) - before

    def _turned_bytes(self, task: int, chosen: set[Operand], but: Operand | None = None) -> int:
        """Return what a task turns within itself if the chosen images but for one are channels last."""
        operands, results = self._read_by(task), self._results(task)
        images = [*operands, *results]
        last = [tensor for tensor in images if tensor in chosen and tensor != but]
        if self.role(task) == ImageRole.CONVOLVES:
            # It computes channels last whatever it is given.
            return sum(
                self._bytes(tensor) for tensor in images if tensor in self.free and tensor not in last
            )
        unlike = [(a, b) for b in results for a in operands if (a in last) != (b in last)]
        if len(results) == 1:
            return sum(self._bytes(operand) for operand, _ in unlike)
        # Each of several results is made of a part of an operand.
        return sum(min(map(self._bytes, pair)) for pair in unlike)

    def _read_by(self, task: int) -> list[Operand]:
        """Return the images among what a task reads of other tasks."""
        operands = dict.fromkeys(self.graph.tasks[task].operands)
        return [tensor for tensor in operands if tensor.producer >= 0 and self._is_image(tensor)]

    def _results(self, task: int) -> list[Operand]:
        """Return the images that a task makes; what is left without height and width is none."""
        return [tensor for tensor in results_of(self.graph, task) if self._is_image(tensor)]

    def _around(self, task: int) -> Iterable[Operand]:
        images = [*self._read_by(task), *self._results(task)]
        return [tensor for tensor in images if tensor in self.free]

    def _bytes(self, tensor: Operand) -> int:
        return self.graph.tasks[tensor.producer].output_bytes[tensor.output]

    def _is_image(self, tensor: Operand) -> bool:
        """Return whether a tensor is another one channels last."""
        extents = extents_of(self.dataflow.calls[tensor.producer].outputs[tensor.output])
        if len(extents) != _IMAGE_AXES:
            return False
        _, channels, height, width = extents
        return channels > 1 and height * width > 1

    def _reads_as_it_is(self, task: int, tensor: Operand) -> bool:
        """Return whether a task takes a tensor as it was made, and as no part of anything."""
        return all(
            self.dataflow.made_by(argument) == tensor
            for argument in self.dataflow.calls[task].arguments
            if tensor in self.dataflow.tensors(argument)
        )


def results_of(graph: TaskGraph, task: int) -> list[Operand]:
    """Return the tensors that a task makes."""
    return [Operand(task, output) for output in range(len(graph.tasks[task].output_bytes))]


def extents_of(ty: Any) -> tuple[int, ...]:
    """Return the extents of a static tensor type."""
    return tuple(int(extent) for extent in ty.shape.values)


def positions_of(
    results: Sequence[Operand], arguments: Sequence[Sequence[Operand]], chosen: frozenset[Operand]
) -> tuple[int, ...]:
    """Return the positions among the arguments and results of a task that stand channels last.

    Parameters
    ----------
    results
        The tensors that the task makes.
    arguments
        The tensors that each of its arguments stands for.
    chosen
        Those that stand channels last.
    """
    places = [*arguments, *([result] for result in results)]
    return tuple(at for at, tensors in enumerate(places) if chosen.intersection(tensors))
