"""Torch programs that are exported once more, run in another way."""

from __future__ import annotations

import inspect
import operator
from typing import Any

import torch
from torch.fx import Interpreter
from torch.utils._pytree import tree_leaves

_aten = torch.ops.aten
#: Reads a tensor of one element as a number.
_READS = (_aten.item.default, _aten._local_scalar_dense.default)
# Elements of a tensor that numbers may be read from.
_MOST_READ = 4096


class Rerun(torch.nn.Module):  # type: ignore[misc]
    """Runs a program by an interpreter; its inputs have the names that they have there."""

    def __init__(self, program: Any) -> None:
        super().__init__()
        has_guards = "check_guards" in inspect.signature(program.module).parameters
        self._inner = program.module(**({"check_guards": False} if has_guards else {}))
        args, kwargs = program.example_inputs
        names = program.graph_signature.user_inputs
        if len(names) == len(args) + len(kwargs) and set(kwargs) <= set(names):
            kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
            signature = inspect.Signature([inspect.Parameter(name, kind) for name in names])
            forward = self.forward

            def named(*args: Any, **kwargs: Any) -> Any:
                return forward(*args, **kwargs)

            named.__signature__ = signature  # type: ignore[attr-defined]  # PEP 362 has it
            self.forward = named  # type: ignore[method-assign]  # torch names inputs by it

    def interpreter(self) -> Any:
        """Return what runs the graph of the program."""
        raise NotImplementedError

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the program does."""
        flat = tree_leaves((args, kwargs))
        return tuple(self.interpreter().run(*flat, enable_io_processing=False))


def exported_again(program: Any, rerun: Rerun) -> Any:
    """Return what a program of shapes that are given becomes, run in another way."""
    args, kwargs = program.example_inputs
    with torch.fx.traceback.preserve_node_meta():
        return torch.export.export(rerun, tuple(args), dict(kwargs))


def with_known_numbers(program: Any) -> Any:
    """Return a program in which numbers that it reads from what it knows are what they are.

    So shapes that are made of them are known. Programs that read none of their weights and of constants,
    or are of open shapes, stay.
    """
    if not any(node.target in _READS for node in program.graph.nodes) or is_open(program):
        return program
    known = _KnownNumbers(program)
    return exported_again(program, known) if known.numbers else program


def is_open(program: Any) -> bool:
    """Return whether an input of a program has an open extent."""
    inputs = [node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"]
    return any(
        not isinstance(extent, int)
        for value in inputs
        if isinstance(value, torch.Tensor)
        for extent in value.shape
    )


class _KnownNumbers(Rerun):
    def __init__(self, program: Any) -> None:
        super().__init__(program)
        # What depends on what nobody has set is not known.
        first, second = (self._read(unset) for unset in (0, 1))
        self.numbers = {node: first[node] for node in first if first[node] == second[node]}

    def _read(self, unset: int) -> dict[Any, Any]:
        """Return numbers by the nodes that read them, where elements that nobody has set are this."""
        self._unset, self._values = unset, dict[Any, Any]()
        reads = [node for node in self._inner.graph.nodes if node.target in _READS]
        found = {node: self._value(node.args[0]) for node in reads}
        return {node: value.item() for node, value in found.items() if isinstance(value, torch.Tensor)}

    def _value(self, node: Any) -> Any:
        """Return what is computed from weights and constants alone; None for all else."""
        if node not in self._values:
            self._values[node] = self._computed(node)
        return self._values[node]

    def _computed(self, node: Any) -> Any:
        if node.op == "get_attr":
            found: Any = self._inner
            for name in str(node.target).split("."):
                found = getattr(found, name)
            is_small = isinstance(found, torch.Tensor) and found.numel() <= _MOST_READ
            return found.detach() if is_small else None
        if node.op != "call_function":
            return None
        function = node.target
        if function is not operator.getitem:
            if not isinstance(function, torch._ops.OpOverload) or function._schema.is_mutable:
                return None
            if torch.Tag.nondeterministic_seeded in function.tags:
                return None
        values = {source: self._value(source) for source in node.all_input_nodes}
        if any(value is None for value in values.values()):
            return None
        args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
        made = function(*args, **kwargs)
        if "empty" in str(function):
            made = made.fill_(self._unset)
        is_small = not isinstance(made, torch.Tensor) or made.numel() <= _MOST_READ
        return made if is_small else None

    def interpreter(self) -> Any:
        """Return what takes numbers for those that are read."""
        return _KnownRun(self._inner, self.numbers)


class _KnownRun(Interpreter):  # type: ignore[misc]
    def __init__(self, module: Any, numbers: dict[Any, Any]) -> None:
        super().__init__(module)
        self._numbers = numbers

    def run_node(self, n: Any) -> Any:
        """Return what a node computes."""
        return self._numbers[n] if n in self._numbers else super().run_node(n)
