"""A model as it was given, before TVM sees it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class ModelSource:
    """A model as it was given, before TVM sees it.

    Parameters
    ----------
    kind
        ``onnx``, ``torch`` or ``relax``.
    model
        An ``onnx.ModelProto``, a ``torch.export.ExportedProgram`` or an IRModule.
    where
        What messages call it, such as ``model file 'net.onnx'``.
    path
        The file that it was read from, if any.
    """

    kind: str
    model: Any
    where: str
    path: Path | None = None
