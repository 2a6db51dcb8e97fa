"""A model as it was given, before TVM sees it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: Models that need no file, by name.
DEMO_MODELS = ("inception-v1",)

#: Forms of model files by their suffixes.
FORMATS = {
    ".onnx": "ONNX",
    ".pt2": "torch.export program",
    ".json": "Relax IRModule (tvm.ir.save_json)",
}


def is_model(name: str) -> bool:
    """Return whether a file, by its suffix, or a demo model is meant; the file need not exist."""
    return name in DEMO_MODELS or Path(name).suffix in FORMATS


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

    @property
    def name(self) -> str:
        """What reports call it: the name of its file, or of a demo model, or its kind."""
        return self.path.name if self.path else self.where.removeprefix("demo model ").strip("'")
