"""Fold shape arithmetic that ONNX Runtime leaves in a model: in branches, and in inlined functions."""

from __future__ import annotations

import math
from typing import Any

import onnx
from onnx import helper, numpy_helper

from .onnx_inference import typed_graph
from .onnx_values import MOST_ELEMENTS, KnownValues, renamed, subgraphs

_MOST_ROUNDS = 8
# Operators of which every runtime makes the same floats, such as the scales of a Resize.
_EXACT = frozenset(
    "Cast Add Sub Mul Div Floor Ceil Concat Slice Gather Unsqueeze Squeeze Reshape Identity".split()
)


def holds_branches(graph: Any) -> bool:
    """Return whether a graph has an ``If``."""
    return any(node.op_type == "If" for node in graph.node)


def fold_shapes(model: Any) -> Any:
    """Return a model in which no whole numbers or bools are computed of shapes and constants.

    An ``If`` whose condition is known makes room for one of its branches. What is folded lets onnx infer
    more shapes, until there is nothing left to fold.

    Parameters
    ----------
    model
        ``onnx.ModelProto``, which is not changed.
    """
    folded = onnx.ModelProto()
    folded.CopyFrom(model)
    for _ in range(_MOST_ROUNDS):
        typed = typed_graph(_without_types(folded))
        if not _fold(folded.graph, typed, KnownValues(folded.opset_import)):
            break
    return folded


def _without_types(model: Any) -> Any:
    """Return a model for onnx to infer types of; it says nothing of those between its ends.

    What a file says of them may be stale. And onnx sees no constants from outside of a branch there: the
    small ones become the branch's own.
    """
    bare = onnx.ModelProto()
    bare.CopyFrom(model)

    def visit(graph: Any, outer: dict[str, Any]) -> None:
        del graph.value_info[:]
        own = {tensor.name for tensor in graph.initializer}
        small = {t.name: t for t in graph.initializer if math.prod(t.dims) <= MOST_ELEMENTS}
        read = {name for node in graph.node for name in node.input} - own
        graph.initializer.extend(outer[name] for name in sorted(read & set(outer)))
        for inner in (one for node in graph.node for one in subgraphs(node)):
            for output in inner.output:
                output.ClearField("type")
            visit(inner, {**outer, **small})

    visit(bare.graph, {})
    return bare


def _fold(graph: Any, typed: Any, known: KnownValues) -> bool:
    """Fold a graph in place; return whether anything changed."""
    known.enter(graph, typed)
    nodes: list[Any] = []
    is_changed = False
    used = _own_names(graph)
    for node, typed_node in zip(graph.node, typed.node, strict=True):
        if node.op_type == "If" and node.input[0] in known.arrays:
            made = _taken(node, graph, bool(known.arrays[node.input[0]].reshape(())), used)
        else:
            for inner, typed_inner in zip(subgraphs(node), subgraphs(typed_node), strict=True):
                is_changed |= _fold(inner, typed_inner, known)
            is_known = known.note(node) and node.op_type != "Constant"
            made = _constants(node, known) if is_known else [node]
        is_changed |= made != [node]
        nodes += made
    del graph.node[:]
    graph.node.extend(nodes)
    return is_changed


def _taken(node: Any, graph: Any, condition: bool, used: set[str]) -> list[Any]:
    """Return the nodes of a branch, and those that hand its outputs on; its weights go to the graph.

    Branches of several choices may call values of their own alike: ``used`` are the names in the graph,
    which grow by those of the branch.
    """
    wanted = "then_branch" if condition else "else_branch"
    (branch,) = (attribute.g for attribute in node.attribute if attribute.name == wanted)
    names = {tensor.name: tensor.name for tensor in branch.initializer}
    nodes = list(branch.node)
    own = _own_names(branch)
    if used & own:
        prefix = f"{node.name or node.output[0]}/"
        for tensor in branch.initializer:
            names[tensor.name] = tensor.name = prefix + tensor.name
        nodes = [renamed(each, names, prefix) for each in nodes]
        own = {names[name] for name in own}
    used |= own
    graph.initializer.extend(branch.initializer)
    ends = [
        helper.make_node(
            "Identity", [names.get(source.name, source.name)], [output], name=f"{node.name}/{output}"
        )
        for source, output in zip(branch.output, node.output, strict=True)
    ]
    return [*nodes, *ends]


def _own_names(graph: Any) -> set[str]:
    """Return the names of values that a graph defines."""
    made = {name for node in graph.node for name in node.output if name}
    return made | {value.name for value in (*graph.input, *graph.initializer)}


def _constants(node: Any, known: KnownValues) -> list[Any]:
    """Return nodes that give the values of a node's outputs; the node itself for others than those.

    Where what is known is small, but what is made of it is not, it stays computed.
    """
    values = {name: known.arrays[name] for name in node.output if name}
    kinds = "biuf" if node.op_type in _EXACT else "biu"
    if any(v.size > MOST_ELEMENTS or v.dtype.kind not in kinds for v in values.values()):
        return [node]
    return [
        helper.make_node("Constant", [], [name], name=node.name, value=numpy_helper.from_array(value))
        for name, value in values.items()
    ]
