"""What was measured, kept beside its times: kernels as they were scheduled, to learn from later. [TVM]

A record tells how long a kernel took, not what it is. Kernels are kept as text rather than as features,
so that what was measured stays of use when the features change.
"""

from __future__ import annotations

import base64
import weakref
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..._tvm import tirx, tvm, tvm_ffi
from ...errors import SphinxError
from ...frontend.extract import Kernel
from ...notice import warn
from .json_lines import append_line
from .kernel_lines import ArchivedKernel, archive_path, read_kernels
from .store import RecordStore


def read_function(kept: ArchivedKernel) -> Any:
    """Return the scheduled PrimFunc of a kernel on file.

    Raises
    ------
    SphinxError
        If what is on file is none, or lacks an argument that is said to be a weight.
    """
    try:
        text = zlib.decompress(base64.b85decode(kept.packed)).decode()
        # It is of this version: TVM's own reading would first look for what is to be upgraded.
        function = tvm_ffi.serialization.from_json_graph_str(text)
    except Exception as error:  # a damaged line; TVM raises many types
        raise SphinxError(f"The kernel {kept.kernel!r} on file cannot be read.") from error
    if not isinstance(function, tirx.PrimFunc):
        raise SphinxError(
            f"Expected a PrimFunc as kernel {kept.kernel!r} on file; got {type(function).__name__}."
        )
    num_params = len(function.params)
    if max(kept.weights, default=0) >= num_params:
        raise SphinxError(
            f"Expected weights of kernel {kept.kernel!r} below {num_params}; got {kept.weights}."
        )
    return function


class KernelArchive:
    """The kernels of a file beside the records, and new ones appended to it as they are measured."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._kernels: dict[tuple[str, str], ArchivedKernel] = {}
        if path is not None and path.is_file():
            for kept in read_kernels(path):
                self._kernels[kept.kernel, kept.tvm] = kept

    @classmethod
    def beside(cls, records: RecordStore) -> KernelArchive:
        """Return those that belong to a record store; in memory alone if it has no file."""
        if records not in _OF_STORE:
            _OF_STORE[records] = cls(None if records.path is None else archive_path(records.path))
        return _OF_STORE[records]

    def __len__(self) -> int:
        return len(self._kernels)

    def __iter__(self) -> Iterator[ArchivedKernel]:
        return iter(self._kernels.values())

    def add(self, key: str, function: Any, kernel: Kernel) -> None:
        """Keep a kernel as implemented, by the key of its records.

        A full disk costs it, with a warning, and not the run.
        """
        version = str(tvm.__version__)
        if function is None or (key, version) in self._kernels:
            return
        if "target" in (function.attrs or {}):
            function = function.without_attr("target")
        packed = zlib.compress(str(tvm.ir.save_json(function)).encode(), 6)
        kept = ArchivedKernel(
            key,
            kernel.id,
            version,
            tuple(int(position) for position in kernel.weights),
            int(kernel.reuse_bytes),
            base64.b85encode(packed).decode(),
        )
        self._kernels[key, version] = kept
        if self.path is None:
            return
        try:
            append_line(self.path, kept.to_line())
        except OSError as error:
            warn(f"Cannot append to {self.path}: {error.strerror}.")


# A file is read once for each store, however many kernels are measured one after the other.
_OF_STORE: weakref.WeakKeyDictionary[RecordStore, KernelArchive] = weakref.WeakKeyDictionary()
