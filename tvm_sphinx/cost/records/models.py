"""Which models and devices the lines of a record file belong to, in a file beside it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...notice import warn
from .json_lines import append_line, parse_object, split_lines, to_line

#: Version of the line format; lines of another version are left alone and not used.
SCHEMA = 1


@dataclass(frozen=True)
class ModelLine:
    """A model as it was costed: its kernels by their ids in the records, its devices by class."""

    model: str
    kernels: tuple[str, ...]
    devices: Mapping[str, str]


def models_path(records: Path) -> Path:
    """Return the file that belongs to a record file: ``records.models.jsonl``."""
    return records.with_name(f"{records.stem}.models.jsonl")


def note_model(
    records: Path | None, model: str, kernels: Iterable[str], devices: Mapping[str, str]
) -> None:
    """Append a line for a model unless there is one that says the same.

    Parameters
    ----------
    records
        The record file; None for records in memory, of which nothing is noted.
    devices
        Names of devices by device class, as `tvm_sphinx.cost.records.store.Record.device_class` has it.
    """
    if records is None:
        return
    line = ModelLine(model, tuple(sorted(kernels)), dict(sorted(devices.items())))
    if line in read_models(records):
        return
    content = {"model": line.model, "kernels": list(line.kernels), "devices": dict(line.devices)}
    try:
        append_line(models_path(records), to_line(SCHEMA, {**content, "time": time.time()}))
    except OSError as error:
        warn(f"Cannot append to {models_path(records)}: {error.strerror}.")


def read_models(records: Path) -> list[ModelLine]:
    """Return what is noted beside a record file, oldest first; lines that are none are left out."""
    path = models_path(records)
    if not path.is_file():
        return []
    lines = (parse_model(line) for line in split_lines(path.read_bytes()))
    return [line for line in lines if line is not None]


def parse_model(line: bytes) -> ModelLine | None:
    """Return the model of a line, None if it is torn or of another version."""
    content = parse_object(line)
    if content is None or content.get("schema") != SCHEMA:
        return None
    model, kernels, devices = (content.get(name) for name in ("model", "kernels", "devices"))
    if not isinstance(model, str) or not _are_texts(kernels, list) or not _are_texts(devices, dict):
        return None
    assert isinstance(kernels, list)
    assert isinstance(devices, dict)
    return ModelLine(model, tuple(kernels), devices)


def _are_texts(value: Any, kind: type[list[Any]] | type[dict[Any, Any]]) -> bool:
    if not isinstance(value, kind):
        return False
    parts: list[Any] = [*value, *value.values()] if isinstance(value, dict) else list(value)
    return all(isinstance(part, str) for part in parts)
