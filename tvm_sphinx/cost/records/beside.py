"""What lies beside a record file: kernels, names of models, predictions, and times in place."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .files import Entry, Selection, merge_lines, rewrite
from .in_place import in_place_path, parse_loop
from .json_lines import parse_object, split_lines
from .kernel_lines import archive_path, parse_kernel
from .models import models_path, parse_model
from .predictions import parse_predictions, predictions_path

_UNUSABLE = "torn, or of another schema"


def merge_kernels(sources: Sequence[Path], output: Path) -> Counter[str]:
    """Append to the kernels beside a record file those beside others, once each; nothing in it changes.

    The parameters are record files; returned and raised is what
    `tvm_sphinx.cost.records.files.merge_files` does.
    """
    return _merge(archive_path, sources, output, _kernel_entry)


def merge_notes(sources: Sequence[Path], output: Path) -> None:
    """Do the same for the names of models, predictions, and what loops came to."""
    _merge(models_path, sources, output, _model_entry)
    _merge(predictions_path, sources, output, _entry_by(parse_predictions))
    _merge(in_place_path, sources, output, _entry_by(parse_loop))


def _merge(
    path_of: Callable[[Path], Path],
    sources: Sequence[Path],
    output: Path,
    entry_of: Callable[[bytes], Entry | str],
) -> Counter[str]:
    files = [path for path in map(path_of, sources) if path.is_file()]
    return merge_lines(files, path_of(output), entry_of) if files else Counter(added=0)


def _kernel_entry(line: bytes) -> Entry | str:
    kept = parse_kernel(line)
    return _UNUSABLE if kept is None else ((kept.kernel, kept.tvm), kept.to_line())


def _model_entry(line: bytes) -> Entry | str:
    noted = parse_model(line)
    if noted is None:
        return _UNUSABLE
    return (noted.model, noted.kernels, tuple(sorted(noted.devices.items()))), line.decode()


def _entry_by(parse: Callable[[bytes], object | None]) -> Callable[[bytes], Entry | str]:
    """Return a function to the entry of a line that is as good as any other that reads the same."""

    def entry(line: bytes) -> Entry | str:
        return _UNUSABLE if parse(line) is None else (line.strip(), line.decode())

    return entry


def prune_notes(
    records: Path,
    selection: Selection,
    *,
    unreadable: bool = False,
    superseded: bool = False,
    dry_run: bool = False,
) -> int:
    """Drop predictions, and what loops came to, beside a record file; return how many lines went.

    Parameters
    ----------
    selection
        As for the records. Nothing is dropped by a condition that these have no answer to: one of
        kernels, or of what was measured.
    unreadable, superseded, dry_run
        As of `tvm_sphinx.cost.records.files.prune_file`.

    Raises
    ------
    SphinxError
        If a file cannot be read or written; it is then as it was.
    """
    dropped = 0

    def select(lines: list[bytes]) -> list[bytes]:
        nonlocal dropped
        contents = [parse_object(line) for line in lines]
        newest = {_loop_key(each): number for number, each in enumerate(contents)}
        kept = []
        for number, (line, content) in enumerate(zip(lines, contents, strict=True)):
            if content is None:
                is_meant = unreadable
            else:
                is_meant = _meets(selection, content)
                is_meant |= superseded and newest[_loop_key(content)] != number
            kept += [] if is_meant else [line]
        dropped += len(lines) - len(kept)
        return kept

    for path in (predictions_path(records), in_place_path(records)):
        if not path.is_file():
            continue
        if dry_run:
            select(split_lines(path.read_bytes()))
        else:
            rewrite(path, select, backup=True)
    return dropped


def _loop_key(content: dict[str, Any] | None) -> str:
    """Return what two loops have in common of which the later one counts; each prediction stays."""
    if content is None or "programs" not in content:
        return json.dumps(content)
    return json.dumps([content.get(name) for name in ("graph", "kernels", "classes", "tvm", "programs")])


def _meets(selection: Selection, content: dict[str, Any]) -> bool:
    if selection.is_empty or selection.kernel is not None or selection.kind is not None:
        return False
    classes = [str(one) for one in content.get("classes", [content.get("class", "")])]
    return selection.meets_origin(
        classes,
        content.get("tvm"),
        content.get("method"),
        time.time() - float(content.get("time", 0.0)),
        is_here=all(one.endswith(f" of {selection.not_machine}") for one in classes),
    )
