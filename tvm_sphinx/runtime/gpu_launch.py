"""How the kernels of a GPU are launched, and its libraries called, as an executable keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import ArtifactError


@dataclass(frozen=True)
class Launch:
    """One launch of a kernel.

    ``operands`` are positions in the operands of the step: the PrimFunc's arguments, and behind them its
    workspaces. ``grid`` and ``block`` have three extents, ``shared_bytes`` is dynamic shared memory.
    """

    kernel: str
    grid: tuple[int, ...]
    block: tuple[int, ...]
    shared_bytes: int
    operands: tuple[int, ...]

    def __post_init__(self) -> None:
        sizes = (*self.grid, *self.block, self.shared_bytes, *self.operands)
        if len(self.grid) != 3 or len(self.block) != 3 or min(sizes) < 0:
            raise ArtifactError(f"Expected a launch with three extents of grid and block; got {self}.")

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-serialisable form."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Launch:
        """Rebuild a launch from `to_json`."""
        grid, block, operands = (tuple(content[key]) for key in ("grid", "block", "operands"))
        return cls(content["kernel"], grid, block, content["shared_bytes"], operands)


#: What a library computes products in, and what it may apply to their elements: numbers are those of
#: ``gpu_library.h``.
PRODUCT_TYPES = ("float32", "tf32", "float16")
ACTIVATIONS = ("linear", "relu", "gelu_tanh")


@dataclass(frozen=True)
class Factor:
    """A matrix of a product, column by column: whether it is taken transposed, and its strides.

    ``leading`` is between columns, ``stride`` between the matrices of a batch, both in elements.
    """

    transposed: bool
    leading: int
    stride: int


@dataclass(frozen=True)
class LibraryCall:
    """One call of a library: ``D = activation(scale A B + C + bias)``, column by column, as BLAS has it.

    Parameters
    ----------
    library, major
        Name in `tvm_sphinx.runtime.libraries.LIBRARIES`, and the version that it is planned with.
    type, activation
        Of `PRODUCT_TYPES` and `ACTIVATIONS`.
    scale
        A number of float32.
    rows, columns, depth, batch
        D has ``rows`` times ``columns`` elements, each a sum of ``depth`` products.
    left, right, result
        A, B and D.
    workspace_bytes
        Of the device's memory, that it may use meanwhile.
    has_bias, has_residual
        The bias has an element for each row; the residual, C, lies in memory as D does.
    operands
        Positions in the operands of the step: A, B, D, workspace, and bias and C as far as there are.
    """

    library: str
    major: int
    type: str
    activation: str
    scale: float
    rows: int
    columns: int
    depth: int
    batch: int
    left: Factor
    right: Factor
    result: Factor
    workspace_bytes: int
    has_bias: bool
    has_residual: bool
    operands: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.type not in PRODUCT_TYPES or self.activation not in ACTIVATIONS:
            raise ArtifactError(f"Expected a product of a known type and activation; got {self}.")
        count = 4 + self.has_bias + self.has_residual
        if len(self.operands) != count or min(self.operands) < 0:
            raise ArtifactError(f"Expected a product of {count} operands; got {self}.")

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-serialisable form."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> LibraryCall:
        """Rebuild a call from `to_json`."""
        factors = {name: Factor(**content[name]) for name in ("left", "right", "result")}
        return cls(**{**content, **factors, "operands": tuple(content["operands"])})


@dataclass(frozen=True)
class GpuFunction:
    """How to run a PrimFunc: its launches and calls in order, and the bytes of its workspaces."""

    launches: tuple[Launch | LibraryCall, ...]
    workspaces: tuple[int, ...]

    @property
    def calls(self) -> tuple[LibraryCall, ...]:
        """The calls of libraries among them."""
        return tuple(each for each in self.launches if isinstance(each, LibraryCall))

    @classmethod
    def from_json(cls, launches: Any, workspaces: Any) -> GpuFunction:
        """Rebuild it from what `Launch.to_json` and `LibraryCall.to_json` gave."""
        kinds = [LibraryCall if "library" in each else Launch for each in launches]
        read = [kind.from_json(each) for kind, each in zip(kinds, launches, strict=True)]
        return cls(tuple(read), tuple(workspaces))
