"""Packed, channels-last modules compute what the original modules do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
import tvm
from onnx.reference import ReferenceEvaluator
from tvm import relax, tirx
from tvm_ffi import structural_equal

from tests.frontend.evaluate import evaluate, make_model
from tests.kernels.reference import TARGET, compare
from tvm_sphinx.frontend.fold_constants import fold_constants
from tvm_sphinx.frontend.lower import lower_to_kernels
from tvm_sphinx.kernels import prepare_layouts, schedule_kernel

PASSES = relax.transform


def const(*shape: int) -> relax.Expr:
    return relax.const(np.random.default_rng(sum(shape)).standard_normal(shape).astype("float32"))


def conv(x: Any, out: int, into: int, size: int = 3, **attrs: Any) -> Any:
    return relax.op.nn.conv2d(x, const(out, into, size, size), **attrs)


def branches(x: Any, emit: Callable[[Any], Any]) -> Any:
    left = emit(relax.op.nn.relu(emit(conv(x, 20, 6, padding=1))))
    left = emit(relax.op.add(left, const(1, 20, 1, 1)))
    pooled = emit(relax.op.nn.max_pool2d(left, (3, 3), (1, 1), (1, 1)))
    joined = emit(relax.op.concat([left, pooled, emit(conv(x, 4, 6, 1))], axis=1))
    clipped = emit(relax.op.clip(joined, -1.0, 1.0))
    return emit(relax.op.mean(clipped, axis=[2, 3]))


def shuffle(x: Any, emit: Callable[[Any], Any]) -> Any:
    y = emit(conv(x, 12, 3, groups=2, padding=1))
    y = emit(relax.op.reshape(y, (1, 2, 6, 9, 7)))
    y = emit(relax.op.permute_dims(y, [0, 2, 1, 3, 4]))
    y = emit(relax.op.reshape(y, (1, 12, 9, 7)))
    return emit(conv(y, 12, 1, groups=12, padding=1))


def patches(x: Any, emit: Callable[[Any], Any]) -> Any:
    y = emit(conv(x, 8, 6, strides=(2, 2)))
    y = emit(relax.op.reshape(y, (1, 8, 12)))
    y = emit(relax.op.permute_dims(y, [0, 2, 1]))
    y = emit(relax.op.matmul(y, const(8, 21)))
    return emit(relax.op.nn.softmax(emit(relax.op.add(y, const(21)))))


def used_in_both_orders(x: Any, emit: Callable[[Any], Any]) -> Any:
    y = emit(conv(x, 5, 6, 1))
    rows = emit(relax.op.nn.softmax(y, axis=1))
    return emit(relax.op.add(emit(relax.op.nn.relu(y)), rows))


def attention(x: Any, emit: Callable[[Any], Any]) -> Any:
    tokens = emit(relax.op.reshape(x, (6, 9, 7)))
    scores = emit(relax.op.matmul(tokens, emit(relax.op.permute_dims(tokens, [0, 2, 1]))))
    return emit(relax.op.matmul(emit(relax.op.nn.softmax(scores)), tokens))


def split_channels(x: Any, emit: Callable[[Any], Any]) -> Any:
    parts = emit(relax.op.split(emit(conv(x, 12, 6, padding=1)), [4, 7], axis=1))
    left, middle, right = (emit(relax.TupleGetItem(parts, i)) for i in range(3))
    right = emit(conv(right, 5, 5, padding=1))
    return emit(relax.op.concat([right, left, emit(relax.op.nn.relu(middle))], axis=1))


def split_rows(x: Any, emit: Callable[[Any], Any]) -> Any:
    parts = emit(relax.op.split(emit(conv(x, 12, 6, padding=1)), 3, axis=-2))
    first, last = (emit(relax.TupleGetItem(parts, i)) for i in (0, 2))
    return emit(conv(emit(relax.op.subtract(first, last)), 4, 12, 1))


def split_as_a_tuple(x: Any, emit: Callable[[Any], Any]) -> Any:
    parts = emit(relax.op.split(emit(conv(x, 12, 6, padding=1)), 2, axis=1))
    one = emit(conv(emit(relax.TupleGetItem(parts, 1)), 6, 6, 1))
    both = emit(relax.op.concat(parts, axis=2))  # reads the tuple itself
    return emit(relax.op.concat([both, one], axis=2))


GRAPHS = [
    branches,
    shuffle,
    patches,
    used_in_both_orders,
    attention,
    split_channels,
    split_rows,
    split_as_a_tuple,
]


def build(body: Callable[..., Any]) -> tvm.IRModule:
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((1, 6, 9, 7), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            out = builder.emit_output(body(x, builder.emit))
        builder.emit_func_output(out)
    return builder.get()


def with_scheduled_kernels(mod: tvm.IRModule) -> tvm.IRModule:
    functions = dict(mod.functions_items())
    for name, func in mod.functions_items():
        kernel = schedule_kernel(func, TARGET, 1) if isinstance(func, tirx.PrimFunc) else None
        functions[name] = func if kernel is None else kernel
    return tvm.IRModule(functions, attrs=mod.attrs, global_infos=mod.global_infos)


def run(mod: tvm.IRModule, scheduled: bool) -> np.ndarray:
    fuse = [PASSES.LegalizeOps(), PASSES.AnnotateTIROpPattern(), PASSES.FoldConstant()]
    fuse += [PASSES.FuseOps(), PASSES.FuseTIR(), PASSES.DeadCodeElimination()]
    with TARGET:
        mod = tvm.transform.Sequential(fuse)(mod)
    if scheduled:
        mod = with_scheduled_kernels(mod)
    lower = [PASSES.RewriteDataflowReshape(), PASSES.ToNonDataflow(), PASSES.RemovePurityChecking()]
    lower += [PASSES.CallTIRRewrite(), PASSES.LowerAllocTensor(), PASSES.KillAfterLastUse()]
    lower += [PASSES.LowerRuntimeBuiltin(), PASSES.VMShapeLower(), PASSES.AttachGlobalSymbol()]
    built = relax.build(mod, TARGET, relax_pipeline=tvm.transform.Sequential(lower))
    x = np.random.default_rng(1).standard_normal((1, 6, 9, 7)).astype("float32")
    return relax.VirtualMachine(built, tvm.cpu())["main"](tvm.runtime.tensor(x)).numpy()


@pytest.mark.parametrize("body", GRAPHS, ids=lambda body: body.__name__)
def test_a_prepared_module_keeps_its_numbers(body: Callable[..., Any]) -> None:
    mod = build(body)
    prepared = prepare_layouts(mod, [TARGET])
    relax.analysis.well_formed(prepared)
    compare(run(prepared, scheduled=True), run(mod, scheduled=False))


@pytest.mark.parametrize("body", GRAPHS, ids=lambda body: body.__name__)
def test_preparing_changes_neither_its_input_nor_its_mind(body: Callable[..., Any]) -> None:
    mod = build(body)
    before = mod.script(show_meta=True)
    assert structural_equal(prepare_layouts(mod), prepare_layouts(mod))
    assert mod.script(show_meta=True) == before


def test_channels_last_tensors_are_transposed_once() -> None:
    script = prepare_layouts(build(branches))["main"].script()
    assert script.count("R.permute_dims") == 1
    assert "R.nn.conv2d" not in script


def test_a_module_for_other_devices_stays_as_it_is() -> None:
    mod = build(branches)
    assert prepare_layouts(mod, [TARGET, tvm.target.Target("cuda")]).same_as(mod)


def recurrent(x: Any, emit: Callable[[Any], Any]) -> Any:
    """Steps that share one weight, each of which the importer transposes anew."""
    weight = const(7, 7)
    y = emit(relax.op.reshape(x, (54, 7)))
    for _ in range(3):
        y = emit(relax.op.tanh(emit(relax.op.matmul(y, emit(relax.op.permute_dims(weight))))))
    return y


def test_kernels_that_share_a_weight_share_its_packed_form() -> None:
    prepared = prepare_layouts(fold_constants(build(recurrent)), [TARGET])
    used = []
    for binding in prepared["main"].body.blocks[0].bindings:
        call = binding.value
        if isinstance(call, relax.Call) and call.op.name == "relax.call_tir":
            used.append(call.args[1].fields[1])
    assert len(used) == 3
    assert all(weight.same_as(used[0]) for weight in used)


@pytest.mark.parametrize("lead", [(21,), (3, 7)])
def test_an_epilogue_that_uses_a_function_twice_is_merged_into_the_tile(lead: tuple[int, ...]) -> None:
    """Inlining copies the variables that the function binds, which a second schedule refuses."""
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((*lead, 16), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            y = builder.emit(relax.op.matmul(x, const(16, 32)))
            for _ in range(2):
                y = builder.emit(relax.op.nn.silu(y))
            out = builder.emit_output(y)
        builder.emit_func_output(out)
    lowered = lower_to_kernels(builder.get(), TARGET, targets=[TARGET])
    (kernel,) = (f for _, f in lowered.functions_items() if isinstance(f, tirx.PrimFunc))
    scheduled = schedule_kernel(kernel, TARGET, 1)
    assert scheduled is not None
    assert scheduled.script().count("sblock_alloc_buffer") == 1, "the product is stored on the way"


def test_packed_weights_keep_their_type() -> None:
    """TVM makes 32 bits of an array of 64 where no type is named."""
    rng = np.random.default_rng(0)
    nodes = [
        onnx.helper.make_node("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1]),
        onnx.helper.make_node("Add", ["a", "b"], ["c"]),
        onnx.helper.make_node("Relu", ["c"], ["d"]),
        onnx.helper.make_node("Conv", ["d", "v"], ["e"], pads=[1, 1, 1, 1]),
        onnx.helper.make_node("MatMul", ["e", "m"], ["y"]),
    ]
    shapes = {"w": (5, 6, 3, 3), "b": (1, 5, 1, 1), "v": (4, 5, 3, 3), "m": (7, 3)}
    weights = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
    feeds = {"x": rng.standard_normal((1, 6, 9, 7))}
    model = make_model(nodes, feeds, ["y"], weights)
    # ONNX Runtime has no convolution of 64 bits.
    (found,), (right,) = evaluate(model, feeds), ReferenceEvaluator(model).run(None, feeds)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, right, rtol=1e-12)


def test_a_number_that_is_computed_ahead_has_no_loop_to_vectorize() -> None:
    """The scale of a whole tensor is fused into the product that it scales."""
    rng = np.random.default_rng(0)
    nodes = [
        onnx.helper.make_node("Mul", ["s", "two"], ["t"]),
        onnx.helper.make_node("Div", ["v", "t"], ["u"]),
        onnx.helper.make_node("MatMul", ["x", "w"], ["p"]),
        onnx.helper.make_node("Add", ["p", "u"], ["y"]),
    ]
    weights = {
        "w": rng.standard_normal((9, 48)).astype("float32"),
        "v": rng.standard_normal(48).astype("float32"),
        "two": np.float32(2),
    }
    feeds = {"s": np.asarray(3, "float32"), "x": rng.standard_normal((5, 9)).astype("float32")}
    model = make_model(nodes, feeds, ["y"], {name: np.asarray(w) for name, w in weights.items()})
    right = feeds["x"] @ weights["w"] + weights["v"] / 6
    np.testing.assert_allclose(evaluate(model, feeds)[0], right, rtol=1e-4, atol=1e-5)
