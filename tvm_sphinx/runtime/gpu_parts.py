"""What an executable holds for GPUs: machine code, how to launch it, weights. [TVM]"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..errors import ArtifactError
from .artifact import Content
from .gpu_launch import GpuFunction
from .program import COMPILED, Buffer, LaneProgram, TensorView
from .tensors import aligned_bytes


@dataclass(frozen=True)
class GpuParts:
    """Parts for the GPUs of a program.

    Parameters
    ----------
    images
        Machine code, as NVIDIA's driver loads it.
    functions
        For each function that a step of a GPU calls its image, -1 where it has no kernel of its own, and
        how to run it.
    weights
        For each GPU's memory a uint8 tensor with the weights where the plan puts them.
    """

    images: tuple[bytes, ...] = ()
    functions: dict[str, tuple[int, GpuFunction]] = field(default_factory=dict)
    weights: dict[str, Any] = field(default_factory=dict)

    def manifest(self) -> dict[str, Any]:
        """Return all but the members, JSON-serialisable."""
        return {
            "num_images": len(self.images),
            "libraries": self.libraries,
            "weights": sorted(self.weights),
            "functions": {
                name: {
                    "image": image,
                    "launches": [launch.to_json() for launch in function.launches],
                    "workspaces": list(function.workspaces),
                }
                for name, (image, function) in self.functions.items()
            },
        }

    @property
    def libraries(self) -> dict[str, int]:
        """The major version of each library that is called, by name."""
        calls = [call for _, function in self.functions.values() for call in function.calls]
        return {call.library: call.major for call in calls}

    def members(self) -> dict[str, Content]:
        """Return the members by name; weights are not copied."""
        images = {_image_member(number): image for number, image in enumerate(self.images)}
        weights = {
            _weights_member(memory): content_of(tensor) for memory, tensor in self.weights.items()
        }
        return {**images, **weights}

    @classmethod
    def restore(cls, manifest: Mapping[str, Any], members: Mapping[str, bytes]) -> GpuParts:
        """Rebuild the parts from `manifest` and `members`.

        Raises
        ------
        ArtifactError
            If a function refers to an image that is not there.
        KeyError, TypeError
            If something is missing.
        """
        images = tuple(members[_image_member(number)] for number in range(manifest["num_images"]))
        functions = {}
        for name, content in manifest["functions"].items():
            function = GpuFunction.from_json(content["launches"], content["workspaces"])
            needs_code = len(function.calls) < len(function.launches)
            if not (0 if needs_code else -1) <= content["image"] < len(images):
                raise ArtifactError(
                    f"function {name!r} lies in image {content['image']}, which is not there."
                )
            functions[name] = content["image"], function
        weights = {
            memory: aligned_copy(members[_weights_member(memory)]) for memory in manifest["weights"]
        }
        return cls(images, functions, weights)


def _image_member(number: int) -> str:
    return f"kernels{number}.cubin"


def _weights_member(memory: str) -> str:
    return f"weights.{memory.replace(':', '')}.bin"


def content_of(tensor: Any) -> Content:
    """Return the memory of a uint8 tensor."""
    return np.from_dlpack(tensor).data


def aligned_copy(content: bytes) -> Any:
    """Return bytes as an aligned uint8 tensor."""
    tensor = aligned_bytes(len(content))
    np.from_dlpack(tensor)[: len(content)] = np.frombuffer(content, dtype=np.uint8)
    return tensor


def with_workspaces(program: LaneProgram, functions: Mapping[str, GpuFunction]) -> LaneProgram:
    """Return a program whose GPU steps have the workspaces of their functions as further results."""
    buffers, tensors, steps = list(program.buffers), list(program.tensors), []
    for step in program.steps:
        sizes = functions[step.function].workspaces if step.function in functions else ()
        if not sizes or step.kind not in COMPILED:
            steps.append(step)
            continue
        memory = buffers[tensors[step.operands[0]].buffer].memory
        added = []
        for size in sizes:
            buffers.append(Buffer("arena", len(buffers), size, memory))
            tensors.append(TensorView(len(buffers) - 1, (size,), "uint8"))
            added.append(len(tensors) - 1)
        operands, count = (*step.operands, *added), step.num_outputs + len(added)
        steps.append(replace(step, operands=operands, num_outputs=count))
    return replace(program, buffers=tuple(buffers), tensors=tuple(tensors), steps=tuple(steps))
