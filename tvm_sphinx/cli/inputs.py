"""Options that say what is known of a model's inputs: ``--input-shapes`` and ``--fix-input``."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import SphinxError


def add_input_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "--input-shapes", help="shapes of ONNX inputs that the file leaves open: 'x:[1,3],y:0:[1]'"
    )
    parser.add_argument(
        "--fix-input",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an input that always has this value, and is none of the program: 'rate=16000', "
        "'size=[2,3]', 'mask=mask.npy'; repeat it for more",
    )


def input_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return the options as `tvm_sphinx.program.options.CompileOptions` names them.

    Raises
    ------
    SphinxError
        If one has not its form, or a file cannot be read.
    """
    return {
        "input_shapes": parse_input_shapes(args.input_shapes),
        "fixed_inputs": parse_fixed_inputs(args.fix_input),
    }


def parse_input_shapes(text: str | None) -> dict[str, list[int]] | None:
    """Return the shapes by name of ``"x:[1,3], y:[1]"``.

    Raises
    ------
    SphinxError
        If the text has another form.
    """
    if text is None:
        return None
    # A name may hold colons, as those of TensorFlow do: what stands before the last one.
    pattern = r"\s*([^\s,\[\]]+)\s*:\s*\[([\d\s,]*)\]\s*"
    if not re.fullmatch(f"{pattern}(,{pattern})*", text):
        raise SphinxError(f"Expected --input-shapes in the form 'x:[1,3],y:[1]'; got {text!r}.")
    return {
        name: [int(extent) for extent in extents.split(",") if extent.strip()]
        for name, extents in re.findall(pattern, text)
    }


def parse_fixed_inputs(texts: Sequence[str]) -> dict[str, Any] | None:
    """Return the values by name of ``["rate=16000", "size=[2,3]", "mask=mask.npy"]``.

    Raises
    ------
    SphinxError
        If one has another form, a name is there twice, or a file cannot be read.
    """
    values: dict[str, Any] = {}
    for text in texts:
        name, sign, value = text.partition("=")
        name, value = name.strip(), value.strip()
        if not (sign and name and value):
            raise SphinxError(f"Expected --fix-input in the form 'NAME=VALUE'; got {text!r}.")
        if name in values:
            raise SphinxError(f"Expected one --fix-input for {name!r}; got another one, {text!r}.")
        values[name] = _value(value, text)
    return values or None


def _value(text: str, option: str) -> Any:
    """Return a number, true or false, a list of these, or the array of a file."""
    if Path(text).suffix == ".npy":
        from ..program.array_files import read_array

        return read_array(text)
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, bool | int | float | list):
        raise SphinxError(
            f"Expected --fix-input with a number, true or false, a list of these, or a .npy file; got "
            f"{option!r}."
        )
    return value
