"""One file that holds an executable: a zip archive without compression, and without pickles. [TVM]

``manifest.json`` carries the version of the form, the versions of TVM, the program, the platform, the
schedule, and the SHA-256 of every other member and of itself; ``kernels.so`` is machine code,
``weights.bin`` the weights as the kernels read them. Everything is checked before anything is loaded.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import zipfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ArtifactError, SphinxError
from ..platform import Platform
from ..schedule import Schedule
from .plan import make_plan
from .program import LaneProgram
from .tensors import aligned_bytes

_FORMAT = "tvm-sphinx executable"
_VERSION = 1
_MANIFEST, _DIGEST, _KERNELS, _WEIGHTS = "manifest.json", "manifest.sha256", "kernels.so", "weights.bin"
_MEMBERS = (_MANIFEST, _DIGEST, _KERNELS, _WEIGHTS)
_PACKAGES = ("apache-tvm", "apache-tvm-ffi")


@dataclass(frozen=True)
class Artifact:
    """What an executable is made of.

    ``weights`` is a uint8 tensor with the weights where `make_plan` puts them; ``library`` is the shared
    library of the kernels, empty if there are none.
    """

    program: LaneProgram
    platform: Platform
    schedule: Schedule | None
    weights: Any
    library: bytes


def write_artifact(artifact: Artifact, path: str | Path) -> None:
    """Write an artifact; the file appears whole or not at all."""
    path = Path(path)
    weights = np.from_dlpack(artifact.weights).data
    members = {_KERNELS: memoryview(artifact.library), _WEIGHTS: weights}
    manifest = json.dumps(
        {
            "format": _FORMAT,
            "version": _VERSION,
            "packages": {name: metadata.version(name) for name in _PACKAGES},
            "program": artifact.program.to_json(),
            "platform": artifact.platform.to_json(),
            "schedule": None if artifact.schedule is None else artifact.schedule.to_json(),
            "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in members.items()},
        }
    ).encode()
    members = {
        _MANIFEST: memoryview(manifest),
        _DIGEST: memoryview(hashlib.sha256(manifest).hexdigest().encode()),
        **members,
    }
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for name, content in members.items():
                # The same executable gives the same file: no dates.
                with archive.open(zipfile.ZipInfo(name), "w", force_zip64=True) as member:
                    member.write(content)
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def read_artifact(path: str | Path) -> Artifact:
    """Read and check an artifact.

    Raises
    ------
    ArtifactError
        With the file and the member that is truncated, altered or of another version.
    """
    where = f"artifact {str(path)!r}"
    try:
        with zipfile.ZipFile(path) as archive:
            if sorted(archive.namelist()) != sorted(_MEMBERS):
                raise ArtifactError(f"Expected members {_MEMBERS} in {where}; got {archive.namelist()}.")
            manifest = _read_manifest(archive, where)
            library = _read_member(archive, _KERNELS, where)
            _check_digest(library, manifest["sha256"].get(_KERNELS), _KERNELS, where)
            weights = _read_weights(archive, manifest["sha256"].get(_WEIGHTS), where)
    except OSError as error:
        raise ArtifactError(f"Cannot read {where}: {error.strerror or error}.") from error
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise ArtifactError(f"Truncated or altered: {where}: {error}") from error
    return _assemble(manifest, weights, library, where)


def _read_manifest(archive: zipfile.ZipFile, where: str) -> dict[str, Any]:
    text = _read_member(archive, _MANIFEST, where)
    _check_digest(text, _read_member(archive, _DIGEST, where).decode("latin-1"), _MANIFEST, where)
    try:
        manifest = json.loads(text)
        form = (manifest["format"], manifest["version"])
        packages = {name: manifest["packages"][name] for name in _PACKAGES}
        if not isinstance(manifest["sha256"], dict):
            raise KeyError("sha256")
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"Not a manifest: {_MANIFEST} of {where}: {error!r}.") from error
    if form != (_FORMAT, _VERSION):
        raise ArtifactError(f"Expected {_FORMAT!r} version {_VERSION} in {where}; got {form}.")
    for name, written in packages.items():
        if _release(written) != _release(metadata.version(name)):
            raise ArtifactError(
                f"{where[0].upper()}{where[1:]} was written with {name} {written}; installed is "
                f"{metadata.version(name)}. Compile the model again."
            )
    return dict(manifest)


def _release(version: str) -> list[str]:
    return version.split(".post")[0].split(".")


def _read_member(archive: zipfile.ZipFile, name: str, where: str) -> bytes:
    try:
        return archive.read(name)
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError) as error:
        raise ArtifactError(f"Truncated or altered: {name} of {where}: {error}") from error


def _read_weights(archive: zipfile.ZipFile, digest: object, where: str) -> Any:
    """Read the weights straight to where the kernels will read them."""
    size = archive.getinfo(_WEIGHTS).file_size
    if size > os.path.getsize(archive.filename or ""):
        raise ArtifactError(f"Truncated or altered: {_WEIGHTS} of {where}: {size} bytes.")
    weights = aligned_bytes(size)
    into = np.from_dlpack(weights).data[:size]
    filled = 0
    try:
        with archive.open(_WEIGHTS) as member:
            while filled < size and (count := member.readinto(into[filled:])):  # type: ignore[attr-defined]
                filled += count
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError) as error:
        raise ArtifactError(f"Truncated or altered: {_WEIGHTS} of {where}: {error}") from error
    _check_digest(into, digest, _WEIGHTS, where)
    return weights


def _check_digest(content: Any, digest: object, name: str, where: str) -> None:
    if hashlib.sha256(content).hexdigest() != digest:
        raise ArtifactError(f"Truncated or altered: {name} of {where}: its SHA-256 differs.")


def _assemble(manifest: dict[str, Any], weights: Any, library: bytes, where: str) -> Artifact:
    try:
        schedule = manifest["schedule"]
        program = LaneProgram.from_json(manifest["program"])
        platform = Platform.from_json(manifest["platform"], where)
        artifact = Artifact(
            program,
            platform,
            None if schedule is None else Schedule.from_json(schedule),
            weights,
            library,
        )
        if max((step.device for step in program.steps), default=0) >= len(platform.devices):
            raise ArtifactError("A step runs on a device that the platform lacks.")
        if make_plan(program, platform).weight_bytes > weights.shape[0]:
            raise ArtifactError(f"{_WEIGHTS} is shorter than its program needs.")
    except (SphinxError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"Not an executable: {_MANIFEST} of {where}: {error}") from error
    return artifact


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
