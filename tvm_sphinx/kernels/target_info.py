"""What the schedule rules need to know about a CPU target: vector width, registers and caches."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import tvm
from tvm.target.codegen import llvm_get_cpu_features

from ..errors import PlatformError

# The lanes of one panel of packed weights: one 512-bit vector, two of 256 or four of 128 bits. It is
# the same for every target, so that one packed weight serves all CPU targets of a platform.
PANEL_LANES = 16
# TVM's LLVM backend keeps a buffer on the stack, where LLVM can promote it to registers, only below
# this size (runtime::kMaxStackAlloca); a register tile above it would live in memory.
_STACK_LIMIT_BYTES = 1024
# Work below which a thread costs more than it saves, and how fast one core does which kind of work.
_MIN_THREAD_NS = 2000
ELEMENTS_PER_NS = 4.0  # of an elementwise kernel
MULTIPLY_ADDS_PER_NS = 32.0
WEIGHT_BYTES_PER_NS = 16.0


@dataclass(frozen=True)
class CpuInfo:
    """Parameters of a CPU target that decide tile shapes.

    Attributes
    ----------
    vector_bytes
        Width of one vector register.
    num_registers
        Architectural vector registers.
    l1_bytes, l2_bytes
        Data cache sizes per core, conservative for the family.
    cores
        Threads that one kernel may use.
    """

    vector_bytes: int
    num_registers: int
    l1_bytes: int
    l2_bytes: int
    cores: int

    def __post_init__(self) -> None:
        if self.cores < 1:
            raise PlatformError(f"Expected cores >= 1; got cores = {self.cores}.")

    def shares(self, work_ns: float) -> bool:
        """Whether work of this estimated time is worth the start of all threads."""
        return self.cores > 1 and work_ns >= self.cores * _MIN_THREAD_NS

    def lanes(self, dtype_bytes: int) -> int:
        """Return how many elements of `dtype_bytes` bytes one vector register holds."""
        return max(1, self.vector_bytes // dtype_bytes)

    @property
    def tile_vectors(self) -> int:
        """Vector accumulators that a register tile may hold, with registers left for operands."""
        by_stack = (_STACK_LIMIT_BYTES - 1) // self.vector_bytes
        return min(by_stack, self.num_registers - max(3, self.num_registers // 8))


@lru_cache(maxsize=64)
def _vector_shape(target_json: str) -> tuple[int, int]:
    """Return (vector bytes, number of registers) of a target given as text."""
    target = tvm.target.Target(target_json)
    features = {str(name) for name in llvm_get_cpu_features(target)}
    if "avx512f" in features:
        return 64, 32
    if "avx2" in features or "avx" in features:
        return 32, 16
    if "neon" in features:
        return 16, 32
    return 16, 16


def cpu_info(target: tvm.target.Target, cores: int) -> CpuInfo:
    """Return the schedule parameters of an LLVM target.

    Parameters
    ----------
    target
        A target of kind "llvm"; its mcpu and mattr decide the vector width.
    cores
        Number of threads that a kernel on the device may use.

    Raises
    ------
    PlatformError
        If `cores` is below one.
    """
    vector_bytes, num_registers = _vector_shape(str(target))
    return CpuInfo(vector_bytes, num_registers, l1_bytes=32 << 10, l2_bytes=512 << 10, cores=cores)
