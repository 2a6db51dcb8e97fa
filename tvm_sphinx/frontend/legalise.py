"""Kernels in the place of operators: TVM's, but for those that lose digits or infinities. [TVM]"""

from __future__ import annotations

from typing import Any

from .._tvm import relax, tvm
from . import extremes, normalisations
from .empty_reductions import StartReductions


def legalise() -> Any:
    """Return the passes that put the call of a kernel in the place of each operator.

    What needs to know the target, such as a sort, is decided for the current one.
    """
    return tvm.transform.Sequential(
        [
            relax.backend.DispatchSortScan(),
            relax.backend.DispatchSampling(),
            relax.transform.LegalizeOps({**normalisations.LEGALISED, **extremes.LEGALISED}),
            StartReductions(),
        ]
    )
