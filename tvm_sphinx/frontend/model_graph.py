"""The task graph of a model, without costs and without a schedule. [TVM]"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..platform import Platform
from ..platform.platform_file import load_platform
from ..scheduling.graph import TaskGraph
from .extract import extract_task_graph
from .load import entry_function, load_model
from .lower import lower_for_platform


def extract_graph(
    model: Any,
    platform: Platform | str | Path = "detect",
    *,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    function: str | None = None,
) -> TaskGraph:
    """Return the task graph that `tvm_sphinx.compile` would schedule; parameters are those of it.

    The platform decides the layouts of kernels, and hence which of them are equal.

    Raises
    ------
    UnsupportedError
        If the model has dynamic shapes, or an ``if`` that is no task, and so no task graph.
    SphinxError
        If the model or the platform cannot be loaded.
    """
    module = load_model(model, input_shapes=input_shapes)
    entry = entry_function(module, function)
    return extract_task_graph(lower_for_platform(module, load_platform(platform), entry), entry).graph
