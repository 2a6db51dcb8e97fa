"""Weights as kernels take them packed, each packed once. [TVM]"""

from __future__ import annotations

from typing import Any

from .._tvm import tvm
from ..kernels import pack_weight


class PackedWeights:
    """Packs weights, and keeps what it has packed: equal ones are one tensor."""

    def __init__(self) -> None:
        # The weight itself is kept too, so that no other one comes to lie at its address.
        self._known: dict[Any, tuple[Any, Any]] = {}

    def pack(self, weight: Any, packing: str) -> Any:
        """Return a tensor of TVM packed for a kernel.

        Parameters
        ----------
        weight
            Tensor in host memory, as the model has it.
        packing
            As `tvm_sphinx.kernels.packed_weights` names it.
        """
        key = weight.data_ptr(), tuple(weight.shape), str(weight.dtype), packing
        if key not in self._known:
            self._known[key] = weight, tvm.runtime.tensor(pack_weight(weight.numpy(), packing))
        return self._known[key][1]
