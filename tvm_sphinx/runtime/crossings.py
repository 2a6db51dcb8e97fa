"""Tensors on their way between the host's memory and GPUs'. Knows no TVM.

What crosses lies in pinned memory on the host's side, where a GPU reads and writes it by itself. A CPU
kernel computes there in place; what is the caller's (arguments and results) is staged by a copy of the
feeder's.
"""

from __future__ import annotations

from dataclasses import replace

from ..platform import Platform
from .program import HOST, PINNED, Buffer, Step, TensorView


class Tables:
    """Buffers, tensors and steps of a program in the making."""

    def __init__(self) -> None:
        self.buffers: list[Buffer] = []
        self.tensors: list[TensorView] = []
        self.steps: list[Step] = []
        self.names: dict[str, int] = {}

    def add_buffer(self, space: str, index: int, size: int, memory: str = HOST) -> int:
        """Add a buffer; return its number."""
        self.buffers.append(Buffer(space, index, size, memory))
        return len(self.buffers) - 1

    def add_tensor(self, buffer: int, shape: tuple[int, ...], dtype: str) -> int:
        """Add a tensor in a buffer; return its number."""
        self.tensors.append(TensorView(buffer, shape, dtype))
        return len(self.tensors) - 1

    def add_step(
        self,
        name: str,
        kind: str,
        device: int,
        function: str,
        operands: list[int],
        outputs: list[int],
        memory_bound: bool = False,
    ) -> None:
        """Add a step; names are made unique."""
        count = self.names[name] = self.names.get(name, -1) + 1
        shown = f"{name}.{count}" if count else name
        tensors = (*operands, *outputs)
        self.steps.append(Step(shown, kind, device, function, tensors, len(outputs), memory_bound))

    def memory(self, tensor: int) -> str:
        """Memory that a tensor lies in."""
        return self.buffers[self.tensors[tensor].buffer].memory

    def copy(self, name: str, kind: str, device: int, tensor: int, memory: str) -> int:
        """Add a step that copies a tensor into a new one in a memory; return that."""
        source = self.tensors[tensor]
        size = self.buffers[source.buffer].bytes
        copied = self.add_tensor(
            self.add_buffer("arena", len(self.buffers), size, memory), source.shape, source.dtype
        )
        self.add_step(name, kind, device, "", [tensor], [copied])
        return copied


class Crossings:
    """Brings tensors to memories, each once."""

    def __init__(self, tables: Tables, platform: Platform) -> None:
        self.tables = tables
        self.platform = platform
        self.made: dict[tuple[int, str], int] = {}
        self.came_from: dict[int, int] = {}  # device of the GPU that a pinned buffer was copied from

    def bring(self, tensor: int, device: int) -> int:
        """Return the tensor, or a copy of it, in the memory of a device."""
        target = self.platform.devices[device]
        source = self.tables.memory(tensor)
        if source == target.memory_space or (target.is_cpu and source == PINNED):
            return tensor
        if source not in (HOST, PINNED):
            tensor = self._out(tensor, source)
        return tensor if target.is_cpu else self._in(tensor, device)

    def deliver(self, tensor: int, index: int) -> int:
        """Return a copy of a host tensor in result buffer ``index``, which is the caller's."""
        source = self.tables.tensors[tensor]
        size = self.tables.buffers[source.buffer].bytes
        buffer = self.tables.add_buffer("output", index, size)
        result = self.tables.add_tensor(buffer, source.shape, source.dtype)
        # The feeder that brought a tensor also hands it on: no other thread is needed for it.
        device = self.came_from.get(source.buffer)
        kind, place = ("copy", self.platform.host_index) if device is None else ("stage", device)
        self.tables.add_step("copy_result", kind, place, "", [tensor], [result])
        return result

    def _in(self, tensor: int, device: int) -> int:
        memory = self.platform.devices[device].memory_space
        if (tensor, memory) not in self.made:
            pinned = self._pin(tensor, device)
            self.made[tensor, memory] = self.tables.copy("copy_in", "copy", device, pinned, memory)
        return self.made[tensor, memory]

    def _out(self, tensor: int, memory: str) -> int:
        if (tensor, PINNED) not in self.made:
            device = [other.memory_space for other in self.platform.devices].index(memory)
            copied = self.tables.copy("copy_out", "copy", device, tensor, PINNED)
            self.came_from[self.tables.tensors[copied].buffer] = device
            self.made[tensor, PINNED] = copied
        return self.made[tensor, PINNED]

    def _pin(self, tensor: int, device: int) -> int:
        """Return the tensor in pinned memory: made there, or copied by the GPU's feeder."""
        number = self.tables.tensors[tensor].buffer
        buffer = self.tables.buffers[number]
        if buffer.space == "arena":
            self.tables.buffers[number] = replace(buffer, memory=PINNED)
            return tensor
        return self.tables.copy("stage", "stage", device, tensor, PINNED)


def early_copies(tables: Tables) -> tuple[Step, ...]:
    """Return the steps with copies as early as they can be made without a thread that waits.

    Arguments come to GPUs before anything else; what a GPU has made goes out right after. A reader's
    place, where they were asked for, may come after steps that a feeder has to wait for.
    """
    first, second = -2, -1  # all stages, and then the copies of what they have staged
    place: dict[int, int] = {}  # of the step that makes each buffer
    order: list[tuple[int, int]] = []
    for index, step in enumerate(tables.steps):
        source = place.get(tables.tensors[step.operands[0]].buffer, 0) if step.operands else 0
        target = tables.memory(step.operands[-1]) if step.operands else HOST
        at = index
        if step.kind == "stage" and target == PINNED:
            at = first
        elif step.kind == "copy" and source == first:
            at = second
        elif step.kind == "copy" and target == PINNED:
            at = source
        place.update(dict.fromkeys((tables.tensors[tensor].buffer for tensor in step.outputs), at))
        order.append((at, index))
    return tuple(tables.steps[index] for _, index in sorted(order))
