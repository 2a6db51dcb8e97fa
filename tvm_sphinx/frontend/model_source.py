"""A model as it was given, before TVM sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy.typing as npt

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
    return name in DEMO_MODELS or suffix_of(Path(name)) in FORMATS


def suffix_of(path: Path) -> str:
    """Return the suffix that tells the form of a model file, in small letters."""
    return path.suffix.lower()


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
    fixed
        Values by the names of inputs that have one, see `tvm_sphinx.frontend.fixed_inputs.fix_inputs`.
    """

    kind: str
    model: Any
    where: str
    path: Path | None = None
    fixed: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What reports call it: the name of its file, or of a demo model, or its kind."""
        return self.path.name if self.path else self.where.removeprefix("demo model ").strip("'")
