"""Options that hold a schedule to something: pins, devices left out, memory, a given schedule."""

from __future__ import annotations

import argparse
import re
from typing import Any

from ..errors import SphinxError

_UNITS = {"": 1, "B": 1}
_UNITS |= {f"{letter}iB": 2 ** (10 * power) for power, letter in enumerate("KMGT", 1)}
_UNITS |= {f"{letter}B": 10 ** (3 * power) for power, letter in enumerate("KMGT", 1)}


def add_limit_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    group = parser.add_argument_group("pins and limits", "Every search obeys these.")
    group.add_argument(
        "--pin",
        action="append",
        default=[],
        metavar="TASKS=DEVICE",
        help="tasks that run on a device: 'conv*=core0', 'Conv_12=gpu', 'matmul=core0|core1'. What "
        "matches is the name of a task, its operators, or those of the model file; repeat it for more",
    )
    group.add_argument("--pin-file", metavar="FILE", help="pins, one a line; --pin counts more")
    group.add_argument(
        "--exclude-device", action="append", default=[], metavar="NAME", help="leave this device out"
    )
    group.add_argument(
        "--memory",
        action="append",
        default=[],
        metavar="DEVICE=SIZE",
        help="capacity of a device, 'gpu0=2GiB'",
    )
    group.add_argument(
        "--fix-schedule",
        metavar="FILE.json",
        help="take this schedule in place of a search ('explain OUT --schedule FILE.json' writes one)",
    )


def check_count(value: int | None, option: str) -> None:
    """Check that a number of things, if it was given, is one at least.

    Raises
    ------
    SphinxError
        If it is not.
    """
    if value is not None and value < 1:
        raise SphinxError(f"Expected {option} >= 1; got {value}.")


# Options that say how a model is compiled, and what they are where they are not given.
_OF_MODELS: dict[str, Any] = {
    "platform": "detect",
    "target": None,
    "input_shapes": None,
    "fix_input": [],
    "entry": None,
    "records": "default",
    "pin": [],
    "pin_file": None,
    "exclude_device": [],
    "memory": [],
    "fix_schedule": None,
}


def check_of_program(args: argparse.Namespace) -> None:
    """Check that nothing is asked of a program that only a compilation can do.

    Raises
    ------
    SphinxError
        If an option is given that says how to compile a model.
    """
    given = [name for name, default in _OF_MODELS.items() if getattr(args, name, default) != default]
    if given:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise SphinxError(
            f"Expected a model with {options}; {args.FILE!r} is taken for a program, which was compiled "
            f"with its own: compile the model with {options} -o OUT, and give OUT."
        )


def limit_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return the options as `tvm_sphinx.program.options.CompileOptions` names them.

    Raises
    ------
    SphinxError
        If one has not its form.
    """
    from ..scheduling.constraints import parse_pin, read_pins

    in_file = () if args.pin_file is None else read_pins(args.pin_file)
    return {
        "pins": (*in_file, *map(parse_pin, args.pin)),
        "exclude_devices": tuple(args.exclude_device),
        "memory_bytes": dict(map(parse_memory, args.memory)) or None,
        "fixed_schedule": args.fix_schedule,
    }


def parse_memory(text: str) -> tuple[str, int]:
    """Return device and bytes of ``"gpu0=2GiB"``; KiB, MiB, GiB, TiB, or KB, MB, GB, TB.

    Raises
    ------
    SphinxError
        If the text has another form.
    """
    match = re.fullmatch(r"\s*([^=]+?)\s*=\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    if match is None or match[3] not in _UNITS:
        raise SphinxError(f"Expected --memory in the form 'gpu0=2GiB'; got {text!r}.")
    return match[1], int(float(match[2]) * _UNITS[match[3]])
