"""Decompose the operators of a torch program that TVM's importer does not know, or knows wrongly."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch._decomp import decomposition_table
from tvm.relax.frontend.torch.exported_program_translator import ExportedProgramImporter

from ..errors import ModelError
from .torch_converters import CONVERTERS
from .torch_formulas import FORMULAS

_MOST_ROUNDS = 8
# TVM's converters for these are wrong for some arguments, and torch says itself what they mean.
_WRONG = frozenset(
    """grid_sampler_2d.default roll.default isin.Tensor_Tensor softshrink.default
    celu.default""".split()
)


def decompose(program: Any) -> Any:
    """Return a program in core ATen operators, the rest decomposed as far as torch can.

    Raises
    ------
    ModelError
        If an operator is of a form that none are found for, or torch fails at it.
    """
    try:
        return _decomposed(program)
    except Exception as error:  # torch raises many types, and adds lines of its own to all of them
        first = next(iter(str(error).split("\n")), "")
        if isinstance(error, ModelError):
            raise ModelError(first) from error
        raise ModelError(
            f"torch cannot take the program apart: {type(error).__name__}: {first}"
        ) from error


def _decomposed(program: Any) -> Any:
    if _is_sparse(program):
        return program
    table = {
        op: decomposition
        for op, decomposition in torch.export.default_decompositions().items()
        if not (op.__name__ in CONVERTERS and "upsample" in op.__name__)  # ours look fewer numbers up
    }
    # One that is not there keeps torch's own, of which some fail.
    table.update(FORMULAS)
    program = program.run_decompositions(table)
    known = set(ExportedProgramImporter().convert_map) - _WRONG | set(CONVERTERS)
    for _ in range(_MOST_ROUNDS):
        unknown = {
            node.target
            for node in nodes_within(program.graph_module)
            if isinstance(node.target, torch._ops.OpOverload) and node.target.__name__ not in known
        }
        found = {
            op: decomposition_table[op] for op in unknown - set(FORMULAS) if op in decomposition_table
        }
        if not found:
            break
        table.update(found)
        program = program.run_decompositions(table)
    return program


def nodes_within(graph_module: Any) -> Iterator[Any]:
    """Return the nodes of a graph, those of the graphs in it among them, such as branches."""
    for module in graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            yield from module.graph.nodes


def _is_sparse(program: Any) -> bool:
    tensors = [*program.state_dict.values(), *program.constants.values()]
    return any(isinstance(each, torch.Tensor) and each.layout != torch.strided for each in tensors)
