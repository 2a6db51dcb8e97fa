"""Targets on the command line, in the forms that tvmc took."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

from ..errors import SphinxError

#: Options of targets that have options of their own on the command line, as in tvmc.
TARGET_OPTIONS = {
    "llvm": ("mcpu", "mattr", "mtriple", "mabi", "num-cores"),
    "c": ("mcpu", "march"),
    "cuda": ("arch", "max_num_threads", "thread_warp_size"),
}
SHOWN = ("mcpu", "arch")


def add_target_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--target-KIND-OPTION``."""
    for kind, attributes in TARGET_OPTIONS.items():
        for attribute in attributes:
            parser.add_argument(
                f"--target-{kind}-{attribute}",
                metavar="VALUE",
                help=f"{attribute} of the {kind} targets" if attribute in SHOWN else argparse.SUPPRESS,
            )


def given_targets(args: argparse.Namespace) -> list[str]:
    """Return the targets of ``--target`` with those of ``--target-KIND-OPTION`` in them.

    Raises
    ------
    SphinxError
        If there is an option of a kind that no target is of, or a file cannot be read.
    """
    from ..platform.target_text import parse_target

    texts = [text for given in args.target or () for text in split_targets(given)]
    for kind, attributes in TARGET_OPTIONS.items():
        options = {name: getattr(args, f"target_{kind}_{name}".replace("-", "_")) for name in attributes}
        chosen = {name: value for name, value in options.items() if value is not None}
        if not chosen:
            continue
        same = [n for n, text in enumerate(texts) if json.loads(parse_target(text))["kind"] == kind]
        if not same:
            raise SphinxError(f"Expected --target {kind} with --target-{kind}-{next(iter(chosen))}.")
        added = json.loads(parse_target(" ".join([kind, *(f"-{n}={v}" for n, v in chosen.items())])))
        for number in same:
            texts[number] = json.dumps({**json.loads(parse_target(texts[number])), **added})
    return texts


def split_targets(text: str) -> list[str]:
    """Return the targets of ``"cuda -arch=sm_90, llvm -mcpu=znver4"``, of JSON, or of a .json file.

    Raises
    ------
    SphinxError
        If the file cannot be read.
    """
    if text.strip().startswith("{"):
        return [text]
    if text.endswith(".json"):
        try:
            return [Path(text).read_text(encoding="utf-8")]
        except OSError as error:
            raise SphinxError(f"Cannot read target file {text!r}: {error.strerror}.") from error
    kinds = "llvm|cuda|rocm|opencl|vulkan|metal|c"
    return re.split(rf",\s*(?=(?:{kinds})(?:\s|,|$))", text.strip())
