"""What was measured, kept beside its times: kernels as they were scheduled, to learn from later. [TVM]

A record tells how long a kernel took, not what it is. Kernels are kept as text rather than as features,
so that what was measured stays of use when the features change.
"""

from __future__ import annotations

import base64
import warnings
import weakref
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..._tvm import tvm
from ...errors import SphinxError
from ...extract import Kernel
from ..json_lines import append_line, parse_object, split_lines, to_line
from ..records import RecordStore

#: Version of the line format; lines of another version are left alone and not used.
SCHEMA = 1


@dataclass(frozen=True)
class KernelText:
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

    def function(self) -> Any:
        """Return the scheduled PrimFunc.

        Raises
        ------
        SphinxError
            If what is on file is none, or lacks an argument that is said to be a weight.
        """
        try:
            function = tvm.ir.load_json(zlib.decompress(base64.b85decode(self.packed)).decode())
            num_params = len(function.params)
        except Exception as error:  # a damaged line; TVM raises many types
            raise SphinxError(f"The kernel {self.kernel!r} on file cannot be read.") from error
        if max(self.weights, default=0) >= num_params:
            raise SphinxError(
                f"Expected weights of kernel {self.kernel!r} below {num_params}; got {self.weights}."
            )
        return function


class KernelTexts:
    """The kernels of a file beside the records, and new ones appended to it as they are measured."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._texts: dict[tuple[str, str], KernelText] = {}
        if path is not None and path.is_file():
            for text in read_texts(path):
                self._texts[text.kernel, text.tvm] = text

    @classmethod
    def beside(cls, records: RecordStore) -> KernelTexts:
        """Return those that belong to a record store; in memory alone if it has no file."""
        if records not in _OF_STORE:
            _OF_STORE[records] = cls(None if records.path is None else text_path(records.path))
        return _OF_STORE[records]

    def __len__(self) -> int:
        return len(self._texts)

    def __iter__(self) -> Iterator[KernelText]:
        return iter(self._texts.values())

    def add(self, key: str, function: Any, kernel: Kernel) -> None:
        """Keep a kernel as implemented, by the key of its records.

        A full disk costs it, with a warning, and not the run.
        """
        version = str(tvm.__version__)
        if function is None or (key, version) in self._texts:
            return
        if "target" in (function.attrs or {}):
            function = function.without_attr("target")
        packed = zlib.compress(str(tvm.ir.save_json(function)).encode(), 6)
        text = KernelText(
            key,
            kernel.id,
            version,
            tuple(int(position) for position in kernel.weights),
            int(kernel.reuse_bytes),
            base64.b85encode(packed).decode(),
        )
        self._texts[key, version] = text
        if self.path is None:
            return
        try:
            append_line(self.path, to_line(SCHEMA, text.__dict__))
        except OSError as error:
            warnings.warn(f"Cannot append to {self.path}: {error.strerror}.", stacklevel=2)


# A file is read once for each store, however many kernels are measured one after the other.
_OF_STORE: weakref.WeakKeyDictionary[RecordStore, KernelTexts] = weakref.WeakKeyDictionary()


def text_path(records: Path) -> Path:
    """Return the file of kernels that belongs to a record file: ``records.kernels.jsonl``."""
    return records.with_name(f"{records.stem}.kernels.jsonl")


def read_texts(path: Path) -> Iterator[KernelText]:
    """Yield the kernels of a file, oldest first; lines that are none are counted in one warning."""
    bad = 0
    for line in split_lines(path.read_bytes()):
        text = _parse(line)
        if text is None:
            bad += 1
        else:
            yield text
    if bad:
        warnings.warn(
            f"{path}: {bad} lines are torn, or of another schema, and are not used.", stacklevel=2
        )


def _parse(line: bytes) -> KernelText | None:
    content: Any = parse_object(line)
    if content is None or content.get("schema") != SCHEMA:
        return None
    kernel, group, version, packed = (content.get(name) for name in ("kernel", "group", "tvm", "packed"))
    if not all(isinstance(value, str) for value in (kernel, group, version, packed)):
        return None
    weights, reuse = content.get("weights"), content.get("reuse_bytes")
    if not isinstance(weights, list) or not all(map(_is_count, [*weights, reuse])):
        return None
    return KernelText(kernel, group, version, tuple(weights), reuse, packed)


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0
