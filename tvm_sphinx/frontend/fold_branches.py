"""Fold the shape arithmetic in the branches of an ONNX model, which ONNX Runtime leaves there."""

from __future__ import annotations

from typing import Any

import onnx
from onnx import helper, numpy_helper

from .onnx_values import KnownValues, subgraphs

# Where what is known is small, but what is made of it is not, it stays computed.
_MOST_ELEMENTS = 1024


def fold_branches(model: Any) -> Any:
    """Return a model in whose branches nothing is computed of shapes and constants that are known.

    ``model`` is an ``onnx.ModelProto``, which is not changed, and returned where it has no branches.
    """
    if not any(True for node in model.graph.node for _ in subgraphs(node)):
        return model
    folded = onnx.ModelProto()
    folded.CopyFrom(model)
    typed = onnx.shape_inference.infer_shapes(folded, data_prop=True)
    _fold(folded.graph, typed.graph, KnownValues(folded.opset_import), is_branch=False)
    return folded


def _fold(graph: Any, typed: Any, known: KnownValues, *, is_branch: bool) -> None:
    known.enter(graph, typed)
    nodes = []
    for node, typed_node in zip(graph.node, typed.node, strict=True):
        for inner, typed_inner in zip(subgraphs(node), subgraphs(typed_node), strict=True):
            _fold(inner, typed_inner, known, is_branch=True)
        is_known = known.note(node) and node.op_type != "Constant" and is_branch
        nodes += _constants(node, known) if is_known else [node]
    del graph.node[:]
    graph.node.extend(nodes)


def _constants(node: Any, known: KnownValues) -> list[Any]:
    """Return nodes that give the values of a node's outputs; the node itself where they are large."""
    values = {name: known.arrays[name] for name in node.output if name}
    if any(value.size > _MOST_ELEMENTS for value in values.values()):
        return [node]
    return [
        helper.make_node("Constant", [], [name], name=node.name, value=numpy_helper.from_array(value))
        for name, value in values.items()
    ]
