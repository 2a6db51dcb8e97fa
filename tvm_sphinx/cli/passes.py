"""Options on TVM's passes, as tvmc had them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import SphinxError, known_choices
from ..report.files import check_writable
from .parser import names_of


def add_pass_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    group = parser.add_argument_group(
        "TVM's passes", "Times of kernels are on record apart for each choice of these."
    )
    group.add_argument(
        "--pass-config",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an entry of TVM's PassContext, 'tirx.disable_vectorize=true'; repeat it for more",
    )
    group.add_argument("--disabled-pass", metavar="NAME,...", help="passes that TVM leaves out")
    group.add_argument("--print-pass-times", action="store_true", help="print what each pass took")
    group.add_argument("--dump-ir", metavar="DIR", help="write the module after each phase")
    group.add_argument(
        "--dump-code",
        metavar="FORM,...",
        help="write the code beside the output: relax, tir, ll, asm, source",
    )
    group.add_argument(
        "--dump-offloads", metavar="FILE", help="write which device runs which operators; '-': print"
    )


def dump_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return the options as `tvm_sphinx.program.options.CompileOptions` names them."""
    forms = names_of(args.dump_code)
    stem = Path(args.output or Path(args.FILE).name)
    if stem.name:  # a folder, which is no model, may have none
        stem = stem.with_suffix("")
    return {"dump_ir": args.dump_ir, "dump_code": forms, "dump_code_to": stem}


def dumped_code(args: argparse.Namespace) -> str:
    """Return how the files of `dump_options` are named, and what is in them; "" without any."""
    options = dump_options(args)
    return f"{options['dump_code_to']}.* ({', '.join(options['dump_code'])})" * bool(
        options["dump_code"]
    )


def check_dumps(args: argparse.Namespace) -> None:
    """Check, before any work, that what is to be dumped can be written."""
    if args.dump_offloads != "-":
        check_writable(args.dump_offloads)


@contextmanager
def chosen_passes(args: argparse.Namespace) -> Iterator[None]:
    """Run TVM's passes as the options say; what they took is printed at the end.

    Raises
    ------
    SphinxError
        If TVM knows no such entry, or it is of another type.
    """
    if not (args.pass_config or args.disabled_pass or args.print_pass_times):
        yield
        return
    from .._tvm import tvm

    timing = tvm.ir.instrument.PassTimingInstrument()
    config = pass_config(args.pass_config)
    disabled = disabled_passes(args.disabled_pass or "")
    instruments = [timing] if args.print_pass_times else []
    with tvm.transform.PassContext(config=config, disabled_pass=disabled, instruments=instruments):
        yield
        told = timing.render() if instruments else ""
    if told:
        print(told.rstrip(), file=sys.stderr)


def disabled_passes(text: str) -> list[str]:
    """Return the passes of ``"NAME,NAME"``.

    Raises
    ------
    SphinxError
        If TVM has no pass of such a name.
    """
    names = list(names_of(text))
    known = _pass_names() if names else set()
    for name in names:
        if name not in known:
            part = name.rpartition(".")[2].lower()
            same = [other for other in known if part in other.lower()] or known
            raise SphinxError(known_choices("pass of --disabled-pass", name, sorted(same)))
    return names


def _pass_names() -> set[str]:
    """Return the names of TVM's passes: what they call themselves, which TVM keeps no list of."""
    from .._tvm import tvm_ffi

    names: set[str] = set()
    for entry in tvm_ffi.registry.list_global_func_names():
        dialect, found, name = entry.partition(".transform.")
        if not found:
            continue
        names.add(name if dialect == "relax" else f"{dialect}.{name}")
        try:
            names.add(str(tvm_ffi.get_global_func(entry)().info.name))
        except Exception:  # it takes arguments, or is no pass
            continue
    return names


def pass_config(entries: Sequence[str]) -> dict[str, Any]:
    """Return the entries of ``["name=value", ...]`` with values of the types that TVM gives them.

    Raises
    ------
    SphinxError
        If one has another form, TVM does not know it, or it is of another type.
    """
    from .._tvm import tvm

    known = tvm.transform.PassContext.list_configs()
    config: dict[str, Any] = {}
    for entry in entries:
        name, sign, text = entry.partition("=")
        if not sign:
            raise SphinxError(f"Expected --pass-config in the form 'name=value'; got {entry!r}.")
        if name not in known:
            same = [other for other in known if name.rpartition(".")[2] in other] or known
            raise SphinxError(known_choices("entry of --pass-config", name, sorted(same)))
        config[name] = _value(name, text, str(known[name]["type"]))
    return config


def _value(name: str, text: str, kind: str) -> Any:
    lowered = text.strip().lower()
    if "bool" in kind.lower():
        if lowered in ("true", "1", "false", "0"):
            return lowered in ("true", "1")
        raise SphinxError(f"Expected --pass-config {name} as true or false; got {text!r}.")
    if "int" in kind.lower():
        if lowered.lstrip("-").isdigit():
            return int(lowered)
        raise SphinxError(f"Expected --pass-config {name} as a whole number; got {text!r}.")
    return text
