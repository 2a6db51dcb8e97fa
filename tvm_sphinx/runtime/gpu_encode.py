"""Hand the parts of GPUs over to the native lanes. [TVM]

The words here are those of ``gpu_words.h``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .._tvm_runtime import tvm_ffi
from ..errors import ArtifactError
from .gpu_launch import ACTIVATIONS, PRODUCT_TYPES, Launch, LibraryCall
from .gpu_parts import GpuParts
from .gpu_plan import Feed, Op
from .libraries import find_library
from .plan import LanePlan
from .program import COMPILED, Step

_VERSION = 2
_LAUNCH, _COPY, _STAGE, _RECORD, _WAIT, _WRITE, _CALL = range(7)
# Dynamic shared memory beyond this has to be asked for.
_FREE_SHARED_BYTES = 48 << 10


def gpu_arguments(plan: LanePlan, feeds: Sequence[Feed], parts: GpuParts) -> list[Any]:
    """Return what the native lanes take for GPUs: words, names, images and weights."""
    words, names = _Encoder(plan, parts).encode(feeds)
    weights = [parts.weights.get(gpu) for gpu in plan.places.gpus]
    arrays: list[Any] = [
        np.array(words, dtype=np.int64),
        np.frombuffer(names, dtype=np.uint8),
        *(np.frombuffer(image, dtype=np.uint8) for image in parts.images),
    ]
    tensors = [tvm_ffi.from_dlpack(np.array(array)) for array in arrays]
    empty = tvm_ffi.from_dlpack(np.zeros(1, dtype=np.uint8))
    return [*tensors, *(empty if weight is None else weight for weight in weights)]


class _Encoder:
    def __init__(self, plan: LanePlan, parts: GpuParts) -> None:
        self.plan = plan
        self.parts = parts
        self.names = bytearray()
        self.kernels: dict[tuple[int, int, str], int] = {}  # (card, image, kernel) -> number
        self.shared: dict[tuple[int, int, str], int] = {}
        self.modules: dict[tuple[int, int], int] = {}  # (card, image) -> number
        self.libraries: dict[tuple[str, int], int] = {}  # (library, major version) -> number
        self.products: list[list[int]] = []
        self.first_event: list[int] = []

    def encode(self, feeds: Sequence[Feed]) -> tuple[list[int], bytes]:
        """Return the words, and the names that they refer to."""
        places = self.plan.places
        events = [gpu for gpu, feed in enumerate(feeds) for _ in range(feed.num_events)]
        self.first_event = [events.index(gpu) if gpu in events else 0 for gpu in range(len(feeds))]
        segments = [words for gpu, feed in enumerate(feeds) for words in self._segments(gpu, feed)]
        words = [_VERSION]
        for numbers in (
            [int(gpu.partition(":")[2]) for gpu in places.gpus],
            [stream.gpu for stream in places.streams],
            events,
        ):
            words += [len(numbers), *numbers]
        words.append(len(self.modules))
        for card, image in self.modules:
            words += [card, image]
        words.append(len(self.kernels))
        for key in self.kernels:
            shared = self.shared[key]
            asked = shared if shared > _FREE_SHARED_BYTES else 0
            words += [self.modules[key[:2]], self._name(key[2]), asked]
        words.append(len(self.libraries))
        for name, major in self.libraries:
            words += [self._name(find_library(name, major).path), major]
        words.append(len(self.products))
        for product in self.products:
            words += product
        words.append(len(segments))
        for segment in segments:
            words += segment
        words += [self._name(step.name) for step in self.plan.program.steps]
        words += [-1] * len(segments)
        return words, bytes(self.names)

    def _name(self, text: str) -> int:
        position = len(self.names)
        self.names += text.encode() + b"\0"
        return position

    def _segments(self, gpu: int, feed: Feed) -> list[list[int]]:
        last = max((i for i, segment in enumerate(feed.segments) if segment.uses_streams), default=-1)
        found = []
        for number, segment in enumerate(feed.segments):
            ops = [words for op in segment.ops for words in self._op(gpu, op)]
            flags = [int(number == last), int(number == len(feed.segments) - 1)]
            found.append([gpu, *flags, len(ops), *(word for words in ops for word in words)])
        return found

    def _op(self, gpu: int, op: Op) -> list[list[int]]:
        step = self.plan.program.steps[op.step]
        stream = self.plan.leader(op.step) - self.plan.places.num_workers
        if op.kind == "record":
            return [[_RECORD, op.step, stream, self.first_event[gpu] + op.number]]
        if op.kind == "wait":
            return [[_WAIT, op.step, stream, self.first_event[gpu] + op.number]]
        if op.kind == "write":
            return [[_WRITE, op.step, stream, op.number]]
        if step.kind in COMPILED:
            return self._launches(gpu, op.step, step, stream)
        operands = [2, step.operands[1], step.operands[0]]
        if step.kind == "stage":
            return [[_STAGE, op.step, *operands]]
        return [[_COPY, op.step, stream, *operands]]

    def _launches(self, gpu: int, number: int, step: Step, stream: int) -> list[list[int]]:
        if step.function not in self.parts.functions:
            raise ArtifactError(
                f"Step {step.name!r} calls {step.function!r}, of which there is no code."
            )
        image, function = self.parts.functions[step.function]
        launches = []
        for launch in function.launches:
            if isinstance(launch, Launch) and 0 in (*launch.grid, *launch.block):
                continue  # of a tensor without elements
            if max(launch.operands, default=0) >= len(step.operands):
                raise ArtifactError(f"Step {step.name!r} lacks an operand of {step.function!r}.")
            operands = [step.operands[position] for position in launch.operands]
            if isinstance(launch, LibraryCall):
                words = [_CALL, number, stream, self._product(launch)]
            else:
                kernel = self._kernel((gpu, image, launch.kernel), launch.shared_bytes)
                sizes = [*launch.grid, *launch.block, launch.shared_bytes]
                words = [_LAUNCH, number, stream, kernel, *sizes]
            launches.append([*words, len(operands), *operands])
        return launches

    def _kernel(self, key: tuple[int, int, str], shared_bytes: int) -> int:
        """Return the number of a kernel."""
        self.modules.setdefault(key[:2], len(self.modules))
        self.shared[key] = max(self.shared.get(key, 0), shared_bytes)
        return self.kernels.setdefault(key, len(self.kernels))

    def _product(self, call: LibraryCall) -> int:
        """Return the number of a product."""
        used = call.library, call.major
        factors = call.left, call.right, call.result
        self.products.append(
            [
                self.libraries.setdefault(used, len(self.libraries)),
                PRODUCT_TYPES.index(call.type),
                ACTIVATIONS.index(call.activation),
                int(np.float32(call.scale).view(np.uint32)),
                *(call.rows, call.columns, call.depth, call.batch),
                *(int(factor.transposed) for factor in factors[:2]),
                *(factor.leading for factor in factors),
                *(factor.stride for factor in factors),
                call.workspace_bytes,
                *(int(call.has_bias), int(call.has_residual)),
            ]
        )
        return len(self.products) - 1
