"""Converters of ONNX operators on sequences, whose lengths and places are known. [TVM]

TVM's own insert before another element than ONNX says, and cut a tensor into other parts.
"""

from __future__ import annotations

from typing import Any

from .._tvm import relax
from .onnx_node import STANDARD, Converter, Node, rank_of, shape_of

_op = relax.op


def _elements(node: Node, position: int = 0) -> list[Any]:
    """Return the tensors of a sequence."""
    sequence = node.required(position)
    if isinstance(sequence, relax.Tuple):
        return list(sequence.fields)
    if not isinstance(sequence.ty, relax.TupleType):
        raise node.error(f"expected a sequence; got {sequence.ty}")
    return [node.emit(relax.TupleGetItem(sequence, at)) for at in range(len(sequence.ty.fields))]


def _place(node: Node, position: int, length: int, default: int) -> int:
    """Return a known place in a sequence, where negative ones count from its end.

    Raises
    ------
    ModelError
        If it is not known, or not from -``length`` to ``default``.
    """
    if node.optional(position) is None:
        return default
    known = node.constant(position)
    if known is None:
        raise node.error("expected a place in the sequence that is known before the model runs")
    place = int(known.reshape(-1)[0])
    if not -length <= place <= default:
        raise node.error(f"expected a place from {-length} to {default} in the sequence; got {place}")
    return place + length if place < 0 else place


def _construct(node: Node) -> Any:
    return relax.Tuple([node.required(at) for at in range(len(node.inputs))])


def _empty(_node: Node) -> Any:
    return relax.Tuple([])


def _insert(node: Node) -> Any:
    elements = _elements(node)
    elements.insert(_place(node, 2, len(elements), len(elements)), node.required(1))
    return relax.Tuple(elements)


def _erase(node: Node) -> Any:
    elements = _elements(node)
    del elements[_place(node, 1, len(elements), len(elements) - 1)]
    return relax.Tuple(elements)


def _at(node: Node) -> Any:
    elements = _elements(node)
    node.required(1)
    return elements[_place(node, 1, len(elements), len(elements) - 1)]


def _length(node: Node) -> Any:
    return relax.const(len(_elements(node)), "int64")


def _concat(node: Node) -> Any:
    elements, axis = _elements(node), int(node.attributes["axis"])
    if not elements:
        raise node.error("expected a sequence of one tensor or more; got an empty one")
    if int(node.attributes.get("new_axis", 0)):
        elements = [node.emit(_op.expand_dims(element, axis)) for element in elements]
    return node.emit(_op.concat(elements, axis))


def _split(node: Node) -> Any:
    """Cut a tensor into parts of one size, the last of which may be smaller, or of given sizes."""
    data = node.required(0)
    axis = int(node.attributes.get("axis", 0)) % max(1, rank_of(data))
    extent = shape_of(node, data, "data to split")[axis]
    given = node.constant(1)
    if given is None and node.optional(1) is not None:
        raise node.error("expected known sizes of parts")
    if given is not None and given.ndim:
        sizes = [int(size) for size in given]
    else:
        size = 1 if given is None else int(given)
        if size < 1:
            raise node.error(f"expected parts of one element or more; got {size}")
        sizes = [min(size, extent - begin) for begin in range(0, extent, size)]
    if sum(sizes) != extent or any(size < 0 for size in sizes):
        raise node.error(f"expected parts of {extent} in all; got {sizes}")
    parts, begin = [], 0
    for size in sizes:
        part = node.emit(_op.strided_slice(data, [axis], [begin], [begin + size]))
        if given is None and not int(node.attributes.get("keepdims", 1)):
            part = node.emit(_op.squeeze(part, [axis]))
        parts.append(part)
        begin += size
    return relax.Tuple(parts)


CONVERTERS: dict[tuple[str, str], Converter] = {
    (STANDARD, "SequenceConstruct"): _construct,
    (STANDARD, "SequenceEmpty"): _empty,
    (STANDARD, "SequenceInsert"): _insert,
    (STANDARD, "SequenceErase"): _erase,
    (STANDARD, "SequenceAt"): _at,
    (STANDARD, "SequenceLength"): _length,
    (STANDARD, "ConcatFromSequence"): _concat,
    (STANDARD, "SplitToSequence"): _split,
}
