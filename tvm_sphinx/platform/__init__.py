"""Devices that a model can be spread over: described in a file, or found on this machine.

The types know nothing of TVM. What makes a platform asks TVM for targets, and is imported when it is
first asked for: `load_platform` is the usual way, `detect_platform`, `unlike_cpus`,
`platform_of_targets` and `read_platform` are its parts.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .device import Device, Link
from .platform import NAMED_PLATFORMS, Platform

if TYPE_CHECKING:
    from .detect import detect_platform, platform_of_targets, unlike_cpus
    from .platform_file import load_platform, read_platform, remote_platform

_LAZY = {
    "detect_platform": "detect",
    "load_platform": "platform_file",
    "platform_of_targets": "detect",
    "read_platform": "platform_file",
    "remote_platform": "platform_file",
    "unlike_cpus": "detect",
}

__all__ = [
    "NAMED_PLATFORMS",
    "Device",
    "Link",
    "Platform",
    "detect_platform",
    "load_platform",
    "platform_of_targets",
    "read_platform",
    "remote_platform",
    "unlike_cpus",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f".{_LAZY[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
