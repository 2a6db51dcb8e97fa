"""The pass, by hand-written schedules: what stands before it and what is expected after it."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T
from tvm_ffi import structural_equal

from tests.relax_modules import serial_schedule
from tvm_sphinx.errors import InvalidScheduleError, SphinxError, UnsupportedError
from tvm_sphinx.platform import Device, Platform, detect_platform
from tvm_sphinx.relax_pass import HeterogeneousSchedule, is_scheduled
from tvm_sphinx.scheduling.graph import TaskGraph
from tvm_sphinx.scheduling.schedule import Schedule

FAST = '{"kind": "llvm", "mcpu": "x86-64-v3"}'
SLOW = '{"kind": "llvm", "mcpu": "x86-64"}'
PLATFORM = Platform((Device("fast", FAST, "cpu:0", (0,)), Device("slow", SLOW, "cpu:0", (0,))))


@I.ir_module
class Before:
    """A tensor with two readers on the other device, a view, a residual, and two outputs."""

    @T.prim_func(private=True, s_tir=True)
    def double(A: T.Buffer((4,), "float32"), B: T.Buffer((4,), "float32")):
        for i in range(4):
            with T.sblock("double"):
                v = T.axis.spatial(4, i)
                B[v] = A[v] * T.float32(2)

    @T.prim_func(private=True, s_tir=True)
    def plus(A: T.Buffer((4,), "float32"), B: T.Buffer((4,), "float32"), C: T.Buffer((4,), "float32")):
        for i in range(4):
            with T.sblock("plus"):
                v = T.axis.spatial(4, i)
                C[v] = A[v] + B[v]

    @R.function
    def main(x: R.Tensor((4,), "float32")) -> R.Tuple(
        R.Tensor((2, 2), "float32"), R.Tensor((4,), "float32")
    ):
        cls = Before
        with R.dataflow():
            a = R.call_tir(cls.double, (x,), out_ty=R.Tensor((4,), "float32"))
            b = R.call_tir(cls.double, (a,), out_ty=R.Tensor((4,), "float32"))
            c = R.call_tir(cls.plus, (a, b), out_ty=R.Tensor((4,), "float32"))
            d = R.reshape(c, R.shape([2, 2]))
            e = (d, a)
            R.output(e)
        return e


def _schedule(module: tvm.IRModule, devices: list[int], platform: Platform = PLATFORM) -> tvm.IRModule:
    relax.analysis.well_formed(module)
    before = tvm.ir.save_json(module)
    after = HeterogeneousSchedule(lambda graph: serial_schedule(graph, devices), platform)(module)
    relax.analysis.well_formed(after)
    assert tvm.ir.save_json(module) == before, "the input module was changed"
    return after


def _calls(module: tvm.IRModule) -> list[tuple[str, str, int]]:
    """Return (variable, what it calls, index of its virtual device) of each binding of main."""
    vdevices = list(module.global_infos["vdevice"])
    found = []
    for block in module["main"].body.blocks:
        for binding in block.bindings:
            value = binding.value
            if isinstance(value, relax.Call):
                name = value.op.name
                if name == "relax.call_tir":
                    name = value.args[0].name_hint
                place = [structural_equal(v, binding.var.ty.vdevice) for v in vdevices].index(True)
                found.append((str(binding.var.name), name, place))
    return found


def test_all_tasks_on_the_host_need_no_copy() -> None:
    after = _schedule(Before, [0, 0, 0])
    assert [what for _, what, _ in _calls(after)] == [
        "double_fast", "double_fast", "plus_fast", "relax.reshape",
    ]  # fmt: skip


def test_a_tensor_is_copied_once_for_each_destination() -> None:
    """x crosses once; a, read by two tasks on the other device and returned, crosses once each way."""
    calls = [(what, place) for _, what, place in _calls(_schedule(Before, [0, 1, 1]))]
    assert calls == [
        ("double_fast", 0),
        ("relax.to_vdevice", 1),
        ("double_slow", 1),
        ("plus_slow", 1),
        ("relax.to_vdevice", 0),
        ("relax.reshape", 0),
    ]


def test_expected_module() -> None:
    @I.ir_module
    class Expected:
        I.module_global_infos(
            {
                "vdevice": [
                    I.vdevice({"kind": "llvm", "mcpu": "x86-64-v3", "num-cores": 1}, 0),
                    I.vdevice({"kind": "llvm", "mcpu": "x86-64", "num-cores": 1}, 0),
                ]
            }
        )

        @T.prim_func(private=True, s_tir=True)
        def double_slow(A: T.Buffer((4,), "float32"), B: T.Buffer((4,), "float32")):
            T.func_attr({"target": T.target({"kind": "llvm", "mcpu": "x86-64", "num-cores": 1})})
            for i in range(4):
                with T.sblock("double"):
                    v = T.axis.spatial(4, i)
                    B[v] = A[v] * T.float32(2)

        @R.function
        def main(x: R.Tensor((4,), "float32", "llvm:0")) -> R.Tensor((4,), "float32", "llvm:0"):
            R.func_attr({"sphinx.schedule": "fingerprint"})
            cls = Expected
            with R.dataflow():
                there = R.to_vdevice(x, "llvm:1")
                a = R.call_tir(cls.double_slow, (there,), out_ty=R.Tensor((4,), "float32", "llvm:1"))
                back = R.to_vdevice(a, "llvm:0")
                R.output(back)
            return back

    @I.ir_module
    class Single:
        @T.prim_func(private=True, s_tir=True)
        def double(A: T.Buffer((4,), "float32"), B: T.Buffer((4,), "float32")):
            for i in range(4):
                with T.sblock("double"):
                    v = T.axis.spatial(4, i)
                    B[v] = A[v] * T.float32(2)

        @R.function
        def main(x: R.Tensor((4,), "float32")) -> R.Tensor((4,), "float32"):
            cls = Single
            with R.dataflow():
                a = R.call_tir(cls.double, (x,), out_ty=R.Tensor((4,), "float32"))
                R.output(a)
            return a

    after = relax.transform.CanonicalizeBindings()(_schedule(Single, [1]))
    after["main"] = after["main"].with_attr("sphinx.schedule", "fingerprint")
    tvm.ir.assert_structural_equal(after, Expected, map_free_vars=True)


def test_bindings_stand_in_schedule_order() -> None:
    @I.ir_module
    class Fork:
        @T.prim_func(private=True, s_tir=True)
        def double(A: T.Buffer((4,), "float32"), B: T.Buffer((4,), "float32")):
            for i in range(4):
                with T.sblock("double"):
                    v = T.axis.spatial(4, i)
                    B[v] = A[v] * T.float32(2)

        @R.function
        def main(x: R.Tensor((4,), "float32")):
            cls = Fork
            with R.dataflow():
                first = R.call_tir(cls.double, (x,), out_ty=R.Tensor((4,), "float32"))
                second = R.call_tir(cls.double, (x,), out_ty=R.Tensor((4,), "float32"))
                out = (first, second)
                R.output(out)
            return out

    def second_first(graph: TaskGraph) -> Schedule:
        return Schedule([0, 0], [1, 0], [2, 1], 2, 0, "hand-written")

    after = HeterogeneousSchedule(second_first, PLATFORM)(Fork)
    assert [name for name, _, _ in _calls(after)] == ["second", "first"]


def test_the_pass_is_idempotent() -> None:
    once = _schedule(Before, [0, 1, 0])
    assert is_scheduled(once)
    assert not is_scheduled(Before)
    tvm.ir.assert_structural_equal(_schedule(once, [1, 1, 1]), once)


def test_each_target_has_its_own_clone_and_the_unused_original_goes() -> None:
    after = _schedule(Before, [0, 1, 1])
    kernels = {
        str(var.name_hint): str(function.attrs["target"].attrs["mcpu"])
        for var, function in after.functions.items()
        if isinstance(function, tvm.tirx.PrimFunc)
    }
    assert kernels == {"double_fast": "x86-64-v3", "double_slow": "x86-64", "plus_slow": "x86-64"}


def test_other_functions_of_the_module_stay() -> None:
    module = tvm.IRModule(dict(Before.functions.items()))
    module["other"] = relax.utils.copy_with_new_vars(Before["main"]).with_attr("global_symbol", "other")
    after = _schedule(module, [1, 1, 1])
    tvm.ir.assert_structural_equal(after["other"], module["other"], map_free_vars=True)
    assert is_scheduled(after)
    assert {str(v.name_hint) for v in after.get_global_vars()} == {
        "main", "other", "double", "plus", "double_slow", "plus_slow",
    }  # fmt: skip


def test_weights_in_host_memory_are_used_in_place() -> None:
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType([4], "float32"))
    kernel = builder.add_func(Before["plus"], "plus")
    with builder.function("main", [x]):
        with builder.dataflow():
            out_type = relax.TensorType([4], "float32")
            weight = relax.const(np.ones(4, "float32"))
            out = builder.emit_output(relax.call_tir(kernel, (x, weight), out_type))
        builder.emit_func_output(out)
    after = _schedule(builder.finalize(), [1])
    assert len(after["main"].params) == 1
    assert [what for _, what, _ in _calls(after)].count("relax.to_vdevice") == 2  # x there, result back


@pytest.mark.parametrize(
    ("schedule", "rule"),
    [
        (Schedule([0, 0], [0, 1], [1, 2], 2, 0, ""), "schedule of 3 tasks"),
        (Schedule([0, 5, 0], [0, 1, 2], [1, 2, 3], 3, 0, ""), "devices 0..1"),
        (Schedule([0, 0, 0], [2, 1, 0], [3, 2, 1], 3, 0, ""), "which it reads"),
    ],
    ids=["another number of tasks", "unknown device", "wrong order"],
)
def test_a_schedule_that_does_not_fit_is_refused(schedule: Schedule, rule: str) -> None:
    with pytest.raises(InvalidScheduleError, match=rule):
        HeterogeneousSchedule(lambda graph: schedule, PLATFORM)(Before)


def test_the_pass_takes_the_name_of_a_platform_and_tells_what_is_no_scheduler() -> None:
    def on_the_host(graph: TaskGraph) -> Schedule:
        return serial_schedule(graph, [0] * graph.num_tasks)

    named = HeterogeneousSchedule(on_the_host, "detect")(Before)
    assert structural_equal(named, HeterogeneousSchedule(on_the_host, detect_platform())(Before))
    with pytest.raises(SphinxError, match=r"Expected a scheduler as a function .*; got 'heft'"):
        HeterogeneousSchedule("heft", "detect")
    with pytest.raises(SphinxError, match="Give a TOML file or one of: detect, unlike-cpus"):
        HeterogeneousSchedule(lambda graph: None, "cpus")


def test_dynamic_shapes_and_branches_of_unlike_shapes_are_refused() -> None:
    @I.ir_module
    class Dynamic:
        @R.function
        def main(x: R.Tensor(("n",), "float32")) -> R.Tensor(("n",), "float32"):
            with R.dataflow():
                y = R.exp(x)
                R.output(y)
            return y

    @I.ir_module
    class Unlike:
        @R.function
        def main(x: R.Tensor((4,), "float32"), c: R.Tensor((), "bool")):
            if c:
                y = R.exp(x)
            else:
                y = R.reshape(x, (2, 2))
            return y

    scheduler = HeterogeneousSchedule(lambda graph: serial_schedule(graph, [0]), PLATFORM)
    with pytest.raises(UnsupportedError, match="Dynamic shapes: argument 'x'"):
        scheduler(Dynamic)
    with pytest.raises(UnsupportedError, match="Control flow: expected the branches of if 'y'"):
        scheduler(Unlike)


def test_a_choice_is_lowered_and_placed_as_one_task() -> None:
    @I.ir_module
    class Branch:
        @R.function
        def main(x: R.Tensor((4,), "float32"), c: R.Tensor((), "bool")) -> R.Tensor((4,), "float32"):
            if c:
                y = R.exp(x)
            else:
                y = R.add(x, x)
            return y

    scheduler = HeterogeneousSchedule(lambda graph: serial_schedule(graph, [0]), PLATFORM)
    placed = scheduler(Branch)
    assert is_scheduled(placed)
    (block,) = placed["main"].body.blocks
    assert [str(binding.value.op.name) for binding in block.bindings[:1]] == ["relax.call_tir"]
