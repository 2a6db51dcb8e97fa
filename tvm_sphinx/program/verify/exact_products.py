"""Products of 8-bit numbers that ONNX Runtime computes as ONNX defines them, on every processor.

Where an x86 processor has no VNNI, ONNX Runtime multiplies unsigned by signed bytes with an instruction
whose sums stop at 16 bits, so that its results depend on the machine. Products of unsigned bytes alone
do not; signed weights moved up by 128, and their zero point with them, give the same sums.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from ...frontend.onnx_inference import typed_graph

_SHIFT = 128


class _Product(NamedTuple):
    """Places among a node's inputs: signed factor, its zero point, other factor, that one's zero point.

    The other factor is None where the operator itself makes unsigned bytes of it.
    """

    factor: int
    zero: int
    other: int | None = None
    other_zero: int | None = None


_PRODUCTS = {
    "QLinearConv": (_Product(3, 5, 0, 2),),
    "QLinearMatMul": (_Product(3, 5, 0, 2),),
    "QGemm": (_Product(3, 5, 0, 2),),
    "ConvInteger": (_Product(1, 3, 0, 2),),
    "MatMulInteger": (_Product(1, 3, 0, 2),),
    "MatMulIntegerToFloat": (_Product(1, 5, 0, 4),),
    "QAttention": (_Product(1, 7, 0, 6),),
    "DynamicQuantizeMatMul": (_Product(1, 3),),
    "DynamicQuantizeLSTM": (_Product(1, 9), _Product(2, 11)),
}


@functools.cache
def saturates() -> bool:
    """Return whether ONNX Runtime's sums of products of bytes stop at 16 bits on this machine."""
    import onnxruntime
    from onnx import parser

    text = '<ir_version: 8, opset_import: ["": 17]> g (uint8[1,8] a, int8[8,1] b) => (int32[1,1] y)'
    model = parser.parse_model(f"{text} {{ y = MatMulInteger(a, b) }}")
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    feeds = {"a": np.full((1, 8), 255, np.uint8), "b": np.full((8, 1), 127, np.int8)}
    return int(session.run(None, feeds)[0][0, 0]) != 8 * 255 * 127


def as_defined(model: Any) -> Any:
    """Return an ONNX model from which ONNX Runtime computes on this machine what ONNX defines."""
    return with_exact_products(model) if saturates() else model


def with_exact_products(model: Any) -> Any:
    """Return an ONNX model without products of unsigned by signed bytes; the same one if it has none."""
    if not any(node.op_type in _PRODUCTS for node in model.graph.node):
        return model
    return _Rewriter(model).rewritten()


class _Rewriter:
    """Moves signed factors up; bodies of branches and loops stay as they are."""

    def __init__(self, model: Any) -> None:
        self.model = type(model)()
        self.model.CopyFrom(model)
        known = typed_graph(model)
        values = (*known.input, *known.value_info, *known.output)
        self.types = {value.name: value.type.tensor_type.elem_type for value in values}
        self.constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self.types.update({name: tensor.data_type for name, tensor in self.constants.items()})
        self.moved: dict[str, str] = {}

    def rewritten(self) -> Any:
        """Return the model."""
        nodes: list[Any] = []
        for node in self.model.graph.node:
            for product in _PRODUCTS.get(node.op_type, ()):
                if self._is_mixed(node, product):
                    nodes.extend(self._move(node, product))
            nodes.append(node)
        copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
        del self.model.graph.node[:]
        self.model.graph.node.extend(copies)
        return self.model

    def _type(self, node: Any, place: int | None) -> int:
        given = place is not None and place < len(node.input) and node.input[place]
        return self.types.get(node.input[place], 0) if given else 0

    def _is_mixed(self, node: Any, product: _Product) -> bool:
        from onnx import TensorProto

        factor = self._type(node, product.factor) or self._type(node, product.zero)
        other = self._type(node, product.other) or self._type(node, product.other_zero)
        is_unsigned = product.other is None or other == TensorProto.UINT8
        return factor == TensorProto.INT8 and is_unsigned

    def _move(self, node: Any, product: _Product) -> Iterator[Any]:
        """Let a node read its factor and zero point moved up; yield what computes them."""
        from onnx import numpy_helper

        while len(node.input) <= product.zero:
            node.input.append("")
        for place in (product.factor, product.zero):
            name = node.input[place]
            if name in self.moved:
                node.input[place] = self.moved[name]
                continue
            moved = f"{name}::moved_up"
            self.moved[name] = node.input[place] = moved
            if name and name not in self.constants:
                yield from _moving(name, moved)
                continue
            array = numpy_helper.to_array(self.constants[name]) if name else np.zeros((), np.int8)
            up = (array.astype(np.int32) + _SHIFT).astype(np.uint8)
            self.model.graph.initializer.append(numpy_helper.from_array(up, moved))


def _moving(name: str, moved: str) -> Iterator[Any]:
    """Yield nodes that move a tensor of signed bytes up."""
    from onnx import TensorProto, helper, numpy_helper

    shift = numpy_helper.from_array(np.array(_SHIFT, np.int32))
    yield helper.make_node("Constant", [], [f"{moved}:shift"], value=shift)
    yield helper.make_node("Cast", [name], [f"{moved}:wide"], to=TensorProto.INT32)
    yield helper.make_node("Add", [f"{moved}:wide", f"{moved}:shift"], [f"{moved}:sum"])
    yield helper.make_node("Cast", [f"{moved}:sum"], [moved], to=TensorProto.UINT8)
