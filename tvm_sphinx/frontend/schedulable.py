"""From an imported module to the task graph of all of it that can be scheduled. [TVM]"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .._tvm import tirx, tvm, tvm_ffi
from ..errors import UnsupportedError
from ..platform import Platform
from ..progress import StageClock
from .extract import Extraction, Kernel, extract_task_graph
from .load import entry_function, load_model
from .lower import lower_for_platform
from .split_dynamic import DynamicSplit, split_dynamic


@dataclass(frozen=True)
class Schedulable:
    """What can be scheduled of a function: all of it, or the static part of ``split``."""

    extraction: Extraction
    split: DynamicSplit | None = None


def load_schedulable(
    model: Any,
    platform: Platform,
    *,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    fixed_inputs: Mapping[str, Any] | None = None,
    function: str | None = None,
) -> Schedulable:
    """Load a model for its tasks; parameters and errors as of `load_model` and `find_schedulable`."""
    module = load_model(model, input_shapes=input_shapes, fixed_inputs=fixed_inputs, function=function)
    return find_schedulable(module, platform, entry_function(module, function))


def find_schedulable(
    module: Any,
    platform: Platform,
    entry: str,
    clock: StageClock | None = None,
    dump: Callable[[str, Any], None] = lambda _phase, _module: None,
) -> Schedulable:
    """Return the tasks of a function, or of its static part where the rest has unknown shapes.

    Parameters
    ----------
    module
        IRModule as `tvm_sphinx.frontend.load.load_model` returns it.
    clock
        Is told how long lowering and extracting took.
    dump
        Called with ``"2-lowered"`` and the lowered module.

    Raises
    ------
    UnsupportedError
        If neither can be scheduled, or the static part holds no kernel that is more than a map from
        elements to elements.
    """
    stage = clock or StageClock()

    def extract(part: Any) -> Extraction:
        with stage("lower"):
            lowered = lower_for_platform(part, platform, entry)
        dump("2-lowered", lowered)
        with stage("extract"):
            return extract_task_graph(lowered, entry)

    try:
        return Schedulable(extract(module))
    except UnsupportedError as whole:
        with stage("split"):
            split = split_dynamic(module, entry)
        if split is None:
            raise
        try:
            extraction = extract(split.static)
        except UnsupportedError:
            raise whole from None
        if not any(map(_is_worth_it, extraction.kernels.values())):
            raise
        return Schedulable(extraction, split)


def _is_worth_it(kernel: Kernel) -> bool:
    """Return whether a kernel is more than a map from elements to elements."""
    if kernel.is_external:
        return True
    found: list[Any] = []
    tvm_ffi.structural_walk(kernel.function.body, (tvm.s_tir.SBlock, found.append))
    kinds = {int(axis.iter_type) for block in found for axis in block.iter_vars}
    return bool(kinds - {tirx.IterVar.DataPar})
