"""The artifact: whole or refused by name; a failed write leaves what was there."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from tvm_sphinx.errors import ArtifactError, SphinxError
from tvm_sphinx.runtime.artifact import read_artifact, write_artifact

MEMBERS = {"kernels.so": bytes(range(256)) * 4, "weights.bin": b"w" * 300}


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    path = tmp_path / "model.sphinx"
    write_artifact(path, {"name": "model"}, MEMBERS)
    return path


def test_round_trip(artifact: Path) -> None:
    manifest, members = read_artifact(artifact)
    assert manifest["name"] == "model"
    assert members == MEMBERS
    assert [path.name for path in artifact.parent.iterdir()] == ["model.sphinx"]


def test_what_two_members_share_is_stored_once(tmp_path: Path) -> None:
    weights = b"w" * 10_000
    members = {"program/weights": weights, "reference/weights": weights, "reference/code": b"c"}
    write_artifact(tmp_path / "both.sphinx", {}, members)
    assert read_artifact(tmp_path / "both.sphinx")[1] == members
    assert (tmp_path / "both.sphinx").stat().st_size < 2 * len(weights)


def test_memory_is_written_as_its_bytes(tmp_path: Path) -> None:
    weights = np.arange(10_000, dtype=np.uint8)
    weights.flags.writeable = False
    write_artifact(tmp_path / "one.sphinx", {}, {"weights": weights.data, "same": weights.tobytes()})
    assert read_artifact(tmp_path / "one.sphinx")[1] == dict.fromkeys(
        ("weights", "same"), weights.tobytes()
    )
    assert (tmp_path / "one.sphinx").stat().st_size < 2 * len(weights)


def test_every_altered_byte_is_found_or_harmless(artifact: Path) -> None:
    """A byte that is altered is refused, unless it is one that no reader of the archive looks at."""
    content = artifact.read_bytes()
    messages = []
    positions = range(0, len(content), 3)
    for position in positions:
        altered = bytearray(content)
        altered[position] ^= 0xFF
        artifact.write_bytes(altered)
        try:
            assert read_artifact(artifact)[1] == MEMBERS
        except ArtifactError as error:
            messages.append(str(error))
    assert all("model.sphinx" in message for message in messages)
    assert len(messages) > 0.8 * len(positions)


def test_every_truncation_is_refused(artifact: Path) -> None:
    content = artifact.read_bytes()
    for length in range(0, len(content), 17):
        artifact.write_bytes(content[:length])
        with pytest.raises(ArtifactError, match=r"model\.sphinx"):
            read_artifact(artifact)


def test_a_member_swapped_with_a_right_checksum_is_refused(artifact: Path) -> None:
    with zipfile.ZipFile(artifact) as archive:
        header, comment = archive.read("manifest.json"), archive.comment
    with zipfile.ZipFile(artifact, "w") as archive:
        archive.writestr("manifest.json", header)
        archive.writestr("kernels.so", b"evil")
        archive.writestr("weights.bin", MEMBERS["weights.bin"])
        archive.comment = comment
    with pytest.raises(ArtifactError, match=r"'kernels\.so' does not match its digest"):
        read_artifact(artifact)


def test_a_failed_write_leaves_what_was_there(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = artifact.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(SphinxError, match="No space left"):
        write_artifact(artifact, {}, MEMBERS)
    assert artifact.read_bytes() == before
    assert [path.name for path in artifact.parent.iterdir()] == ["model.sphinx"]
