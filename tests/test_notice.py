"""A warning names the line of the user's that led to it, however deep it is raised."""

from __future__ import annotations

from pathlib import Path

import pytest
import tvm
from tvm import relax

from tvm_sphinx.cost.records.store import RecordStore
from tvm_sphinx.plugin import sphinx_pipeline


def test_a_warning_names_the_line_that_called_the_package(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text('{"schema": 2, "kind": "kernel", "torn\n')
    with pytest.warns(UserWarning, match="lines that are not used") as caught:
        RecordStore(path)
    assert caught[0].filename == __file__


def test_a_warning_below_a_pass_names_the_line_that_ran_the_pass() -> None:
    """TVM's own Python lies between the pass and the user."""
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType([tvm.tirx.Var("n", "int64"), 4], "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            y = builder.emit_output(builder.emit(relax.op.nn.relu(x)))
        builder.emit_func_output(y)
    pipeline = tvm.transform.Sequential([sphinx_pipeline("detect", records=None)])
    with pytest.warns(UserWarning, match="leaves the module to TVM's pipeline") as caught:
        pipeline(builder.get())
    assert caught[0].filename == __file__
