"""Compare what is made of ONNX nodes with the types that ONNX infers for them. [TVM]"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnx

from .._tvm import relax, tirx
from ..errors import ModelError, cause_of
from ..notice import warn
from .onnx_inference import infer_graph


def inferred_types(model: Any) -> dict[str, Any]:
    """Return the type of each value of a model that ONNX can infer, by its name.

    What the file itself says of them may be stale, and does not count.
    """
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    del bare.graph.value_info[:]
    for output in bare.graph.output:
        output.ClearField("type")
    for node in bare.graph.node:
        # The standard's default is 1; onnx infers the shape as if it were 0.
        if node.op_type == "STFT" and all(each.name != "onesided" for each in node.attribute):
            node.attribute.append(onnx.helper.make_attribute("onesided", 1))
    try:
        graph = infer_graph(bare)
    except Exception as error:  # onnx's errors share no base class
        warn(f"ONNX cannot infer this model's types: {cause_of(error)}")
        return {}
    types = {value.name: value.type.tensor_type for value in (*graph.value_info, *graph.output)}
    if any(_rounds_up(node) for node in graph.node):
        for ty in types.values():
            ty.ClearField("shape")
    return types


def check_strings(model: Any) -> None:
    """Refuse a model whose graph reads, holds or makes strings.

    Raises
    ------
    ModelError
        It names the first of them.
    """
    string = onnx.TensorProto.STRING
    graph = model.graph
    found = [each.name for each in graph.input if each.type.tensor_type.elem_type == string]
    found += [each.name for each in graph.initializer if each.data_type == string]
    found += [each.name for each in graph.output if each.type.tensor_type.elem_type == string]
    if found:
        raise ModelError(f"{found[0]!r} holds strings, for which there are no kernels.")


def _rounds_up(node: Any) -> bool:
    """Whether a node is a pool for which onnx counts a window that begins behind the data."""
    return any(attribute.name == "ceil_mode" and attribute.i for attribute in node.attribute)


def check_type(expr: Any, wanted: Any, where: str) -> None:
    """Compare the type of an expression with an ONNX one, as far as both are known.

    Raises
    ------
    ModelError
        If they differ: TVM's importer has made something else of the operator.
    """
    ty = getattr(expr, "ty", None)
    if not isinstance(ty, relax.TensorType) or wanted is None:
        return
    dtype = str(onnx.helper.tensor_dtype_to_np_dtype(wanted.elem_type)) if wanted.elem_type else None
    dtype = _IN_BYTES.get(dtype or "", dtype)
    extents = getattr(ty.shape, "values", None)
    shape = extents and [int(e) if isinstance(e, tirx.IntImm) else None for e in extents]
    right = None
    if wanted.HasField("shape"):
        right = [dim.dim_value if dim.HasField("dim_value") else None for dim in wanted.shape.dim]
    found = str(ty.dtype)
    if (dtype is not None and found not in ("", dtype) and _IN_BYTES.get(found) != dtype) or not _agree(
        shape, right
    ):
        raise ModelError(
            f"TVM's importer makes {found}{shape} of {where}, which is {dtype}{right} in ONNX."
        )


def with_extents(builder: Any, value: Any, known: Any) -> Any:
    """Return a tensor of known rank with a name for each extent that is open.

    Parameters
    ----------
    builder
        ``relax.BlockBuilder``, inside a function.
    value
        Variable that holds a tensor.
    known
        Its ONNX type, which may tell some extents; None where that is not known.
    """
    rank = int(value.ty.ndim)
    dims = list(known.shape.dim) if known is not None and known.HasField("shape") else [None] * rank
    if isinstance(value.ty.shape, relax.ShapeExpr) or rank not in (-1, len(dims)):
        return value
    if rank == -1 and known is None:
        return value
    extents = [
        int(dim.dim_value) if dim is not None and dim.HasField("dim_value") else tirx.Var("n", "int64")
        for dim in dims
    ]
    return builder.match_cast(value, relax.TensorType(extents, value.ty.dtype))


# Types of fewer bits than a byte are kept in bytes.
_IN_BYTES: Mapping[str, str] = {"int4": "int8", "uint4": "uint8", "int2": "int8", "uint2": "uint8"}


def _agree(left: list[int | None] | None, right: list[int | None] | None) -> bool:
    if left is None or right is None:
        return True
    if len(left) != len(right):
        return False
    return all(a is None or b is None or a == b for a, b in zip(left, right, strict=True))
