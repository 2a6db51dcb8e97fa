"""Instructions of processors, by LLVM's names."""

from __future__ import annotations

from collections.abc import Iterable

# Families of instructions that LLVM emits on its own. A processor's name stands for others too, such as
# mwaitx and amx, which virtual machines hide and which no kernel uses.
_EMITTED = (
    "sse", "ssse", "avx", "fma", "bmi", "f16c", "popcnt", "lzcnt", "movbe", "gfni", "vaes",
    "neon", "sve", "dotprod", "fullfp16", "bf16", "i8mm", "lse",
)  # fmt: skip


def emitted(instructions: Iterable[str]) -> tuple[str, ...]:
    """Return those of a processor's instructions that kernels may use, sorted."""
    return tuple(sorted(name for name in instructions if name.startswith(_EMITTED)))
