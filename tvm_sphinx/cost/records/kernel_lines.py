"""Kernels on file beside the records of their times: the lines, without TVM."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...notice import warn
from .json_lines import parse_object, split_lines, to_line

#: Version of the line format; lines of another version are left alone and not used.
SCHEMA = 1


@dataclass(frozen=True)
class ArchivedKernel:
    """A kernel as it was built and measured.

    Parameters
    ----------
    kernel
        Id of the implementation, as in its records.
    group
        Id of the kernel before it was scheduled for a device.
    tvm
        Version of apache-tvm that wrote the function.
    weights
        Positions of the arguments that are constants.
    reuse_bytes
        What is read of weights between two uses of them.
    packed
        The function as TVM's JSON, compressed.
    """

    kernel: str
    group: str
    tvm: str
    weights: tuple[int, ...]
    reuse_bytes: int
    packed: str

    def to_line(self) -> str:
        """Return the line of a file of kernels, with its line break."""
        return to_line(SCHEMA, self.__dict__)


def archive_path(records: Path) -> Path:
    """Return the file of kernels that belongs to a record file: ``records.kernels.jsonl``."""
    return records.with_name(f"{records.stem}.kernels.jsonl")


def read_kernels(path: Path) -> Iterator[ArchivedKernel]:
    """Yield the kernels of a file, oldest first; lines that are none are counted in one warning."""
    bad = 0
    for line in split_lines(path.read_bytes()):
        kept = parse_kernel(line)
        if kept is None:
            bad += 1
        else:
            yield kept
    if bad:
        warn(f"{path}: {bad} lines are torn, or of another schema, and are not used.")


def parse_kernel(line: bytes) -> ArchivedKernel | None:
    """Return the kernel of a line, None if it is torn, malformed, or of another schema."""
    content: Any = parse_object(line)
    if content is None or content.get("schema") != SCHEMA:
        return None
    kernel, group, version, packed = (content.get(name) for name in ("kernel", "group", "tvm", "packed"))
    if not all(isinstance(value, str) for value in (kernel, group, version, packed)):
        return None
    weights, reuse = content.get("weights"), content.get("reuse_bytes")
    if not isinstance(weights, list) or not all(map(_is_count, [*weights, reuse])):
        return None
    return ArchivedKernel(kernel, group, version, tuple(weights), reuse, packed)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 63
