"""Platforms that users name: a file, one of this machine's, or one of other machines. [TVM]"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import PlatformError
from .detect import detect_platform, platform_of_targets, resolve_target, unlike_cpus, with_kinds
from .platform import NAMED_PLATFORMS, Platform

_MAKERS = dict(zip(NAMED_PLATFORMS, (detect_platform, unlike_cpus), strict=True))


def load_platform(platform: Platform | str | Path = "detect") -> Platform:
    """Return the platform of a name in `NAMED_PLATFORMS`, or of a file; a platform stays as it is.

    Raises
    ------
    PlatformError
        As of `read_platform`; or if it is nothing of these.
    """
    if isinstance(platform, Platform):
        return platform
    if not isinstance(platform, str | Path):  # a number would be a file that is open
        raise PlatformError(
            f"Expected a platform as a Platform, the name of a TOML file, or one of: "
            f"{', '.join(NAMED_PLATFORMS)}; got {platform!r:.80}."
        )
    make = _MAKERS.get(str(platform))
    return make() if make else read_platform(platform)


def read_platform(path: str | Path) -> Platform:
    """Read a platform from a TOML file, whose form is that of `Platform.to_json`.

    Devices of this machine that give no kinds of core get those that are found (`with_kinds`).

    Raises
    ------
    PlatformError
        If the file is missing, is not TOML, does not describe a platform, or names a target that TVM
        does not know.
    """
    try:
        with open(path, "rb") as file:
            content = tomllib.load(file)
    except OSError as error:
        raise PlatformError(
            f"Cannot read platform file {str(path)!r}: {error.strerror}. Give a TOML file or one "
            f"of: {', '.join(NAMED_PLATFORMS)}."
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PlatformError(f"Platform file {str(path)!r} is not valid TOML: {error}.") from error
    return with_kinds(Platform.from_json(_with_targets(content), repr(str(path))))


def remote_platform(
    platform: str, targets: Sequence[str] | None, rpc_key: str, rpc_tracker: str | None
) -> Platform:
    """Return a platform file's devices, or those of targets, on the machines of an RPC key.

    Devices that have a key of their own keep it. Where there are targets, the file is not read.

    Raises
    ------
    PlatformError
        If no tracker is given, or the platform is one of this machine.
    """
    if rpc_tracker is None:
        raise PlatformError(f"Expected --rpc-tracker HOST:PORT with --rpc-key {rpc_key}.")
    if targets:
        return platform_of_targets(targets).with_rpc_key(rpc_key)
    if platform in NAMED_PLATFORMS:
        raise PlatformError(
            f"Expected a platform file or --target with --rpc-key; {platform!r} is this machine."
        )
    return read_platform(platform).with_rpc_key(rpc_key)


def _with_targets(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a file says with its named targets in place of their words; the rest as it is."""
    devices = content.get("device", [])
    if not isinstance(devices, list) or not all(isinstance(entry, dict) for entry in devices):
        return dict(content)
    resolved = [
        {**entry, "target": resolve_target(entry["target"], f"target of device {entry.get('name')!r}")}
        if "target" in entry
        else entry
        for entry in devices
    ]
    return {**content, "device": resolved}
