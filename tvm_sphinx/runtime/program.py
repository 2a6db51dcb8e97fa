"""A lane program: the kernel calls of a placed function, and the memory between them. Knows no TVM."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from ..errors import ArtifactError

#: Where a buffer lies: scratch memory that is planned, weights, an argument or a result of the model.
SPACES = ("arena", "weights", "input", "output")
#: What a step does: call a compiled kernel, call a packed function of TVM's registry, call a compiled
#: kernel that only brings a tensor to another layout (no task stands for it), copy a tensor (which its
#: device does), copy one between host memory and pinned memory (which the feeder of its GPU does), or
#: nothing (to measure the lanes themselves).
STEP_KINDS = ("kernel", "external", "turn", "copy", "stage", "nothing")
#: Those that call a compiled kernel.
COMPILED = ("kernel", "turn")
#: Memories that tensors lie in, beside those of GPUs, which are called as their runtime device: memory
#: of the host, and such of it as GPUs can reach.
HOST, PINNED = "host", "pinned"


@dataclass(frozen=True)
class Buffer:
    """Memory that one step writes at most; ``index`` counts the buffers of its space.

    ``memory`` is `HOST`, `PINNED` or the runtime device of a GPU, such as ``"cuda:0"``.
    """

    space: str
    index: int
    bytes: int
    memory: str = HOST


@dataclass(frozen=True)
class TensorView:
    """A tensor in a buffer. Views of one buffer differ in shape or dtype, and share their bytes."""

    buffer: int
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Step:
    """A call on a device: ``operands`` are the tensors that it reads and then those that it writes.

    ``memory_bound`` says by which of its cores' speeds a device of several shares out its loops.
    """

    name: str
    kind: str
    device: int
    function: str
    operands: tuple[int, ...]
    num_outputs: int
    memory_bound: bool = False

    @property
    def inputs(self) -> tuple[int, ...]:
        """Tensors that the step reads."""
        return self.operands[: len(self.operands) - self.num_outputs]

    @property
    def outputs(self) -> tuple[int, ...]:
        """Tensors that the step writes."""
        return self.operands[len(self.operands) - self.num_outputs :]


@dataclass(frozen=True)
class LaneProgram:
    """Steps in schedule order, which is topological.

    Parameters
    ----------
    buffers, tensors, steps
        Referred to by position.
    input_names
        Names of the arguments; argument i is the tensor ``inputs[i]``.
    inputs
        Tensors of the arguments.
    outputs
        Tensors of the results, in the order in which ``structure`` counts them.
    structure
        Form of the result: an index into ``outputs``, or a nested list of such.

    Raises
    ------
    ArtifactError
        If a reference does not exist, or a step reads what no earlier step has written.
    """

    buffers: tuple[Buffer, ...]
    tensors: tuple[TensorView, ...]
    steps: tuple[Step, ...]
    input_names: tuple[str, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    structure: Any

    def __post_init__(self) -> None:
        written = {i for i, buffer in enumerate(self.buffers) if buffer.space in ("input", "weights")}
        for buffer in self.buffers:
            _check(buffer.space in SPACES and buffer.index >= 0 and buffer.bytes >= 0, buffer)
        for tensor in self.tensors:
            _check(0 <= tensor.buffer < len(self.buffers), tensor)
        for step in self.steps:
            _check(step.kind in STEP_KINDS and 0 <= step.num_outputs <= len(step.operands), step)
            _check(all(0 <= operand < len(self.tensors) for operand in step.operands), step)
            _check(step.device >= 0, step)
            _check(all(self.tensors[t].buffer in written for t in step.inputs), step)
            for tensor_id in step.outputs:
                _check(self.tensors[tensor_id].buffer not in written, step)
            written.update(self.tensors[tensor_id].buffer for tensor_id in step.outputs)
        for tensor_id in (*self.inputs, *self.outputs):
            _check(0 <= tensor_id < len(self.tensors), tensor_id)
            _check(self.tensors[tensor_id].buffer in written, self.tensors[tensor_id])
        _check(len(self.input_names) == len(self.inputs), self.input_names)

    @cached_property
    def writer(self) -> dict[int, int]:
        """Step that writes each buffer; arguments and weights have none."""
        return {
            self.tensors[tensor].buffer: index
            for index, step in enumerate(self.steps)
            for tensor in step.outputs
        }

    @cached_property
    def readers(self) -> dict[int, tuple[int, ...]]:
        """Steps that read each buffer, ascending; buffers that none reads are left out."""
        found: dict[int, list[int]] = {}
        for index, step in enumerate(self.steps):
            for buffer in dict.fromkeys(self.tensors[tensor].buffer for tensor in step.inputs):
                found.setdefault(buffer, []).append(index)
        return {buffer: tuple(steps) for buffer, steps in found.items()}

    def producers(self, step: int) -> tuple[int, ...]:
        """Steps whose results a step reads, ascending."""
        buffers = {self.tensors[tensor].buffer for tensor in self.steps[step].inputs}
        return tuple(sorted({self.writer[buffer] for buffer in buffers if buffer in self.writer}))

    def space_buffers(self, space: str) -> list[int]:
        """Buffers of a space, in the order of their index."""
        found = [i for i, buffer in enumerate(self.buffers) if buffer.space == space]
        return sorted(found, key=lambda i: self.buffers[i].index)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-serialisable form; `from_json` restores an equal program."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> LaneProgram:
        """Rebuild a program from `to_json`.

        Raises
        ------
        ArtifactError
            If a field is missing or unknown, or the program does not hold together.
        """
        try:
            return cls(
                buffers=tuple(Buffer(**item) for item in content["buffers"]),
                tensors=tuple(
                    TensorView(**{**item, "shape": tuple(item["shape"])}) for item in content["tensors"]
                ),
                steps=tuple(
                    Step(**{**item, "operands": tuple(item["operands"])}) for item in content["steps"]
                ),
                input_names=tuple(content["input_names"]),
                inputs=tuple(content["inputs"]),
                outputs=tuple(content["outputs"]),
                structure=content["structure"],
            )
        except (KeyError, TypeError) as error:
            raise ArtifactError(f"Not a lane program in JSON form: {error!r}.") from error


def _check(holds: bool, what: object) -> None:
    if not holds:
        raise ArtifactError(f"Expected a lane program that holds together; got {what!r}.")
