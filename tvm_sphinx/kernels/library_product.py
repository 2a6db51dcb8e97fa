"""What a library computes of a kernel, and how a kernel is marked to be computed by one. [TVM]"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

#: Attribute of a PrimFunc that a library is to compute: the fields of `LibraryMark`.
LIBRARY = "sphinx.library"


@dataclass(frozen=True)
class LibraryFactor:
    """A matrix column by column: parameter, whether it is taken transposed, strides in elements.

    ``leading`` is between columns, ``stride`` between the matrices of a batch.
    """

    param: int
    transposed: bool
    leading: int
    stride: int


@dataclass(frozen=True)
class LibraryProduct:
    """``D = activation(scale A B + C + bias)`` as BLAS has it, and what is left to a kernel of ours.

    Parameters
    ----------
    left, right, result
        A, B and D; parameters count from 0, and the one behind the last is a buffer between D and
        ``rest``, which reads it as its last parameter.
    rows, columns, depth, batch
        D has ``rows`` times ``columns`` elements.
    dtype
        Of all matrices.
    bias
        Parameter with an element for each row, -1 without one.
    residual
        Parameter C, which lies in memory as D does, -1 without one.
    activation
        ``"linear"``, ``"relu"``, or ``"gelu_tanh"``.
    scale
        A number of float32.
    rest
        PrimFunc of what follows, None if that is nothing.
    """

    left: LibraryFactor
    right: LibraryFactor
    result: LibraryFactor
    rows: int
    columns: int
    depth: int
    batch: int
    dtype: str
    bias: int = -1
    residual: int = -1
    activation: str = "linear"
    scale: float = 1.0
    rest: Any = None

    @property
    def result_bytes(self) -> int:
        """Size of D."""
        return self.rows * self.columns * self.batch * int(np.dtype(self.dtype).itemsize)


@dataclass(frozen=True)
class LibraryMark:
    """What a PrimFunc is marked with that a library is to compute.

    Parameters
    ----------
    choice
        The library, as it is asked for.
    version
        Of the library.
    is_fused
        Whether the library computes what follows the product, too, as far as it can.
    """

    choice: str
    version: str
    is_fused: bool = True


def for_library(func: Any, mark: LibraryMark) -> Any:
    """Return a PrimFunc marked to be computed by a library, where there is one to call.

    Its body stays what it was: where nothing calls libraries, as in TVM's own VM, it is scheduled like
    any other.
    """
    return func.with_attr(LIBRARY, {**asdict(mark), "is_fused": int(mark.is_fused)})


def library_of(func: Any) -> LibraryMark | None:
    """Return how a library computes a PrimFunc, None for one that is compiled."""
    if not func.attrs or LIBRARY not in func.attrs:
        return None
    found = func.attrs[LIBRARY]
    return LibraryMark(str(found["choice"]), str(found["version"]), bool(int(found["is_fused"])))
