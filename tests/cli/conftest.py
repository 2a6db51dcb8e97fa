"""One small network, compiled once, for all tests of the command and of what it reports."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

import tvm_sphinx
from tvm_sphinx.cost.measure.kernels import MeasureConfig
from tvm_sphinx.program.compiled import CompiledModel

QUICK = MeasureConfig(sample_ms=0.2, under_load=False)
PLATFORM = """
[[device]]
name = "native"
target = "host"
cores = [0]
[[device]]
name = "baseline"
target = "baseline"
cores = [0]
"""
_NET = """<ir_version: 8, opset_import: ["": 17]>
net (float[1,8,12,12] x) => (float[1,10] y) {
  [left] a = Conv <pads = [1,1,1,1]> (x, wa)
  [right] b = Conv <pads = [1,1,1,1]> (x, wb)
  [relu_left] ra = Relu (a)
  [sigmoid_right] rb = Sigmoid (b)
  [sum] s = Add (ra, rb)
  [pool] p = GlobalAveragePool (s)
  [flat] f = Flatten (p)
  [scores] y = Gemm (f, wy)
}"""


@dataclass(frozen=True)
class Job:
    """A model, a platform, records of all its costs, and a program with its variants."""

    model: Path
    platform: Path
    records: Path
    program: Path
    compiled: CompiledModel

    def compile(self, *more: str) -> list[str]:
        """Return the words that compile it once more; it measures nothing."""
        given = ("--platform", str(self.platform), "--records", str(self.records))
        return ["compile", str(self.model), *given, *more]


def branching_onnx() -> onnx.ModelProto:
    """Return two convolutions side by side, with seeded weights."""
    model = onnx.parser.parse_model(_NET)
    rng = np.random.default_rng(5)
    for name, shape in (("wa", (16, 8, 3, 3)), ("wb", (16, 8, 3, 3)), ("wy", (16, 10))):
        weight = rng.standard_normal(shape).astype("float32") / 8
        model.graph.initializer.append(numpy_helper.from_array(weight, name))
    return model


@pytest.fixture(scope="session")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """The network on two unlike devices of one core."""
    folder = tmp_path_factory.mktemp("job")
    model, platform = folder / "net.onnx", folder / "platform.toml"
    records, program = folder / "records.jsonl", folder / "net.sphinx"
    onnx.save(branching_onnx(), model)
    platform.write_text(PLATFORM)
    compiled = tvm_sphinx.compile(
        str(model), str(platform), records=records, measure=QUICK, variants=True, output=program
    )
    return Job(model, platform, records, program, compiled)
