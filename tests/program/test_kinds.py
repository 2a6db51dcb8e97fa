"""Programs in files: of which kind, from which version, for which machine."""

from __future__ import annotations

import pytest
import tvm

from tvm_sphinx.errors import ArtifactError, PlatformError
from tvm_sphinx.program.kinds import StockProgram, restore_program


def _manifest(**change: object) -> dict:
    program = StockProgram(b"library", ("cpu:0", "cuda:7"), "main")
    return {**program.manifest(), **change}


def test_a_program_for_a_machine_with_other_devices_can_be_read_but_not_run() -> None:
    program = restore_program(_manifest(), {"program.so": b"library"}, "artifact 'x'")
    assert program.members() == {"program.so": b"library"}
    with pytest.raises(PlatformError, match=r"a machine with cpu:0, cuda:7; cuda:7 is not at hand"):
        program.open()


def test_a_program_of_another_kind_or_version_is_refused_by_name() -> None:
    with pytest.raises(ArtifactError, match=r"artifact 'x': 'fast'; known: lanes, stock-vm"):
        restore_program(_manifest(kind="fast"), {}, "artifact 'x'")
    with pytest.raises(ArtifactError, match=rf"with TVM {tvm.__version__}; got 0\.26"):
        restore_program(_manifest(tvm="0.26"), {}, "artifact 'x'")
