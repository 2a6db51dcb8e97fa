"""``tvm-sphinx versions``: what a report of a fault needs."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
from importlib import metadata
from typing import Any

from ..platform.home import data_home
from .output import add_json_argument, print_json

_PACKAGES = (
    "apache-tvm",
    "apache-tvm-ffi",
    "numpy",
    "xgboost",
    "psutil",
    "cloudpickle",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "torch",
    "ortools",
    "matplotlib",
)
_LINKERS = ("cc", "gcc", "clang", "g++")


def add_parser(subparsers: Any, help_line: str) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "versions",
        help=help_line,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Print the versions of all that takes part, and the machine.",
        epilog="examples:\n  tvm-sphinx versions\n  tvm-sphinx versions --json > versions.json",
    )
    add_json_argument(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    told = collect()
    if args.json:
        print_json(told)
        return 0
    for name, value in told.items():
        print(f"{name:<20} {', '.join(value) if isinstance(value, list) else value}")
    return 0


def collect() -> dict[str, Any]:
    """Return versions, machine and places by their names; what is not installed is said so."""
    from .. import __version__
    from ..platform.machine import machine_id, usable_cores

    told: dict[str, Any] = {"tvm-sphinx": __version__, "python": sys.version.split()[0]}
    for package in _PACKAGES:
        try:
            told[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            told[package] = "not installed"
    cores = usable_cores()
    told |= {
        "system": platform.platform(),
        "machine": machine_id(),
        "cores": f"{len(cores)} usable ({', '.join(map(str, cores))})",
        "devices": _devices(),
        "libraries": _libraries(),
        "linker": next((path for name in _LINKERS if (path := shutil.which(name))), "none found"),
        "records": str(data_home()),
    }
    variables = [name for name in sorted(os.environ) if name.startswith(("TVM_SPHINX_", "TVM_NUM"))]
    told["environment"] = [f"{name}={os.environ[name]}" for name in variables] or "no variables"
    return told


def _libraries() -> list[str]:
    """Return the libraries that may compute kernels of a GPU (`compile --libraries`)."""
    from ..errors import UnsupportedError
    from ..runtime.libraries import LIBRARIES, find_library

    found = []
    for name in LIBRARIES:
        try:
            library = find_library(name)
        except UnsupportedError:
            found.append(f"{name} not found")
        else:
            found.append(f"{name} {'.'.join(map(str, library.version))} in {library.path}")
    return found


def _devices() -> Any:
    """Return the detected devices, or why there are none: a broken TVM is what a report is about."""
    try:
        from ..platform.detect import detect_platform

        return [repr(device).strip("<>").removeprefix("Device ") for device in detect_platform().devices]
    except Exception as error:  # whatever is wrong with TVM is what is to be told
        return f"not detected: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
