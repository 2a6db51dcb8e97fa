"""Programs in files: of which kind, from which version, for which machine."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx.parser
import pytest
import tvm

import tvm_sphinx
from tvm_sphinx.cost.measure.kernel_timing import MeasureConfig
from tvm_sphinx.errors import ArtifactError, PlatformError
from tvm_sphinx.platform import Device, Platform
from tvm_sphinx.platform.machine import usable_cores
from tvm_sphinx.platform.targets import host_target
from tvm_sphinx.program.kinds import StockProgram, input_device, restore_program
from tvm_sphinx.runtime.kernels import device_processor


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
    with pytest.raises(ArtifactError, match=r"with TVM 0\.\d+\.\d+; got 0\.26"):
        restore_program(_manifest(tvm="0.26"), {}, "artifact 'x'")


def test_a_program_for_another_processor_is_read_but_not_run() -> None:
    """Its kernels would kill the process."""
    has_sse4a = "sse4a" in Path("/proc/cpuinfo").read_text()  # AMD's own, in every Zen
    foreign = "sapphirerapids" if has_sse4a else "znver4"
    foreign = "neoverse-v2" if "aarch64" in host_target() else foreign
    target = json.dumps({**json.loads(host_target()), "mcpu": foreign})
    processor = device_processor(Device("far", target, "cpu:0", (0,)))
    assert processor is not None
    program = StockProgram(b"library", ("cpu:0",), "main", processors={"far": processor})
    again = restore_program(program.manifest(), program.members(), "artifact 'x'")
    assert again == program
    with pytest.raises(PlatformError, match=f"'far' is built for {foreign}, which has"):
        again.open()


def test_inputs_are_where_the_program_is() -> None:
    """A program of one device expects them there, others on the first CPU device, of any number."""
    first, second = tvm.cpu(1), tvm.cpu(2)
    assert input_device([first]) == first
    assert input_device([first, second]) == first
    assert input_device([tvm.cuda(0), second]) == second
    assert input_device([tvm.cuda(0)]) == tvm.cuda(0)


def test_a_model_of_open_extents_runs_on_a_device_of_any_number() -> None:
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]>
        open (float[N, 3] x) => (float[N, 3] y) { y = Relu(x) }""")
    platform = Platform((Device("only", host_target(), "cpu:1", usable_cores()[:1]),))
    compiled = tvm_sphinx.compile(
        model, platform, records=None, verify=False, measure=MeasureConfig(sample_ms=0.1)
    )
    assert "Dynamic shapes" in compiled.note
    x = np.array([[-1, 0, 2]] * 5, np.float32)
    np.testing.assert_array_equal(compiled.run([x])[0], np.maximum(x, 0))
