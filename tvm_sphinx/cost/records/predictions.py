"""What was predicted of kernels, in a file beside the records, so that it is predicted once."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ...notice import warn
from .json_lines import append_line, parse_object, split_lines, to_line
from .store import METHOD

#: Version of the line format; lines of another version are left alone and not used.
SCHEMA = 1

#: Time and spread in ns.
Times = tuple[int, int]


@dataclass(frozen=True)
class PredictedLine:
    """Times of kernels, by their ids in the records, on one class of devices.

    ``model`` is the fingerprint of what predicted them, and ``label`` says it to people.
    """

    device_class: str
    tvm: str
    model: str
    label: str
    times: Mapping[str, Times]


def predictions_path(records: Path) -> Path:
    """Return the file that belongs to a record file: ``records.predicted.jsonl``."""
    return records.with_name(f"{records.stem}.predicted.jsonl")


class KeptPredictions:
    """The predictions beside a record file, and new ones appended to it; in memory alone without a file.

    Of several predictions of a kernel on a class of devices the first one stays, so that what was
    decided by it is decided again in the same way.
    """

    def __init__(self, records: Path | None) -> None:
        self._path = None if records is None else predictions_path(records)
        self._lines: list[PredictedLine] = []
        if self._path is not None and self._path.is_file():
            found = map(parse_predictions, split_lines(self._path.read_bytes()))
            self._lines = [line for line in found if line is not None]

    def get(self, kernel: str, device_class: str, tvm: str, model: str | None) -> Times | None:
        """Return what was predicted of a kernel, None if nothing was; if one is named, by that model."""
        wanted = device_class, tvm
        for line in self._lines:
            is_asked = (line.device_class, line.tvm) == wanted and model in (None, line.model)
            if is_asked and kernel in line.times:
                return line.times[kernel]
        return None

    def labels(self, device_classes: set[str], model: str | None) -> tuple[str, ...]:
        """Return what predicted times of these classes of devices, as people are told."""
        used = [
            line.label
            for line in self._lines
            if line.device_class in device_classes and model in (None, line.model)
        ]
        return tuple(dict.fromkeys(used))

    def add(self, line: PredictedLine) -> None:
        """Keep predictions. A full disk costs the line, with a warning, and not the run."""
        self._lines.append(line)
        if self._path is None:
            return
        content = {
            "method": METHOD,
            "class": line.device_class,
            "tvm": line.tvm,
            "model": line.model,
            "label": line.label,
            "time": time.time(),
            "times": {kernel: list(times) for kernel, times in line.times.items()},
        }
        try:
            append_line(self._path, to_line(SCHEMA, content))
        except OSError as error:
            warn(f"Cannot append to {self._path}: {error.strerror}.")


def parse_predictions(line: bytes) -> PredictedLine | None:
    """Return the predictions of a line, None if it is torn, of another version, or of another method."""
    content = parse_object(line)
    if content is None or content.get("schema") != SCHEMA or content.get("method") != METHOD:
        return None
    texts = [content.get(name) for name in ("class", "tvm", "model", "label")]
    times = content.get("times")
    if not all(isinstance(text, str) for text in texts) or not isinstance(times, dict):
        return None
    if not all(_is_times(value) for value in times.values()):
        return None
    device_class, tvm, model, label = map(str, texts)
    return PredictedLine(
        device_class, tvm, model, label, {kernel: (ns[0], ns[1]) for kernel, ns in times.items()}
    )


def _is_times(value: object) -> bool:
    if not isinstance(value, list) or len(value) != 2:
        return False
    return all(type(ns) is int and 0 <= ns < 10**15 for ns in value) and value[0] > 0
