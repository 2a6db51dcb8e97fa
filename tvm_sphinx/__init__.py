"""Schedule one neural-network inference over several unlike compute devices.

Importing this package imports next to nothing; NumPy, TVM and XGBoost come at first use.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

from .errors import SphinxError

if TYPE_CHECKING:
    from .pipeline import compile
    from .platform import Device, Link, Platform
    from .program.compiled import CompiledModel
    from .scheduling.graph import TaskGraph
    from .scheduling.problem import SchedulingProblem
    from .scheduling.schedule import Schedule
    from .search import search_schedule

__version__ = "0.2.0"

# Names that import more than Python's own modules, when they are first asked for.
_LAZY = {
    "CompiledModel": "program.compiled",
    "Device": "platform",
    "Link": "platform",
    "Platform": "platform",
    "Schedule": "scheduling.schedule",
    "SchedulingProblem": "scheduling.problem",
    "TaskGraph": "scheduling.graph",
    "compile": "pipeline",
    "search_schedule": "search",
}

__all__ = [
    "CompiledModel",
    "Device",
    "Link",
    "Platform",
    "Schedule",
    "SchedulingProblem",
    "SphinxError",
    "TaskGraph",
    "compile",
    "load",
    "search_schedule",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f".{_LAZY[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def load(path: str) -> CompiledModel:
    """Read a compiled model that `CompiledModel.save` wrote.

    Raises
    ------
    ArtifactError
        If the file is missing, truncated, altered, or of another version.
    """
    from .program.compiled import CompiledModel

    return CompiledModel.load(path)


if "tvm" in sys.modules and hasattr(sys.modules["tvm"], "relax"):
    # TVM was imported with its entry points turned off, or before this package was installed.
    from .plugin import register

    register()
