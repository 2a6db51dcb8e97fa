"""The file that `compile` writes: one archive that is checked as a whole before anything in it is used.

A stored (uncompressed) zip archive. ``manifest.json`` names the format version and the SHA-256 of every
other member; of members with equal content only the first is stored. The archive's comment holds the
SHA-256 of the manifest. There is no pickle in it.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import zipfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ..errors import ArtifactError, SphinxError

#: Version of the archive's layout.
FORMAT = 3

_MANIFEST = "manifest.json"
# What a member may be: memory that is not copied to be written.
Content = bytes | memoryview


def write_artifact(
    path: str | Path, manifest: Mapping[str, Any], members: Mapping[str, Content]
) -> None:
    """Write an artifact in one step: a crash or a full disk leaves what was at ``path`` before.

    Raises
    ------
    SphinxError
        If the file cannot be written.
    """
    target = Path(path)
    digests = _digests(members)
    header = json.dumps({**manifest, "format": FORMAT, "sha256": digests}, indent=1).encode()
    stored = {_MANIFEST: header, **{name: members[name] for name in _first_names(digests).values()}}
    comment = hashlib.sha256(header).hexdigest().encode()
    temporary = ""
    try:
        if target.exists() and not target.is_file():
            with open(target, "wb") as file:  # a device or a pipe is written to, and not replaced
                _write_archive(file, stored, comment)
            return
        with tempfile.NamedTemporaryFile(
            dir=target.parent, prefix=f".{target.name}.", delete=False
        ) as file:
            temporary = file.name
            _write_archive(file, stored, comment)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, target)
        temporary = ""
    except OSError as error:
        raise SphinxError(f"Cannot write {str(target)!r}: {error.strerror}.") from error
    finally:
        if temporary:  # also after Ctrl-C
            Path(temporary).unlink(missing_ok=True)


def _write_archive(file: Any, members: Mapping[str, Content], comment: bytes) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        archive.comment = comment


def read_artifact(path: str | Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return the manifest and the members of an artifact, after checking every digest.

    Raises
    ------
    ArtifactError
        If the file is missing, truncated, altered, or of another format version.
    """
    where = f"artifact {str(path)!r}"
    try:
        with zipfile.ZipFile(path) as archive:
            header = archive.read(_MANIFEST)
            if hashlib.sha256(header).hexdigest().encode() != archive.comment:
                raise ArtifactError(f"Altered {where}: {_MANIFEST} does not match its digest.")
            manifest = json.loads(header)
            if manifest.get("format") != FORMAT:
                raise ArtifactError(
                    f"Expected format {FORMAT} of {where}; got {manifest.get('format')!r}."
                )
            digests = manifest["sha256"]
            stored = {digest: archive.read(name) for digest, name in _first_names(digests).items()}
    except OSError as error:
        raise ArtifactError(f"Cannot read {where}: {error.strerror}.") from error
    except (zipfile.BadZipFile, KeyError, ValueError, EOFError, NotImplementedError) as error:
        raise ArtifactError(
            f"Truncated or altered {where}, or no program that 'tvm-sphinx compile -o' wrote: {error}"
        ) from error
    for digest, found in _digests(stored).items():
        if found != digest:
            name = _first_names(digests)[digest]
            raise ArtifactError(f"Altered {where}: member {name!r} does not match its digest.")
    return manifest, {name: stored[digest] for name, digest in digests.items()}


def _digests(members: Mapping[str, Content]) -> dict[str, str]:
    """Return the SHA-256 of each member: on all cores, of an object that has several names once."""
    distinct = {id(content): content for content in members.values()}
    with ThreadPoolExecutor() as pool:
        found = dict(zip(distinct, pool.map(_digest, distinct.values()), strict=True))
    return {name: found[id(content)] for name, content in members.items()}


def _digest(content: Content) -> str:
    return hashlib.sha256(content).hexdigest()


def _first_names(digests: Mapping[str, str]) -> dict[str, str]:
    """Return for each digest the first member that has it."""
    first: dict[str, str] = {}
    for name, digest in digests.items():
        first.setdefault(digest, name)
    return first
