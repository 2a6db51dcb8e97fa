"""``tvm-sphinx records``: look at measured times, merge files of them, drop old ones, export them."""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..cost.records.models import ModelLine, read_models
from ..errors import SphinxError, known_choices
from ..platform.home import HOME_VARIABLE, data_home
from ..report.files import check_writable, write_text
from .limits import check_count
from .output import add_json_argument, print_json

if TYPE_CHECKING:
    from ..cost.records.files import Selection
    from ..cost.records.store import Record, RecordKey

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def add_parser(subparsers: Any, help_line: str) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "records",
        help=help_line,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=(
            "Work on files of measured times (JSON lines; see tvm_sphinx.cost.records.store).\n"
            f"Where no FILE is given: {data_home() / 'records.jsonl'}. {HOME_VARIABLE} moves it."
        ),
        epilog=(
            "examples:\n"
            "  tvm-sphinx records list --limit 20\n"
            "  tvm-sphinx records list model.jsonl --model resnet\n"
            f"  tvm-sphinx records merge {data_home() / 'records.jsonl'} -o first.jsonl   to share it\n"
            "  tvm-sphinx records merge board.jsonl laptop.jsonl -o all.jsonl\n"
            "  tvm-sphinx records prune --older-than 30d --dry-run"
        ),
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    listing = actions.add_parser(
        "list",
        help="print one line for each kernel, device and TVM version",
        description="Print one line for each kernel, device and TVM version, the newest last.",
        **_with_examples("list --limit 20", "list first.jsonl --kind copy --json"),
    )
    _add_file_and_filters(listing)
    _add_model(listing)
    listing.add_argument("--limit", type=int, metavar="N", help="print the newest N only")
    add_json_argument(listing)
    listing.set_defaults(run=run_list)
    merge = actions.add_parser(
        "merge",
        help="append to one file the records of others that it lacks, and the kernels beside them",
        description=(
            "Append to one file the records of others that it lacks. What lies beside first.jsonl is\n"
            "taken along: first.kernels.jsonl, for cost models; first.models.jsonl, names of models;\n"
            "first.predicted.jsonl, predicted times; first.in_place.jsonl, times within whole models."
        ),
        **_with_examples("merge first.jsonl", "merge board.jsonl laptop.jsonl -o all.jsonl"),
    )
    merge.add_argument("SOURCES", nargs="+", metavar="FILE", help="record files")
    merge.add_argument(
        "-o", "--output", default="default", help="the file that takes them; default: your own"
    )
    merge.set_defaults(run=run_merge)
    prune = actions.add_parser(
        "prune",
        help="drop the records that meet all conditions given",
        description=(
            "Drop the records that meet all conditions given, and what was predicted or seen in whole\n"
            "models that meets them, too. The old file stays as FILE.bak."
        ),
        **_with_examples("prune --older-than 30d --dry-run", "prune --other-tvm --superseded"),
    )
    _add_file_and_filters(prune)
    prune.add_argument("--other-machines", action="store_true", help="measured on another machine")
    prune.add_argument("--other-tvm", action="store_true", help="of a TVM that is not installed here")
    prune.add_argument(
        "--other-method", action="store_true", help="timed as this version does not time any more"
    )
    prune.add_argument("--unreadable", action="store_true", help="also lines torn or of another schema")
    prune.add_argument("--superseded", action="store_true", help="also records that have a newer one")
    prune.add_argument("--dry-run", action="store_true", help="only say what would go")
    prune.set_defaults(run=run_prune)
    export = actions.add_parser(
        "export",
        help="write records as CSV or JSON",
        description="Write records as CSV or JSON, for other programs; 'merge' takes record files.",
        **_with_examples("export -o times.csv", "export first.jsonl --kind kernel -o times.json"),
    )
    _add_file_and_filters(export)
    _add_model(export)
    export.add_argument("-o", "--output", metavar="OUT", help="default: the terminal")
    export.add_argument("--format", choices=("csv", "json"), help="default: by the name of OUT, or csv")
    export.set_defaults(run=run_export)


def _with_examples(*examples: str) -> dict[str, Any]:
    """Return what gives a parser its examples."""
    told = "\n".join(f"  tvm-sphinx records {example}" for example in examples)
    raw = argparse.RawDescriptionHelpFormatter
    return {"formatter_class": raw, "epilog": f"examples:\n{told}"}


def _add_file_and_filters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("FILE", nargs="?", default="default", help="default: the user's own records")
    parser.add_argument("--kernel", metavar="TEXT", help="whose id contains this")
    parser.add_argument(
        "--device-class", metavar="TEXT", help="whose target, device or machine has this"
    )
    parser.add_argument("--tvm", metavar="VERSION", help="measured with this version of TVM")
    parser.add_argument("--kind", help="kernel, copy or load")
    parser.add_argument("--older-than", metavar="AGE", help="such as 12h, 30d or 8w")


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", metavar="TEXT", help="of models whose name contains this")


def run_list(args: argparse.Namespace) -> int:
    """Print a table of records, newest last."""
    from ..cost.records.store import keep_newest

    check_count(args.limit, "--limit")
    selection = _selection(args)
    newest: dict[RecordKey, Record] = {}
    counts: Counter[RecordKey] = Counter()
    for record in _selected(args.FILE, selection, args.model):
        keep_newest(newest, record)
        counts[record.key] += 1
    rows = sorted(newest.values(), key=lambda record: record.time)
    if args.limit is not None:
        rows = rows[-args.limit :]
    noted = read_models(_path(args.FILE))
    counted = [(record, counts[record.key]) for record in rows]
    if args.json:
        print_json({"records": [_as_json(record, count, noted) for record, count in counted]})
    else:
        print(format_table(counted, time.time(), noted))
    return 0


def _as_json(record: Record, count: int, noted: Sequence[ModelLine]) -> dict[str, Any]:
    told = {**json.loads(record.to_line()), "records": count}
    return {**told, "models": _models(record, noted), "devices": _devices(record, noted)}


def _models(record: Record, noted: Sequence[ModelLine]) -> list[str]:
    """Return the models that a record's kernel belongs to; a copy belongs to none alone."""
    return list(dict.fromkeys(line.model for line in noted if record.kernel in line.kernels))


def _devices(record: Record, noted: Sequence[ModelLine]) -> list[str]:
    """Return what platforms call the device of a record."""
    names = (line.devices.get(record.device_class) for line in noted)
    return list(dict.fromkeys(name for name in names if name))


def format_table(rows: Sequence[tuple[Record, int]], now: float, noted: Sequence[ModelLine] = ()) -> str:
    """Return a table with one row for each key: its newest record, and how many records it has.

    ``noted`` says which models and devices they belong to.
    """
    from ..cost.records.store import median_and_spread

    head = (
        *("kind", "kernel", "models", "records", "samples", "median", "spread", "load", "age", "tvm"),
        "device",
    )
    table = [head]
    for newest, count in rows:
        times = ("cannot run", "")
        if newest.samples_ns:
            median, spread = median_and_spread(newest.samples_ns)
            times = (f"{median / 1e3:.1f} us", f"{spread / max(1, median):.1%}")
        table.append(
            (
                newest.kind,
                newest.kernel,
                ", ".join(_models(newest, noted)) or "-",
                str(count),
                str(len(newest.samples_ns)),
                *times,
                f"{newest.host_load:.1f}",
                format_age(now - newest.time),
                newest.tvm,
                "/".join(_devices(newest, noted))
                + (": " if _devices(newest, noted) else "")
                + f"{_short_target(newest.where.target)}, {newest.where.device}, {newest.where.machine}",
            )
        )
    widths = [max(len(row[column]) for row in table) for column in range(len(head))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in table
    ]
    lines.append(
        f"{sum(count for _, count in rows)} records of {len({record.kernel for record, _ in rows})} "
        f"kernels on {len({record.device_class for record, _ in rows})} kinds of device"
    )
    return "\n".join(line.rstrip() for line in lines)


def format_age(seconds: float) -> str:
    """Return an age with its largest unit: ``"5d"``."""
    for unit in ("d", "h", "m"):
        if seconds >= _UNITS_S[unit]:
            return f"{seconds / _UNITS_S[unit]:.0f}{unit}"
    return f"{max(0.0, seconds):.0f}s"


def parse_age(text: str | None) -> float | None:
    """Return seconds of an age such as ``"12h"``.

    Raises
    ------
    SphinxError
        If it has another form.
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", text)
    if match is None:
        raise SphinxError(f"Expected --older-than as a number and s, m, h, d or w; got {text!r}.")
    return float(match[1]) * _UNITS_S[match[2]]


def _short_target(target: str) -> str:
    """Return kind and processor of each target in a device class."""

    def short(match: re.Match[str]) -> str:
        try:
            config = json.loads(match[0])
        except json.JSONDecodeError:
            return match[0]
        return " ".join(str(config[key]) for key in ("kind", "mcpu", "arch") if key in config)

    return re.sub(r"\{[^{}]*\}", short, target)


def run_merge(args: argparse.Namespace) -> int:
    """Merge files, and the kernels beside them, and print what came of each line."""
    from ..cost.records.beside import merge_kernels, merge_notes
    from ..cost.records.files import merge_files
    from ..cost.records.json_lines import check_is_ours
    from ..cost.records.kernel_lines import archive_path

    output = _path(args.output)
    sources = [_path(source) for source in args.SOURCES]
    for source in sources:
        check_is_ours(source)
    # Kernels without times are harmless, if the records cannot be written; times without kernels are
    # nothing to learn from.
    kernels = merge_kernels(sources, output)
    merge_notes(sources, output)
    records = merge_files(sources, output)
    _print_merged("records", output, records)
    if kernels.total():
        _print_merged("kernels", archive_path(output), kernels)
    return 0


def _print_merged(kind: str, output: Path, counts: Counter[str]) -> None:
    added, already = counts.pop("added"), counts.pop("already", 0)
    print(f"added {added} {kind} to {output}; {already} were there already")
    for reason, count in sorted(counts.items()):
        print(f"left out {count} lines of {kind} {reason}", file=sys.stderr)


def run_prune(args: argparse.Namespace) -> int:
    """Drop records and print how many."""
    from ..cost.records.beside import prune_notes
    from ..cost.records.files import prune_file
    from ..cost.records.store import METHOD
    from ..platform.machine import machine_id

    extra: dict[str, Any] = {}
    if args.other_machines:
        extra["not_machine"] = machine_id()
    if args.other_tvm:
        from .._tvm import tvm

        extra["not_tvm"] = str(tvm.__version__)
    if args.other_method:
        extra["not_method"] = METHOD
    selection = _selection(args, **extra)
    if selection.is_empty and not args.unreadable and not args.superseded:
        raise SphinxError(
            "Expected a condition, such as --older-than 30d; with none, nothing is dropped."
        )
    path = _path(args.FILE)
    how = {
        "unreadable": args.unreadable,
        "superseded": args.superseded,
        "dry_run": args.dry_run,
    }
    result = prune_file(path, selection, **how)
    beside = prune_notes(path, selection, **how)
    verb = "would drop" if args.dry_run else "dropped"
    print(
        f"{verb} {result.dropped} records, {result.superseded} superseded ones and {result.unreadable} "
        f"unreadable lines; {result.kept} lines stay in {path}"
    )
    if beside:
        print(f"{verb} {beside} lines of predictions and of times in place beside it")
    return 0


def run_export(args: argparse.Namespace) -> int:
    """Write records as CSV or JSON."""
    from ..cost.records.files import export_records

    check_writable(args.output)
    form = args.format or ("json" if str(args.output).endswith(".json") else "csv")
    text = export_records(_selected(args.FILE, _selection(args), args.model), form)
    if args.output is None:
        sys.stdout.write(text)
    else:
        write_text(args.output, text)
        print(f"wrote                {args.output}")
    return 0


def _path(name: str) -> Path:
    from ..cost.records.store import default_record_path

    return default_record_path() if name == "default" else Path(name)


def _selection(args: argparse.Namespace, **extra: Any) -> Selection:
    from ..cost.records.files import Selection
    from ..cost.records.store import KINDS

    if args.kind is not None and args.kind not in KINDS:
        raise SphinxError(known_choices("kind of record", args.kind, KINDS))
    return Selection(
        kernel=args.kernel,
        device_class=args.device_class,
        tvm=args.tvm,
        kind=args.kind,
        older_than_s=parse_age(args.older_than),
        **extra,
    )


def _selected(name: str, selection: Selection, model: str | None = None) -> list[Record]:
    from ..cost.records.files import unreadable
    from ..cost.records.store import read_records

    path, now = _path(name), time.time()
    wanted = None
    if model is not None:
        lines = [line for line in read_models(path) if model in line.model]
        if not lines:
            names = dict.fromkeys(line.model for line in read_models(path))
            raise SphinxError(known_choices("model of these records", model, names))
        wanted = {kernel for line in lines for kernel in line.kernels}
    try:
        return [
            record
            for record in read_records(path)
            if selection.meets(record, now) and (wanted is None or record.kernel in wanted)
        ]
    except OSError as error:
        raise unreadable(path, error) from error
