"""Verification against the source: equal, refused by the operator that differs, or not verified."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import onnx.parser
import pytest
import tvm

from tvm_sphinx.errors import ModelError, VerificationError
from tvm_sphinx.frontend.load import load_model, read_source
from tvm_sphinx.frontend.model_source import ModelSource
from tvm_sphinx.frontend.signature import check_declared, read_interface, source_signature
from tvm_sphinx.platform import Device, Platform
from tvm_sphinx.platform.targets import device_target, host_target
from tvm_sphinx.program.verify.check import Subject, verify_program
from tvm_sphinx.program.verify.draw import draw_example
from tvm_sphinx.program.verify.locate import plain_build
from tvm_sphinx.program.verify.open_source import open_source
from tvm_sphinx.program.verify.tolerance import TOLERANCES, compare, tolerance_of
from tvm_sphinx.program.verify.verification import Verification

needs_runtime = pytest.mark.skipif(
    importlib.util.find_spec("onnxruntime") is None, reason="onnxruntime is not installed"
)
needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="torch is not installed"
)
HERE = Platform((Device("one", host_target(), "cpu:0", (0,)),))


class Plain:
    """A program in our lowering and default kernels, or one that computes with numpy."""

    def __init__(self, module: tvm.IRModule, run: Callable[..., list[Any]] | None = None) -> None:
        self.run = run or plain_build(device_target(HERE.devices[0]))(module)

    def open(self) -> Callable[[Sequence[Any]], list[Any]]:
        return lambda arrays: [tvm.runtime.tensor(array) for array in self.run(arrays)]

    def manifest(self) -> dict[str, Any]:
        return {}

    def members(self) -> dict[str, bytes]:
        return {}


def onnx_model(text: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> net {text}')


def case(model: Any, imported: Any = None, run: Any = None) -> Case:
    """Return a program to verify; ``imported`` stands for what a faulty importer makes of the model."""
    source = read_source(model)
    module = load_model(source if imported is None else imported)
    interface = read_interface(source, module["main"])
    return Case(Subject(source, module["main"], interface, HERE), Plain(module, run))


class Case(NamedTuple):
    """A program, and what it is verified against."""

    subject: Subject
    program: Plain

    def verify(self, given: dict[str, Any] | None = None) -> Verification:
        return verify_program(self.subject, self.program, None, given)


CHAIN = (
    "(float[2,8] x) => (float[2,8] y, float[2] m) {{"
    " a = {0}(x) b = Neg(a) y = Tanh(b) m = ReduceMean <axes=[1], keepdims=0> (b) }}"
)


def test_a_right_program_equals_its_source_and_says_to_what() -> None:
    found = case(onnx_model(CHAIN.format("Sigmoid"))).verify()
    assert found.is_verified
    assert found.difference is not None
    assert found.difference < 1e-6
    assert [check.name for check in found.outputs] == ["y", "m"]
    (heading, text), *_ = found.describe()
    assert heading == "model"
    assert "drawn inputs, seed 0" in text
    assert Verification.from_json(found.to_json()) == found


def test_a_wrong_import_is_refused_by_output_and_by_operator() -> None:
    """The first of three operators is imported as another one; the later ones carry it on."""
    wrong = case(onnx_model(CHAIN.format("Sigmoid")), onnx_model(CHAIN.format("Softsign")))
    with pytest.raises(VerificationError, match=r"Output '[ym]' of the program differs by") as caught:
        wrong.verify()
    # What is looked up is the operator that was imported in the place of the source's.
    assert "The first operator that differs is Softsign a, as TVM imports it" in str(caught.value)


OPEN = (
    "(float[2,8] x) => (float[2,N] y, int64[2] z) {{"
    " a = {0}(x) b = Round(a) n = NonZero(b) f = Cast <to = 1> (n) y = {1}(f, f) z = Shape(n) }}"
)


@pytest.mark.parametrize(("wrong", "culprit"), [(("Cosh", "Add"), "Cosh a"), (("Sinh", "Mul"), "Mul y")])
def test_an_operator_before_or_behind_an_unknown_shape_is_found(
    wrong: tuple[str, str], culprit: str
) -> None:
    source, imported = (onnx_model(OPEN.format(*names)) for names in (("Sinh", "Add"), wrong))
    with pytest.raises(VerificationError) as caught:
        case(source, imported).verify()
    assert f"The first operator that differs is {culprit}, as TVM imports it" in str(caught.value)


def test_a_fault_of_the_chosen_kernels_is_not_blamed_on_an_operator() -> None:
    def off(arrays: Sequence[Any]) -> list[Any]:
        (x,) = arrays
        b = -1 / (1 + np.exp(-x))
        return [np.tanh(b) + np.float32(0.01), b.mean(axis=1)]

    with pytest.raises(VerificationError, match="of the kernels that were chosen, or of the schedule"):
        case(onnx_model(CHAIN.format("Sigmoid")), run=off).verify()


def test_another_type_or_shape_is_refused() -> None:
    model = onnx_model("(float[2,3] x) => (float[2,3] y) { y = Identity(x) }")
    with pytest.raises(VerificationError, match=r"has shape \[3, 2\]; that of the source is \[2, 3\]"):
        case(model, run=lambda arrays: [arrays[0].T.copy()]).verify()
    with pytest.raises(VerificationError, match="is float64; that of the source is float32"):
        case(model, run=lambda arrays: [arrays[0].astype(np.float64)]).verify()
    with pytest.raises(VerificationError, match="differs by inf"):
        case(model, run=lambda arrays: [np.full_like(arrays[0], np.nan)]).verify()


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_the_tolerance_is_a_share_of_the_largest_value(dtype: str) -> None:
    import ml_dtypes  # noqa: F401 - makes the name bfloat16 known

    # Powers of two, so that both sides are exact in each type.
    theirs = np.array([256.0, 1.0, 0.0], dtype=dtype)
    step = 2.0 ** np.floor(np.log2(256 * TOLERANCES[dtype]))
    within, beyond = theirs.copy(), theirs.copy()
    within[2], beyond[2] = step, 4 * step
    assert compare("y", within, theirs).is_equal
    assert not compare("y", beyond, theirs).is_equal


@pytest.mark.parametrize("dtype", ["int8", "int32", "int64", "uint8", "bool"])
def test_whole_numbers_and_booleans_have_to_be_equal(dtype: str) -> None:
    theirs = np.array([1, 1, 0, 1]).astype(dtype)
    other = theirs.copy()
    other[2] = 1
    assert compare("y", theirs, theirs).is_equal
    check = compare("y", other, theirs)
    assert not check.is_equal
    assert check.difference == 0.25
    assert "25.00% of its elements" in check.describe()


def test_nan_is_where_the_source_has_it() -> None:
    theirs = np.array([np.nan, np.inf, 1.0], dtype=np.float32)
    assert compare("y", theirs, theirs).is_equal
    assert not compare("y", np.array([0, np.inf, 1], np.float32), theirs).is_equal
    assert not compare("y", np.array([np.nan, -np.inf, 1], np.float32), theirs).is_equal
    assert compare("y", np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32)).is_equal


def test_what_went_through_a_narrower_type_is_known_no_better() -> None:
    assert tolerance_of("float32", {"float16"}) == TOLERANCES["float16"]
    assert tolerance_of("float16", {"float32"}) == TOLERANCES["float16"]
    assert tolerance_of("int64", {"float16"}) == 0.0


def test_indices_masks_and_divisors_are_drawn_to_suit() -> None:
    model = onnx_model(
        "(int64[1,6] ids, int64[1,6] mask, int64[1,6] by) => (float[1,6,2] y, int64[1,6] z) "
        "<float[5,2] table = {0,1,2,3,4,5,6,7,8,9}, int64[1] axis = {2}> {"
        " wide = Cast <to=7> (ids) rows = Gather(table, wide) on = Cast <to=1> (mask)"
        " column = Unsqueeze(on, axis) y = Mul(rows, column) z = Div(ids, by) }"
    )
    made = case(model).subject
    example = draw_example(open_source(made.source), made.interface.inputs, seed=3)
    ids, mask, by = example.inputs
    assert set(np.unique(ids)) <= set(range(5))
    assert ids.max() > 1
    assert set(np.unique(mask)) <= {0, 1}
    assert by.min() >= 1


@needs_runtime
def test_whole_numbers_are_never_divided_by_zero_in_the_source() -> None:
    """ONNX Runtime would end the process; the divisor is zero only after a subtraction."""
    model = onnx_model(
        "(int64[3] x, int64[3] by) => (int64[3] y) <int64[1] one = {1}>"
        " { d = Sub(by, one) y = Div(x, d) }"
    )
    with pytest.raises(ZeroDivisionError, match="'d' divides whole numbers"):
        open_source(read_source(model)).run([np.arange(3), np.array([2, 1, 3])])
    (y,) = open_source(read_source(model)).run([np.arange(3), np.array([2, 3, 4])])
    np.testing.assert_array_equal(y, [0, 0, 0])


@needs_runtime
def test_a_source_that_is_random_verifies_nothing() -> None:
    model = onnx_model("(float[64] x) => (float[64] y) { r = RandomNormalLike(x) y = Add(x, r) }")
    plain = onnx_model("(float[64] x) => (float[64] y) { r = Neg(x) y = Add(x, r) }")
    found = case(model, plain).verify()
    assert not found.is_verified
    assert "from run to run" in found.reason


def test_a_decision_that_hangs_on_rounding_is_not_blamed() -> None:
    """Inputs that sit in the middle between two whole numbers are rounded up or down by a hair."""
    model = onnx_model("(float[4] x) => (float[4] y) { y = Round(x) }")
    given = {"x": np.array([0.5, 1.5, 2.5, 3.5], np.float32)}
    found = case(model, run=lambda arrays: [np.floor(arrays[0] + 0.5)]).verify(given)
    assert not found.is_verified
    assert "change by their rounding" in found.reason


def test_given_inputs_are_used_and_checked() -> None:
    model = case(onnx_model(CHAIN.format("Sigmoid")))
    found = model.verify({"x": np.ones((2, 8), np.float32)})
    assert found.inputs == "the given inputs"
    with pytest.raises(ModelError, match="Unknown input 'z'; known: x"):
        model.verify({"z": np.ones((2, 8), np.float32)})


def test_what_cannot_be_verified_says_why() -> None:
    model, program = case(onnx_model(CHAIN.format("Sigmoid")))
    module = tvm.IRModule({"main": model.function})
    without = replace(model, source=ModelSource("relax", module, "the given IRModule"))
    assert "no source framework" in verify_program(without, program).describe()[0][1]
    away = Platform((Device("far", "llvm", "cpu:0", (0,), rpc_key="board"),))
    assert verify_program(replace(model, platform=away), program).reason == (
        "the devices are on another machine"
    )


def test_a_schedule_that_differs_from_one_device_is_refused() -> None:
    model = onnx_model("(float[2,3] x) => (float[2,3] y) { y = Neg(x) }")
    made, program = case(model)
    other = Plain(load_model(model), lambda arrays: [arrays[0]])
    with pytest.raises(
        VerificationError, match=r"of the schedule differs by .* the build for one device"
    ):
        verify_program(made, program, other)


def test_outputs_are_held_against_what_the_file_declares() -> None:
    model = onnx_model("(float[2,3] x) => (float[2,3] y) { y = Neg(x) }")
    function = load_model(model)["main"]
    signature = source_signature(read_source(model), function)
    check_declared(function, signature, "the model", None)
    for shape, dtype, told in [
        ((2, 4), "float32", r"float32\[2, 4\]"),
        ((2, 3), "int64", r"int64\[2, 3\]"),
    ]:
        other = replace(signature, outputs=(replace(signature.outputs[0], shape=shape, dtype=dtype),))
        with pytest.raises(ModelError, match=rf"Expected output 'y' of the model as {told}"):
            check_declared(function, other, "the model", None)
    open_shape = replace(signature, outputs=(replace(signature.outputs[0], shape=(None, 3)),))
    check_declared(function, open_shape, "the model", None)
    # Other inputs than the file's may give outputs of other extents, but of the same rank.
    reshaped = replace(signature, outputs=(replace(signature.outputs[0], shape=(7, 3)),))
    inputs = replace(reshaped, inputs=(replace(signature.inputs[0], shape=(7, 3)),))
    check_declared(function, inputs, "the model", {"x": [2, 3]})


def test_what_the_operators_make_of_an_output_counts_more_than_what_a_file_declares() -> None:
    """As in ONNX Runtime; files of public packages declare shapes that their outputs do not have."""
    model = onnx_model(
        "(float[2,3] x) => (float[1,N] y) <int64[1] axes = {0}> { y = Unsqueeze(x, axes) }"
    )
    source = read_source(model)
    with pytest.warns(UserWarning, match=r"'y' is float32\[1, 2, 3\], and not float32\[1, \?\]"):
        interface = read_interface(source, load_model(source)["main"])
    assert interface.outputs[0].shape == (1, 2, 3)
    wrong = load_model(onnx_model("(float[2,3] x) => (float[2,3] y) { y = Neg(x) }"))["main"]
    with pytest.raises(ModelError, match=r"Expected output 'y' of .* as float32\[1, 2, 3\]"):
        read_interface(source, wrong)


@needs_torch
def test_a_torch_program_is_verified_under_the_names_of_its_result() -> None:
    import torch

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = torch.nn.Embedding(7, 4)

        def forward(self, ids: torch.Tensor, scale: torch.Tensor) -> dict[str, Any]:
            rows = self.table(ids) * scale
            return {"rows": rows, "sums": (rows.sum(-1), ids.float())}

    program = torch.export.export(Net(), (torch.zeros(2, 9, dtype=torch.int64), torch.ones(1)))
    made, compiled = case(program)
    assert [spec.name for spec in made.interface.inputs] == ["ids", "scale"]
    assert [spec.name for spec in made.interface.outputs] == ["rows", "sums.0", "sums.1"]
    found = verify_program(made, compiled)
    assert found.is_verified
    assert found.runtime.startswith("torch")
