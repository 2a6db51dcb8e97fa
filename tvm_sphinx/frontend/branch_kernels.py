"""Make one kernel of the lowered branches of an ``if``, or of the lowered step of a loop. [TVM]"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tvm.relax.expr_functor import PyExprMutator, mutator

from .._tvm import relax, tirx, tvm
from ..errors import UnsupportedError
from ..kernels.staged import Stage, Stages, branch_kernel, loop_kernel
from ..scheduling.graph import FROM_CONSTANT, FROM_INPUT, Operand
from .dataflow import Dataflow
from .outline_branches import Outlined


@tvm.transform.module_pass(opt_level=0, name="BranchKernels")
class BranchKernels:
    """Replace the calls that `outline_branches` has left by calls of kernels with all the rest in them.

    It runs after fusion and before calls become views: what a branch reshapes is copied in the kernel.
    The kernels belong to the host's target: one of a GPU cannot choose what to launch.
    """

    def __init__(self, outlined: Sequence[Outlined], target: Any) -> None:
        self.outlined = outlined
        self.target = target

    def transform_module(self, mod: Any, _ctx: Any) -> Any:
        """Return the module without the functions that were outlined; inner ones go into outer ones."""
        for one in reversed(self.outlined):
            try:
                made: _Kernel = (_LoopKernel if one.is_loop else _IfKernel)(mod, one)
            except UnsupportedError as error:
                raise UnsupportedError(f"Control flow: {one.label} is no task. {error}") from error
            caller = _Caller(mod, one.symbol, made, self.target)
            caller.builder_.update_func(
                mod.get_global_var(one.caller), caller.visit_expr(mod[one.caller])
            )
            mod = caller.builder_.get()
            for name in one.functions:
                del mod[mod.get_global_var(name)]
        return mod


class _Kernel:
    """A kernel of stages: its ``function``, and the ``constants`` that follow its operands."""

    function: Any

    def __init__(self) -> None:
        self.constants: list[Any] = []
        self._buffers: dict[Any, Any] = {}  # of constants, by value and type
        self._inputs: list[Any] = []  # of the parameters of what was outlined

    def _stages(self, flow: Dataflow, made: dict[Operand, Any]) -> Stages:
        """Return the stages of a function; its values lie where ``made`` says, others in new buffers."""
        stages = Stages()
        for task, call in enumerate(flow.calls):
            if call.is_external:
                raise UnsupportedError(f"It calls {call.callee!r}, which is no kernel.")
            for number, ty in enumerate(call.outputs):
                if Operand(task, number) not in made:
                    made[Operand(task, number)] = buffer = _buffer(ty, f"value{task}_{number}")
                    stages.buffers.append(buffer)
            read = [operand for expr in call.arguments for operand in flow.tensors(expr)]
            operands = [self._operand(flow, operand, made) for operand in read]
            operands += [made[Operand(task, number)] for number in range(len(call.outputs))]
            stages.stages.append(Stage(call.callee, tuple(operands), len(call.outputs)))
        return stages

    def _operand(self, flow: Dataflow, operand: Operand, made: dict[Operand, Any]) -> Any:
        if operand.producer == FROM_INPUT:
            return self._inputs[operand.output]
        if operand.producer != FROM_CONSTANT:
            return made[operand]
        constant = flow.constants[operand.output]
        place = (constant.value.data_ptr(), str(constant.ty))
        if place not in self._buffers:
            self._buffers[place] = _buffer(constant.ty, f"constant{len(self.constants)}")
            self.constants.append(constant)
        return self._buffers[place]


class _IfKernel(_Kernel):
    """The kernel of an ``if``: its operands are the condition and what the branches read."""

    def __init__(self, mod: Any, outlined: Outlined) -> None:
        super().__init__()
        flows = [Dataflow(mod, name) for name in outlined.functions]
        self._inputs = [_buffer(param.ty, f"read{i}") for i, param in enumerate(flows[0].params)]
        types = [_type_of(flow, operand) for flow in flows[:1] for operand in flow.tensors(flow.result)]
        outputs = [_buffer(ty, f"result{i}") for i, ty in enumerate(types)]
        then, otherwise = (self._branch(flow, outputs) for flow in flows)
        condition = tirx.decl_buffer((), "bool", "condition", layout=None)
        inputs = [*self._inputs, *self._buffers.values()]
        self.function = branch_kernel(condition, inputs, outputs, then, otherwise)

    def _branch(self, flow: Dataflow, outputs: Sequence[Any]) -> Stages:
        """Return the stages of a branch; a result that is not made there, or twice one, is copied."""
        results = flow.tensors(flow.result)
        made: dict[Operand, Any] = {}
        for result, output in zip(results, outputs, strict=True):
            if result.producer >= 0:
                made.setdefault(result, output)
        stages = self._stages(flow, made)
        for result, output in zip(results, outputs, strict=True):
            source = self._operand(flow, result, made)
            if not source.same_as(output):
                stages.stages.append(_copy(source, output))
        return stages


class _LoopKernel(_Kernel):
    """The kernel of a loop: its operands are the condition, the state, and what the step reads.

    The state lies in the outputs while the loop goes on.
    """

    def __init__(self, mod: Any, outlined: Outlined) -> None:
        super().__init__()
        (name,) = outlined.functions
        flow = Dataflow(mod, name)
        num_state = len(flow.tensors(flow.result)) - 1
        types = [param.ty for param in flow.params]
        state = [_buffer(ty, f"state{i}") for i, ty in enumerate(types[:num_state])]
        outputs = [_buffer(ty, f"result{i}") for i, ty in enumerate(types[:num_state])]
        read = [_buffer(ty, f"read{i}") for i, ty in enumerate(types[num_state:])]
        again = tirx.decl_buffer((), "bool", "again", layout=None)
        self._inputs = [*outputs, *read]
        step = self._step(flow, [again, *outputs])
        most = tirx.decl_buffer((), "int64", "most", layout=None)
        self.constants.append(relax.const(np.iinfo(np.int64).max, "int64"))
        inputs = [*read, *self._buffers.values()]
        first = [_copy(*pair) for pair in zip(state, outputs, strict=True)]
        self.function = loop_kernel(state, inputs, most, outputs, first, step, again)

    def _step(self, flow: Dataflow, targets: Sequence[Any]) -> Stages:
        """Return the stages of a step, which hand its results on when all has been computed."""
        made: dict[Operand, Any] = {}
        stages = self._stages(flow, made)
        moved: list[Stage] = []
        for result, target in zip(flow.tensors(flow.result), targets, strict=True):
            source = self._operand(flow, result, made)
            if source.same_as(target):
                continue
            if any(source.same_as(other) for other in targets):
                # It is written anew itself.
                kept = tirx.decl_buffer(source.shape, source.dtype, f"kept{len(moved)}", layout=None)
                stages.buffers.append(kept)
                stages.stages.append(_copy(source, kept))
                source = kept
            moved.append(_copy(source, target))
        stages.stages += moved
        return stages


def _type_of(flow: Dataflow, operand: Operand) -> Any:
    if operand.producer == FROM_INPUT:
        return flow.function.params[operand.output].ty
    if operand.producer == FROM_CONSTANT:
        return flow.constants[operand.output].ty
    return flow.calls[operand.producer].outputs[operand.output]


def _buffer(ty: Any, name: str) -> Any:
    shape = [int(extent) for extent in ty.shape.values]
    return tirx.decl_buffer(shape, str(ty.dtype), name, layout=None)


def _copy(source: Any, target: Any) -> Stage:
    """Return the stage that copies a tensor as it is."""
    read = tvm.te.placeholder(list(source.shape), str(source.dtype), name="source")
    copied = tvm.te.compute(read.shape, lambda *at: read(*at), name="copy")
    return Stage(tvm.te.create_prim_func([read, copied]), (source, target))


@mutator
class _Caller(PyExprMutator):  # type: ignore[misc]
    """Puts a kernel in the place of an external function."""

    def __init__(self, mod: Any, symbol: str, kernel: _Kernel, target: Any) -> None:
        super().__init__(mod)
        self._symbol = symbol
        self._kernel = kernel
        self._target = target

    def visit_call_(self, call: Any) -> Any:
        """Return the call of the kernel in the place of the one with the symbol."""
        is_meant = (
            isinstance(call.op, tvm.ir.Op)
            and call.op.name == "relax.call_dps_packed"
            and str(call.args[0].global_symbol) == self._symbol
        )
        if not is_meant:
            return super().visit_call_(call)
        function = self._kernel.function.with_attr("target", self._target)
        callee = self.builder_.add_func(function, self._symbol)
        operands = [self.visit_expr(field) for field in call.args[1].fields]
        types = list(call.ty.fields) if isinstance(call.ty, relax.TupleType) else [call.ty]
        return relax.call_tir(callee, [*operands, *self._kernel.constants], types)
