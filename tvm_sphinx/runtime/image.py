"""What a concurrent executable is made of, as the manifest and the members of an artifact. [TVM]"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from ..errors import ArtifactError, SphinxError
from ..platform import Platform
from ..scheduling.schedule import Schedule
from .artifact import Content, read_artifact, write_artifact
from .gpu_parts import GpuParts, aligned_copy, content_of
from .plan import make_plan
from .processor import Processor
from .program import LaneProgram
from .trace import check_schedule

#: Member names: machine code, and the weights as the kernels read them.
KERNELS, WEIGHTS = "kernels.so", "weights.bin"

_FORM = "tvm-sphinx lanes"
_VERSION = 3
_PACKAGES = ("apache-tvm", "apache-tvm-ffi")


@dataclass(frozen=True)
class Image:
    """An executable before its threads are started.

    Parameters
    ----------
    program, platform, schedule
        What runs where; the schedule, which may be None, has the predicted times.
    weights
        uint8 tensor with the weights where `make_plan` puts them.
    library
        Shared library of the kernels of CPU devices, empty if there are none.
    gpu
        What the steps of GPUs need, None if there are none.
    processors
        For each device what its kernels take for granted of a processor, None for a GPU; empty where
        they are made for this machine and no other.
    """

    program: LaneProgram
    platform: Platform
    schedule: Schedule | None
    weights: Any
    library: bytes
    gpu: GpuParts | None = None
    processors: tuple[Processor | None, ...] = ()

    def manifest(self) -> dict[str, Any]:
        """Return all but the members, JSON-serialisable."""
        return {
            "form": _FORM,
            "version": _VERSION,
            "packages": {name: metadata.version(name) for name in _PACKAGES},
            "program": self.program.to_json(),
            "platform": self.platform.to_json(),
            "schedule": None if self.schedule is None else self.schedule.to_json(),
            "processors": [None if p is None else p.to_json() for p in self.processors],
            "gpu": None if self.gpu is None else self.gpu.manifest(),
        }

    def members(self) -> dict[str, Content]:
        """Return the members by name; weights are not copied."""
        own = {KERNELS: self.library, WEIGHTS: content_of(self.weights)}
        return {**own, **(self.gpu.members() if self.gpu else {})}

    def what_runs(self) -> str:
        """Return a text that differs where other code runs, in another order, or elsewhere.

        The values of weights and predicted times do not matter to it.
        """
        kept = {"program": self.program.to_json(), "platform": self.platform.to_json()}
        gpu = {} if self.gpu is None else self.gpu.members()
        if self.gpu is not None:
            kept["gpu"] = self.gpu.manifest()  # what is called of a library is no code of ours
        code = [self.library, *(gpu[name] for name in sorted(gpu))]
        return json.dumps([kept, *(hashlib.sha256(each).hexdigest() for each in code)], sort_keys=True)

    def save(self, path: str | Path) -> None:
        """Write the image into one file, which appears whole or not at all.

        Raises
        ------
        SphinxError
            If the file cannot be written.
        """
        write_artifact(path, self.manifest(), self.members())

    @classmethod
    def load(cls, path: str | Path) -> Image:
        """Read an image that `save` wrote; nothing of it runs.

        Raises
        ------
        ArtifactError
            If the file is truncated, altered, or written by another version.
        """
        manifest, members = read_artifact(path)
        return cls.restore(manifest, members, f"artifact {str(path)!r}")

    @classmethod
    def restore(cls, manifest: Mapping[str, Any], members: Mapping[str, bytes], where: str) -> Image:
        """Rebuild an image from its manifest and its members, whose digests have been checked.

        Raises
        ------
        ArtifactError
            If they are not those of an image, or of another version; the message begins with ``where``.
        """
        try:
            _check_versions(manifest, where)
            schedule = manifest["schedule"]
            image = cls(
                LaneProgram.from_json(manifest["program"]),
                Platform.from_json(manifest["platform"], where),
                None if schedule is None else Schedule.from_json(schedule),
                aligned_copy(members[WEIGHTS]),
                members[KERNELS],
                None if manifest["gpu"] is None else GpuParts.restore(manifest["gpu"], members),
                tuple(None if p is None else Processor.from_json(p) for p in manifest["processors"]),
            )
            if len(image.processors) not in (0, len(image.platform.devices)):
                raise ArtifactError("it has not one processor for each device.")
            if max((s.device for s in image.program.steps), default=0) >= len(image.platform.devices):
                raise ArtifactError("a step runs on a device that the platform lacks.")
            if image.schedule is not None:
                check_schedule(image.program, image.schedule)
            plan = make_plan(image.program, image.platform)
            if plan.weight_bytes > len(members[WEIGHTS]):
                raise ArtifactError(f"{WEIGHTS} is shorter than the program needs.")
            if plan.places.gpus and image.gpu is None:
                raise ArtifactError("the kernels of its GPUs are missing.")
        except (SphinxError, KeyError, TypeError, AttributeError) as error:
            raise ArtifactError(f"{where} holds no executable for lanes: {error}") from error
        return image


def _check_versions(manifest: Mapping[str, Any], where: str) -> None:
    form = (manifest.get("form"), manifest.get("version"))
    if form != (_FORM, _VERSION):
        raise ArtifactError(f"Expected {_FORM!r} version {_VERSION}; got {form}.")
    for name in _PACKAGES:
        written, installed = manifest["packages"][name], metadata.version(name)
        if release(name, written) != release(name, installed):
            raise ArtifactError(
                f"it was written with {name} {written}, and {installed} is installed. "
                f"Compile the model again."
            )


def release(package: str, version: str | None = None) -> str:
    """Return a version, by default that of an installed package, without its post part."""
    return (version or metadata.version(package)).split(".post")[0]
