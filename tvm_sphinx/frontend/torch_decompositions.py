"""Decompose the operators of a torch program that TVM's importer does not know, or knows wrongly."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch._decomp import decomposition_table
from tvm.relax.frontend.torch.exported_program_translator import ExportedProgramImporter

from ..errors import ModelError
from .torch_complex import has_complex, without_complex
from .torch_converters import CONVERTERS
from .torch_formulas import FORMULAS
from .torch_masks import with_whole_assignments
from .torch_promotion import COMPARISONS
from .torch_rerun import with_known_numbers

_MOST_ROUNDS = 8
# Operators whose operands may be numbers, in the type of the tensor beside them or of the result.
_TAKE_NUMBERS = COMPARISONS | frozenset(
    """add sub rsub mul fmod remainder floor_divide bitwise_and bitwise_or bitwise_xor masked_fill fill
    clamp clamp_min clamp_max full_like scalar_tensor""".split()
)
_SMALL = (torch.int8, torch.uint8, torch.int16, torch.int32)
# TVM's converters for these are wrong for some arguments, and torch says itself what they mean.
_WRONG = frozenset(
    """roll.default isin.Tensor_Tensor softshrink.default
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
        decomposed = _decomposed(program)
    except Exception as error:  # torch raises many types, and adds lines of its own to all of them
        first = next(iter(str(error).split("\n")), "")
        if isinstance(error, ModelError):
            raise ModelError(first) from error
        raise ModelError(
            f"torch cannot take the program apart: {type(error).__name__}: {first}"
        ) from error
    _check_results(program, decomposed)
    return decomposed


def _check_results(program: Any, decomposed: Any) -> None:
    """Compare types and shapes of results with those that they had before.

    Raises
    ------
    ModelError
        If one differs: a formula does not compute what its operator does.
    """
    before, after = (_results(each) for each in (program, decomposed))
    for number, (wanted, made) in enumerate(zip(before, after, strict=True)):
        if not isinstance(wanted, torch.Tensor) or not isinstance(made, torch.Tensor):
            continue
        known = [
            (one, other)
            for one, other in zip(wanted.shape, made.shape, strict=False)
            if isinstance(one, int) and isinstance(other, int)
        ]
        is_same = wanted.dim() == made.dim() and all(one == other for one, other in known)
        if wanted.dtype != made.dtype or not is_same:
            raise ModelError(
                f"Output {number} is {wanted.dtype} {list(wanted.shape)}, and came out as {made.dtype} "
                f"{list(made.shape)} where the program was taken apart."
            )


def _results(program: Any) -> list[Any]:
    """Return what is known of the outputs that are the user's."""
    (output,) = (node for node in program.graph.nodes if node.op == "output")
    kinds = [spec.kind.name for spec in program.graph_signature.output_specs]
    values = [getattr(value, "meta", {}).get("val") for value in output.args[0]]
    return [value for kind, value in zip(kinds, values, strict=True) if kind == "USER_OUTPUT"]


def _decomposed(program: Any) -> Any:
    if _is_sparse(program):
        return program
    # What is seen at once to need one has it in the first round.
    table: dict[Any, Any] = _unknown(program)
    table |= {
        op: decomposition
        for op, decomposition in torch.export.default_decompositions().items()
        # Ours look fewer numbers up.
        if not (op.__name__ in CONVERTERS and ("upsample" in op.__name__ or "grid" in op.__name__))
    }
    # One that is not there keeps torch's own, of which some fail.
    table.update(FORMULAS)
    decomposed = None if has_complex(program) else program.run_decompositions(table)
    if decomposed is None or has_complex(decomposed):  # which may be within an operator, such as stft
        return _decomposed(without_complex(program))
    program = with_whole_assignments(with_known_numbers(decomposed))
    if program is not decomposed:
        return _decomposed(program)
    for _ in range(_MOST_ROUNDS):
        found = _unknown(program)
        if not found:
            break
        table.update(found)
        program = program.run_decompositions(table)
    _drop_known_assertions(program)
    _wrap_numbers(program)
    return program


def _wrap_numbers(program: Any) -> None:
    """Give numbers beside small whole numbers the value that they have in their type, as torch does."""
    for node in nodes_within(program.graph_module):
        name = _name(node).partition(".")[0]
        if name not in _TAKE_NUMBERS:
            continue
        # What is compared has the type of the tensor, all else that of the result.
        typed = node.args[0] if name in COMPARISONS else node
        dtype = getattr(getattr(typed, "meta", {}).get("val"), "dtype", None)
        if dtype in _SMALL:
            node.args = tuple(_wrapped(arg, dtype) if type(arg) is int else arg for arg in node.args)


def _wrapped(number: int, dtype: torch.dtype) -> int:
    info = torch.iinfo(dtype)
    return int((number - info.min) % (1 << info.bits) + info.min)


def _unknown(program: Any) -> dict[Any, Any]:
    """Return torch's decompositions of operators that there is no converter for."""
    known = set(ExportedProgramImporter().convert_map) - _WRONG | set(CONVERTERS)
    unknown = {
        node.target
        for node in nodes_within(program.graph_module)
        if isinstance(node.target, torch._ops.OpOverload) and node.target.__name__ not in known
    }
    return {op: decomposition_table[op] for op in unknown - set(FORMULAS) if op in decomposition_table}


def _drop_known_assertions(program: Any) -> None:
    """Drop what torch asserts of the sizes of its own results and what always holds.

    Raises
    ------
    ModelError
        If it asserts something else: a compiled program would not check it.
    """
    for node in list(program.graph.nodes):
        if _name(node) != "_assert_scalar.default":
            continue
        if not _always_holds(node.args[0]):
            raise ModelError(
                f"The program asserts something of a number that it computes ({node.args[1]}), which "
                f"a compiled program does not check. Take the assertion out of the model."
            )
        program.graph.erase_node(node)
    program.graph.eliminate_dead_code()


def _always_holds(condition: Any) -> bool:
    """Return whether a condition says no more of a size than the operator does that it is of."""
    if _name(condition) == "and_":
        return all(map(_always_holds, condition.args))
    if _name(condition) == "eq" and condition.args[0] is condition.args[1]:
        return True
    if _name(condition) not in ("ge", "le") or _name(condition.args[0]) != "sym_size.int":
        return False
    size, bound = condition.args
    if not isinstance(bound, int):
        return False
    return bound <= 0 if _name(condition) == "ge" else bound >= _most_rows(size.args[0])


def _most_rows(node: Any) -> float:
    """Return how many rows a result of open shape can have; infinity for one of another operator."""
    made = node.args[0] if _name(node) == "getitem" else node
    name, read = _name(made), list[Any]()
    if name in ("nonzero.default", "_unique2.default"):
        read = [made.args[0]]
    elif name == "masked_select.default":
        read = list(made.args[:2])
    elif name == "index.Tensor":
        read = [one for one in made.args[1] if one is not None]
    shapes = [tuple(one.meta["val"].shape) for one in read]
    if not shapes or not all(isinstance(extent, int) for shape in shapes for extent in shape):
        return math.inf
    return float(math.prod(torch.broadcast_shapes(*shapes)))


def _name(node: Any) -> str:
    return str(getattr(getattr(node, "target", None), "__name__", ""))


def nodes_within(graph_module: Any) -> Iterator[Any]:
    """Return the nodes of a graph, those of the graphs in it among them, such as branches."""
    for module in graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            yield from module.graph.nodes


def _is_sparse(program: Any) -> bool:
    tensors = [*program.state_dict.values(), *program.constants.values()]
    return any(isinstance(each, torch.Tensor) and each.layout != torch.strided for each in tensors)
