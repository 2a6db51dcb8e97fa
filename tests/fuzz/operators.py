"""What is drawn of each ONNX operator: its inputs, and attributes that they allow."""

from __future__ import annotations

from . import (
    computed,
    control,
    elementwise,
    indexing,
    layers,
    microsoft,
    rearrangements,
    reductions,
    sequences,
    windows,
)
from .graph import Draw

#: Appends a node of an operator, with what it reads, to a graph.
DRAWS: dict[str, Draw] = {
    **elementwise.DRAWS,
    **reductions.DRAWS,
    **rearrangements.DRAWS,
    **indexing.DRAWS,
    **windows.DRAWS,
    **layers.DRAWS,
    **microsoft.DRAWS,
    **sequences.DRAWS,
    **control.DRAWS,
    **computed.DRAWS,
}

#: Operators that give a NaN, an infinity or a number next to zero as ONNX Runtime does. TVM orders
#: numbers without regard to NaN, begins a maximum at the least finite one, and sums in its own order.
KEEP_SPECIAL = frozenset(
    "Abs Neg Add Sub Mul Div Where Cast Equal Less Greater LessOrEqual GreaterOrEqual Identity IsNaN "
    "IsInf Sqrt Reciprocal Floor Ceil Round Exp Log Tanh Sigmoid Erf Dropout PRelu LeakyRelu Reshape "
    "Transpose Squeeze Unsqueeze Expand Tile Concat Split Slice Pad Gather GatherElements GatherND "
    "Compress Flatten DepthToSpace SpaceToDepth Shape Trilu Max Min Mean Sum".split()
)
