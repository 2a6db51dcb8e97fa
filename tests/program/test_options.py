"""What a compilation is asked for: all of it is checked before a model is loaded."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path
from typing import Any

import pytest

import tvm_sphinx
from tvm_sphinx import pipeline
from tvm_sphinx.cost.records.store import RecordStore
from tvm_sphinx.errors import SphinxError
from tvm_sphinx.platform import Device, Platform
from tvm_sphinx.platform.targets import host_target
from tvm_sphinx.plugin import sphinx_pipeline
from tvm_sphinx.program import options
from tvm_sphinx.program.options import CompileOptions


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"algorithm": "luck"}, "Unknown algorithm 'luck'; known: .*cpga"),
        ({"seed": -5}, r"Expected seed as an integer of 0\.\.2\*\*64 - 1; got -5"),
        ({"seed": 0.5}, "Expected seed as an integer .*; got 0.5"),
        ({"stop": 3.0}, r"Expected stop as a Stop or None; got 3\.0"),
        ({"measure": 20}, "Expected measure as a MeasureConfig; got 20"),
        ({"measure_budget_s": -1.0}, r"measuring budget of 0 s or more; got -1\.0"),
        ({"measure_budget_s": float("nan")}, "measuring budget of 0 s or more; got nan"),
        ({"measure_budget_s": float("inf")}, "measuring budget of 0 s or more; got inf"),
        ({"libraries": "cublaslt"}, "Expected libraries as a list of texts"),
        ({"leave_out": True, "measure_budget_s": 3.0}, "Expected leave_out without a measuring budget"),
        ({"leave_out": True, "variants": True}, "leave_out without .* and variants, .*; got both"),
        ({"pins": "conv*=native"}, r"Expected pins as a list of texts, \['conv\*=native'\]; got 'conv"),
        ({"pins": [3]}, "Expected a pin as a Pin, or as text .*; got 3"),
        ({"exclude_devices": "native"}, r"Expected exclude_devices as a list of texts, \['native'\]"),
        ({"dump_code": "tir"}, r"Expected dump_code as a list of texts, \['tir'\]; got 'tir'"),
        ({"output": "no/such/folder/out.sphinx"}, "existing folder for the output"),
        ({"measure_budget_s": 0.0, "cost_model": "no-such.json"}, "There is no cost model at"),
    ],
)
def test_an_option_out_of_range_is_told_before_any_work(
    option: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for where, stage in (
        (options, "load_platform"),
        (pipeline, "open_records"),
        (pipeline, "load_model"),
    ):
        monkeypatch.setattr(where, stage, lambda *_, **__: pytest.fail("work was begun"))
    with pytest.raises(SphinxError, match=message):
        tvm_sphinx.compile("inception-v1", **option)


@pytest.mark.parametrize("given", [42, None, ["detect"]])
def test_what_is_no_model_or_platform_is_told(given: Any) -> None:
    """A number is the descriptor of a file that is open: what lies behind it is not read."""
    with pytest.raises(SphinxError, match="Expected a platform as a Platform, the name of a TOML file"):
        tvm_sphinx.compile("inception-v1", given)
    with pytest.raises(SphinxError, match=r"Expected a model as the name of a file, an onnx\.Model"):
        tvm_sphinx.compile(given, "unlike-cpus")


def test_an_option_that_is_none_is_named() -> None:
    with pytest.raises(TypeError, match="sed"):
        tvm_sphinx.compile("inception-v1", sed=3)


def test_the_pipeline_of_tvm_leaves_nothing_out() -> None:
    with pytest.raises(SphinxError, match="measures all kernels: expected no leave_out; got True"):
        sphinx_pipeline(leave_out=True)
    with pytest.raises(SphinxError, match=r"calls no libraries: expected none; got \['cublaslt'\]"):
        sphinx_pipeline(libraries=["cublaslt"])


def test_kernels_are_left_out_if_that_is_asked_for_or_devices_are_many() -> None:
    cores: list[tuple[int, ...]] = [(0,), (0, 1), (0, 1, 2)]
    devices = [Device(f"d{len(of)}", host_target(), "cpu:0", of) for of in cores]
    platform, records = Platform(tuple(devices)), RecordStore(None)
    assert CompileOptions().guide(platform, records) is None
    assert CompileOptions(leave_out=True).guide(platform, records) is not None
    more: list[tuple[int, ...]] = [(0, 1, 2, 3), (0, 1, 2, 3, 4)]
    many = [*devices, *(Device(f"d{len(of)}", host_target(), "cpu:0", of) for of in more)]
    assert CompileOptions().guide(Platform(tuple(many)), records) is not None
    for given in ({"leave_out": False}, {"measure_budget_s": 1.0}, {"pins": ["a=d1"]}):
        assert CompileOptions(**given).guide(Platform(tuple(many)), records) is None


def test_the_pipeline_of_tvm_checks_its_seed_too() -> None:
    with pytest.raises(SphinxError, match="got -5"):
        sphinx_pipeline(seed=-5)


def test_help_lists_every_option_with_its_default() -> None:
    listed = inspect.signature(tvm_sphinx.compile).parameters
    fields = {field.name: field.default for field in dataclasses.fields(CompileOptions)}
    assert list(listed) == ["model", "platform", *fields]
    for name, default in fields.items():
        assert listed[name].kind is inspect.Parameter.KEYWORD_ONLY
        assert listed[name].default == default


def test_options_cannot_be_changed(tmp_path: Path) -> None:
    options = CompileOptions(output=tmp_path / "out.sphinx")
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.seed = 1  # type: ignore[misc]
