"""The task graph of a model, without costs and without a schedule. [TVM]"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..platform import Platform
from ..platform.platform_file import load_platform
from ..scheduling.graph import TaskGraph
from .schedulable import load_schedulable


def extract_graph(
    model: Any,
    platform: Platform | str | Path = "detect",
    *,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    fixed_inputs: Mapping[str, Any] | None = None,
    function: str | None = None,
) -> TaskGraph:
    """Return the task graph that `tvm_sphinx.compile` would schedule; parameters are those of it.

    It lacks what depends on shapes that are known only at run time. The platform decides the layouts of
    kernels, and hence which of them are equal.

    Raises
    ------
    UnsupportedError
        If the model has inputs of open shapes, or an ``if`` that is no task, and so no task graph.
    SphinxError
        If the model or the platform cannot be loaded.
    """
    devices = load_platform(platform)
    found = load_schedulable(
        model, devices, input_shapes=input_shapes, fixed_inputs=fixed_inputs, function=function
    )
    return found.extraction.graph
