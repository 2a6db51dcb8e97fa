"""Torch programs that assign through masks, over whole tensors in the place of what a mask selects."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Interpreter, Node

from .torch_rerun import Rerun, exported_again, is_open

_aten = torch.ops.aten


def with_whole_assignments(program: Any) -> Any:
    """Return a program in which ``x[mask] = v`` and ``x[torch.where(mask)] = v`` are `torch.where`.

    So nothing is left whose shape hangs on how many places there are. ``v`` is what broadcasts against
    the selected places alike, or is computed from what lies at these places (``x[mask] *= 2``), element
    by element. Other programs stay, and so do those of open shapes.

    Parameters
    ----------
    program
        A ``torch.export.ExportedProgram`` whose operators change nothing in place.
    """
    if is_open(program):
        return program
    puts = [node for node in program.graph.nodes if node.target is _aten.index_put.default]
    if not any(_needs_more_than_where(node) for node in puts):
        return program
    rerun = _Whole(program)
    made = exported_again(program, rerun)
    return made if rerun.count else program


def _needs_more_than_where(put: Node) -> bool:
    """Whether an assignment is through a mask, and of more than a number; that has a converter."""
    place = _place_of(put.args[1])
    if place is None:
        return False
    is_plain = place[0] in put.args[1] and place[1] == 0 and len(put.args) < 4
    return not (is_plain and put.args[2].meta["val"].dim() == 0)


def _place_of(indices: Any) -> tuple[Node, int] | None:
    """Return the mask that indices select by, and the axis that it begins at; None for all else."""
    start = next((number for number, each in enumerate(indices) if each is not None), 0)
    given = list(indices[start:])
    if not given or not all(isinstance(each, Node) for each in given):
        return None
    if given[0].meta["val"].dtype is torch.bool:
        return (given[0], start) if len(given) == 1 else None
    first = _column_of(given[0])
    if first is None:
        return None
    mask = first[0]
    whole = [(mask, axis) for axis in range(mask.meta["val"].dim())]
    return (mask, start) if list(map(_column_of, given)) == whole else None


def _column_of(index: Node) -> tuple[Node, int] | None:
    """Return the mask whose places an index is made of, and the axis that it counts along."""
    if index.meta["val"].dim() != 1:
        return None
    number = 0
    if index.target is _aten.squeeze.dims:
        index = index.args[0]
        if index.target is _aten.slice.Tensor and index.args[1] == 1:
            number, index = index.args[2], index.args[0]
    elif index.target is _aten.select.int and index.args[1] == 1:
        number, index = index.args[2], index.args[0]
    if index.target is not _aten.nonzero.default:
        return None
    mask = index.args[0]
    return mask, number % max(mask.meta["val"].dim(), 1)


def _is_of_elements(node: Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and torch.Tag.pointwise in node.target.tags


class _Whole(Rerun):
    """Counts in ``count`` what its runs have written over whole tensors."""

    count = 0

    def interpreter(self) -> Any:
        """Return what assigns to whole tensors."""
        return _WholeRun(self._inner, self)


class _WholeRun(Interpreter):  # type: ignore[misc]  # torch's types are not checked here
    """Computes, beside what lies at selected places, the same of all places."""

    def __init__(self, module: Any, rerun: _Whole) -> None:
        super().__init__(module, garbage_collect_values=False)
        self._rerun = rerun
        self._whole: dict[Node, tuple[tuple[Node, int], torch.Tensor]] = {}
        self._counts: dict[tuple[Node, int], Any] = {}  # how many places a mask selects
        self._first: dict[Any, Node] = {}  # of the nodes that compute the same
        self._firsts: dict[Node, Node] = {}

    def run_node(self, n: Node) -> Any:
        """Return what a node computes; nothing, until that is asked for, if it is of selected places."""
        first = self._first_of(n)
        if first is not n:
            if first in self._whole:
                self._whole[n] = self._whole[first]
            return self.env[first]
        if n.target is _aten.index_put.default:
            made = self._assigned(n)
            if made is not None:
                self._rerun.count += 1
                return made
        elif n.target is _aten.index.Tensor:
            place = self._place(n)
            if place is not None:
                self._whole[n] = place, self.env[n.args[0]]
                return None
        elif n.target is _aten.sym_size.int and n.args[0] in self._whole:
            place, _ = self._whole[n.args[0]]
            if n.args[1] == place[1]:
                if place not in self._counts:
                    self._counts[place] = self._selected(n.args[0]).shape[place[1]]
                return self._counts[place]
        elif _is_of_elements(n) and self._follow(n):
            return None
        for each in n.all_input_nodes:
            if self.env[each] is None and each in self._whole:
                self.env[each] = self._selected(each)
        return super().run_node(n)

    def _selected(self, node: Node) -> torch.Tensor:
        """Return what lies at selected places."""
        (mask, start), value = self._whole[node]
        return value[(*[slice(None)] * start, self.env[mask])]

    def _first_of(self, node: Node) -> Node:
        """Return the first node that computes the same, so that a mask that is computed twice is one."""
        self._firsts[node] = node
        op = node.target
        if (
            isinstance(op, torch._ops.OpOverload)
            and not op._schema.is_mutable
            and torch.Tag.nondeterministic_seeded not in op.tags
        ):
            operands = torch.fx.node.map_arg((node.args, node.kwargs), self._firsts.__getitem__)
            self._firsts[node] = self._first.setdefault((op, repr(operands)), node)
        return self._firsts[node]

    def _place(self, node: Node) -> tuple[Node, int] | None:
        """Return where a node reads or assigns, if it is in a whole tensor and by a whole mask."""
        place = _place_of(node.args[1])
        if place is None or node.args[0] in self._whole or place[0] in self._whole:
            return None
        return self._firsts[place[0]], place[1]

    def _follow(self, node: Node) -> bool:
        """Compute an operator of elements of all places; return whether all operands are known there."""
        places = {self._whole[each][0] for each in node.all_input_nodes if each in self._whole}
        if len(places) != 1:
            return False
        (place,) = places
        rank = node.meta["val"].dim()
        operands = {each: self._of_all(each, place, rank) for each in node.all_input_nodes}
        if any(value is None for value in operands.values()):
            return False
        args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), operands.__getitem__)
        self._whole[node] = place, node.target(*args, **kwargs)
        return True

    def _of_all(self, node: Node, place: tuple[Node, int], rank: int) -> Any:
        """Return what broadcasts against all places as a node does against those selected, or None."""
        if node in self._whole:
            held, value = self._whole[node]
            return value if held == place and node.meta["val"].dim() == rank else None
        value = self.env[node]
        if not isinstance(value, torch.Tensor):
            return value
        mask, start = place
        shape = [1] * (rank - value.dim()) + list(value.shape)
        if (
            len(shape) > rank
            or not all(isinstance(extent, int) for extent in shape)
            or shape[start] != 1
        ):
            return None
        ones = [1] * self.env[mask].dim()
        return value.reshape([*shape[:start], *ones, *shape[start + 1 :]])

    def _assigned(self, node: Node) -> torch.Tensor | None:
        place = self._place(node)
        if place is None:
            return None
        data, mask = self.env[node.args[0]], self.env[place[0]]
        value = self._of_all(node.args[2], place, data.dim() - mask.dim() + 1)
        if value is None:
            return None
        after = [1] * (data.dim() - place[1] - mask.dim())
        value = value.to(data.dtype)
        if len(node.args) > 3 and node.args[3]:
            value = data + value
        return torch.where(mask.reshape([*mask.shape, *after]), value, data)
