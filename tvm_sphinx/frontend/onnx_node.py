"""One ONNX node as a converter to Relax sees it, and what converters have in common. [TVM]"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .._tvm import relax, tirx, tvm
from ..errors import ModelError

Array = npt.NDArray[Any]

#: The operators of ONNX itself, and those that ONNX Runtime adds to them.
STANDARD, MICROSOFT = "", "com.microsoft"


@dataclass(frozen=True)
class Node:
    """An ONNX node whose inputs are Relax expressions.

    Parameters
    ----------
    op, name
        The operator, with its domain where that is not ONNX's own, and the node's name for errors.
    builder
        ``relax.BlockBuilder``, inside a function.
    inputs
        Expressions; None for those that are left out.
    attributes
        By name: numbers, tuples, bytes, or ONNX's messages.
    opset
        Version of the operator's domain.
    num_outputs
        How many outputs the node names.
    """

    op: str
    name: str
    builder: Any
    inputs: tuple[Any, ...]
    attributes: Mapping[str, Any]
    opset: int
    num_outputs: int

    def emit(self, expr: Any) -> Any:
        """Bind an expression to a variable, and return that."""
        return self.builder.emit(expr)

    def optional(self, position: int) -> Any:
        """Return an input, None where it is left out."""
        return self.inputs[position] if position < len(self.inputs) else None

    def required(self, position: int) -> Any:
        """Return an input that must be there.

        Raises
        ------
        ModelError
            If it is left out.
        """
        found = self.optional(position)
        if found is None:
            raise self.error(f"expected input {position}; it is left out")
        return found

    def constant(self, position: int) -> Array | None:
        """Return an input whose value is known, None where it is left out or not known."""
        return constant_value(self.optional(position))

    def number(self, position: int, name: str, default: int | None = None) -> int:
        """Return an input that is one whole number; the default where it is left out.

        Raises
        ------
        ModelError
            If its value is not known, or it is left out without a default; it is called ``name``.
        """
        if default is not None and self.optional(position) is None:
            return default
        value = self.constant(position)
        if value is None:
            raise self.error(f"expected {name} that is constant")
        return int(value.reshape(()))

    def text(self, attribute: str, default: str = "") -> str:
        """Return an attribute that is a string."""
        value = self.attributes.get(attribute, default)
        return value.decode() if isinstance(value, bytes) else str(value)

    def error(self, what: str) -> ModelError:
        """Return an error that names the operator and the node."""
        return ModelError(f"{self.op} (node {self.name!r}): {what}.")


#: Returns the output of a node, or a tuple of its outputs, None for those that it does not compute;
#: NotImplemented leaves the node to TVM's converter.
Converter = Callable[[Node], Any]


def constant_value(expr: Any) -> Array | None:
    """Return the value of a Relax constant, None where an expression is none."""
    return expr.value.numpy() if isinstance(expr, tvm.ir.GenericConst) else None


def dtype_of(expr: Any) -> str:
    """Return the dtype of a tensor."""
    dtype = expr.ty.dtype
    return str(getattr(dtype, "dtype", dtype))


def rank_of(expr: Any) -> int:
    """Return the rank of a tensor; -1 where it is not known."""
    return int(expr.ty.ndim)


def shape_of(node: Node, expr: Any, what: str) -> list[int]:
    """Return the shape of a tensor.

    Raises
    ------
    ModelError
        If it is not known; the message calls the tensor ``what``.
    """
    extents = getattr(expr.ty.shape, "values", None)
    if extents is None or not all(isinstance(extent, tirx.IntImm) for extent in extents):
        raise node.error(f"expected {what} of a known shape; got {expr.ty}. Give --input-shapes")
    return [int(extent) for extent in extents]


def extent_of(node: Node, expr: Any, axis: int, what: str) -> int:
    """Return one extent of a tensor; the others may be open. Errors as those of `shape_of`."""
    extents = getattr(expr.ty.shape, "values", None)
    if extents is not None and isinstance(extents[axis], tirx.IntImm):
        return int(extents[axis])
    return shape_of(node, expr, what)[axis]


def const(value: Any, dtype: str) -> Any:
    """Return a Relax constant."""
    return relax.const(np.asarray(value, dtype), dtype)


def cast(node: Node, expr: Any, dtype: str) -> Any:
    """Return a tensor with another dtype; constants are cast here."""
    if dtype_of(expr) == dtype:
        return expr
    value = constant_value(expr)
    if value is not None and dtype != "bfloat16":
        return relax.const(value.astype(dtype), dtype)
    return node.emit(relax.op.astype(expr, dtype))
