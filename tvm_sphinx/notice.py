"""Warnings for those who call this package."""

from __future__ import annotations

import sys
import warnings
from types import FrameType

# What stands between a user's line and the warning: this package, and TVM where it calls a pass of ours.
_BETWEEN = ("tvm_sphinx", "tvm", "tvm_ffi")


def warn(message: str) -> None:
    """Warn, and name the line of the user's own that led here."""
    level = 2
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and _root(frame) in _BETWEEN:
        frame = frame.f_back
        level += 1
    warnings.warn(message, stacklevel=level)


def _root(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]
