"""Relax rewriting ahead of legalization: channels-last activations and packed weights.

Every convolution and matrix product with static shapes becomes a `call_tir` of a packed kernel
(`compute.py`); weights are packed here, once. Convolution networks change to channels-last: a tensor
that a convolution writes stays so through pooling, concatenation and elementwise operators, and is
brought back only where an operator needs the original order. One layout serves every CPU target.

TVM's own ConvertLayout was measured first: it leaves `clip` and `nn.pad` in the old layout (70
transposes in MobileNet v2), fails on ShuffleNet's five-dimensional reshapes and on ViT, and its
weight transposes are compiled and run one by one by FoldConstant.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from . import channels_last, compute, packing

_SUMMABLE = frozenset({"float32", "float64", "float16", "int8", "uint8", "int32"})


def prepare_layouts(
    mod: tvm.IRModule, targets: Sequence[tvm.target.Target] | None = None
) -> tvm.IRModule:
    """Rewrite a module for the packed CPU kernels; run it before `LegalizeOps`.

    Parameters
    ----------
    mod
        A Relax module after constant folding; functions that hold no convolution and no matrix
        product come back unchanged. It is not modified.
    targets
        The targets that the module will run on. Where one of them is not an LLVM target the module
        comes back unchanged, because its kernels would not know the packed form. None means CPUs.

    Returns
    -------
    The module with packed weights and, for convolution networks, channels-last activations.
    """
    if targets is not None and any(target.kind.name != "llvm" for target in targets):
        return mod
    rewriter = _LayoutRewriter(mod)
    for gvar, func in mod.functions_items():
        if isinstance(func, relax.Function) and not func.attrs.get("Primitive", 0):
            rewriter.rewrite_function(gvar, func)
    return rewriter.builder_.get()


def static_shape(expr: relax.Expr) -> tuple[int, ...] | None:
    """Return an expression's tensor extents, or None where they are not all known integers."""
    ty = expr.ty
    if not isinstance(ty, relax.TensorType) or ty.shape is None:
        return None
    values = getattr(ty.shape, "values", None)
    if values is None or not all(isinstance(v, tvm.tirx.IntImm) for v in values):
        return None
    return tuple(int(v) for v in values)


def _dtype(expr: relax.Expr) -> str:
    return str(expr.ty.dtype)


@mutator
class _LayoutRewriter(PyExprMutator):  # type: ignore[misc]
    """Rewrites one module, function by function, keeping channels-last twins of tensors."""

    def __init__(self, mod: tvm.IRModule) -> None:
        super().__init__(mod)
        self._twins: dict[Any, tuple[relax.Var, channels_last.Order]] = {}
        self._values: dict[Any, relax.Expr] = {}
        self._settled: set[Any] = set()
        self._moved: dict[Any, relax.Var] = {}
        # One packed copy of a weight for all kernels that use it: recurrent networks do in each step.
        self._packed: dict[Any, relax.Expr] = {}
        self._name = ""

    def rewrite_function(self, gvar: tvm.ir.GlobalVar, func: relax.Function) -> None:
        self._twins.clear()
        self._values.clear()
        self._settled.clear()
        self._moved.clear()
        updated = self.visit_expr(func)
        self.builder_.update_func(gvar, relax.analysis.remove_all_unused(updated))

    # -- hooks of the mutator

    def visit_dataflow_block_(self, block: relax.DataflowBlock) -> relax.DataflowBlock:
        """Forget transposes of an earlier block: they are not visible in this one."""
        self._moved.clear()
        return super().visit_dataflow_block_(block)

    def visit_dataflow_var_(self, op: relax.DataflowVar) -> relax.Expr:
        """Bring a tensor that only has a channels-last twin back to its own order."""
        self._settle(op)
        return super().visit_dataflow_var_(op)

    def visit_var_(self, op: relax.Var) -> relax.Expr:
        """Do the same for a variable that leaves its dataflow block."""
        self._settle(op)
        return super().visit_var_(op)

    def visit_var_binding_(self, binding: relax.VarBinding) -> None:
        """Rewrite one binding, or leave it to the default visit."""
        value = binding.value
        self._values[binding.var] = value
        self._name = str(binding.var.name)
        if isinstance(value, relax.TupleGetItem) and value.tuple_value in self._twins:
            parts, order = self._twins[value.tuple_value]
            self._note_twin(binding.var, self._emit(relax.TupleGetItem(parts, value.index)), order)
            return
        if not isinstance(value, relax.Call) or not isinstance(value.op, tvm.ir.Op):
            super().visit_var_binding_(binding)
            return
        name = value.op.name.removeprefix("relax.")
        twin = self._rewrite_twin(name, value)
        if twin is not None:
            self._note_twin(binding.var, *twin)
            return
        plain = self._rewrite_plain(name, value)
        if plain is None:
            super().visit_var_binding_(binding)
            return
        self._bind(binding.var, plain)

    # -- helpers

    def _emit(self, value: relax.Expr) -> relax.Var:
        """Bind a new value under the name of the binding at hand, which says where it comes from."""
        return self.builder_.emit(value, self._name)

    def _bind(self, var: relax.Var, value: relax.Expr) -> None:
        if isinstance(var, relax.DataflowVar):
            # An alias would stand between a kernel and the epilogue that fusion gives it.
            named = value if isinstance(value, relax.DataflowVar) else self._emit(value)
            self.set_var_remap(var, named)
        elif self.builder_.current_block_is_dataflow():
            self.set_var_remap(var, self.builder_.emit_output(value, self._name))
        else:
            self.set_var_remap(var, self._emit(value))

    def _note_twin(self, var: relax.Var, tensor: relax.Var, order: channels_last.Order) -> None:
        self._twins[var] = tensor, order
        if not isinstance(var, relax.DataflowVar):
            self._settle(var)
            del self._twins[var]  # the twin is not visible outside the block

    def _settle(self, var: relax.Var) -> None:
        held = self._twins.get(var)
        if held is None or var in self._settled:
            return
        twin, back = held[0], channels_last.inverse(held[1])
        if isinstance(var.ty, relax.TupleType):  # of a split
            parts = [relax.TupleGetItem(twin, index) for index in range(len(var.ty.fields))]
            made = relax.Tuple([self._emit(relax.op.permute_dims(part, back)) for part in parts])
        else:
            made = relax.op.permute_dims(twin, back)
        self._bind(var, made)
        self._settled.add(var)

    def constant(self, expr: relax.Expr) -> Any | None:
        """Return the array of a constant, seen through a transpose of it, or None."""
        if isinstance(expr, tvm.ir.GenericConst):
            return expr.value.numpy()
        value = self._values.get(expr)
        if isinstance(value, tvm.ir.GenericConst):
            return value.value.numpy()
        if isinstance(value, relax.Call) and getattr(value.op, "name", "") == "relax.permute_dims":
            inner = self.constant(value.args[0])
            if inner is not None:
                axes = value.attrs.axes
                return inner.transpose(None if axes is None else [int(a) for a in axes])
        return None

    def twin_of(self, expr: relax.Expr, order: channels_last.Order) -> relax.Expr:
        """Return an operand in the given order: its twin, a permuted constant, or a transpose."""
        held = self._twins.get(expr) if isinstance(expr, relax.Var) else None
        if held is not None and held[1] == order:
            return held[0]
        array = self.constant(expr)
        if array is not None:
            return channels_last.typed_const(channels_last.permute_array(array, order))
        if (expr, order) not in self._moved:
            moved = relax.op.permute_dims(self.visit_expr(expr), list(order))
            self._moved[expr, order] = self._emit(moved)
        return self._moved[expr, order]

    def order_of(self, expr: relax.Expr) -> channels_last.Order | None:
        """Return the order of an operand's channels-last twin, or None where it has none."""
        held = self._twins.get(expr) if isinstance(expr, relax.Var) else None
        return held[1] if held is not None else None

    def emit_kernel(self, func: Any, name: str, args: list[relax.Expr], out: Any) -> relax.Var:
        """Emit a call of a packed kernel."""
        gvar = self.builder_.add_func(func, name)
        return self._emit(relax.call_tir(gvar, args, out))

    def packed(
        self, expr: relax.Expr, layout: str, array: Any, pack: Callable[[Any], Any]
    ) -> relax.Expr:
        """Return a weight packed for a kernel, as a constant."""
        if not isinstance(expr, tvm.ir.GenericConst):
            return channels_last.typed_const(pack(array))
        if (expr, layout) not in self._packed:
            self._packed[expr, layout] = channels_last.typed_const(pack(array))
        return self._packed[expr, layout]

    # -- rewrites

    def _rewrite_twin(self, name: str, call: relax.Call) -> tuple[relax.Var, channels_last.Order] | None:
        if name == "nn.conv2d":
            return self._conv2d(call)
        rule: Callable[..., Any] | None = channels_last.RULES.get(name)
        if rule is None or not any(self.order_of(arg) for arg in _tensors(call)):
            return None
        result = rule(self, call)
        if result is None:
            return None
        expr, order = result
        return self._emit(expr), order

    def _rewrite_plain(self, name: str, call: relax.Call) -> relax.Expr | None:
        if name == "matmul":
            return self._matmul(call)
        rule = channels_last.LEAVING.get(name)
        if rule is None or self.order_of(call.args[0]) is None:
            return None
        return rule(self, call)

    def _conv2d(self, call: relax.Call) -> tuple[relax.Var, channels_last.Order] | None:
        attrs = call.attrs
        data, weight = static_shape(call.args[0]), self.constant(call.args[1])
        layouts = (attrs.data_layout, attrs.kernel_layout, attrs.out_layout or attrs.data_layout)
        dtype, out_dtype = _dtype(call.args[0]), str(call.ty.dtype)
        plain = layouts == ("NCHW", "OIHW", "NCHW") and dtype in _SUMMABLE
        if data is None or weight is None or not plain or str(weight.dtype) != dtype:
            return None
        batch, depth, height, width = data
        shape = compute.ConvShape(
            (batch, height, width, depth),
            int(weight.shape[0]),
            (int(weight.shape[2]), int(weight.shape[3])),
            _ints(attrs.strides),
            _ints(attrs.padding),
            _ints(attrs.dilation),
            int(attrs.groups),
        )
        tensor = self.twin_of(call.args[0], channels_last.NHWC)
        out = relax.TensorType((batch, *shape.out_hw, shape.out_channels), out_dtype)
        if shape.is_depthwise:
            func, pack = compute.depthwise_conv2d, packing.pack_depthwise
        elif shape.is_pointwise:
            matrix = self.packed(
                call.args[1], "1x1", weight, lambda w: packing.pack_matmul(w[:, :, 0, 0].T)
            )
            lead = (batch, height, width)
            kernel = compute.matmul(lead, depth, shape.out_channels, dtype, out_dtype)
            args = [tensor, matrix]
            return self.emit_kernel(kernel, "conv2d_1x1", args, out), channels_last.NHWC
        else:
            func, pack = compute.conv2d, partial(packing.pack_conv2d, groups=shape.groups)
        kernel = func(shape, dtype, out_dtype)
        name = func.__name__
        layout = f"{name} {shape.groups}"
        args = [tensor, self.packed(call.args[1], layout, weight, pack)]
        return self.emit_kernel(kernel, name, args, out), channels_last.NHWC

    def _matmul(self, call: relax.Call) -> relax.Expr | None:
        left, right = static_shape(call.args[0]), static_shape(call.args[1])
        dtype, out_dtype = _dtype(call.args[0]), str(call.ty.dtype)
        if left is None or right is None or min(len(left), len(right)) < 2 or 0 in left + right:
            return None
        if dtype not in _SUMMABLE or dtype != _dtype(call.args[1]):
            return None
        weight = self.constant(call.args[1])
        if weight is not None and len(right) == 2:
            kernel = compute.matmul(left[:-1], left[-1], right[1], dtype, out_dtype)
            matrix = self.packed(call.args[1], "matmul", weight, packing.pack_matmul)
            args = [self.visit_expr(call.args[0]), matrix]
            return self.emit_kernel(kernel, "matmul", args, call.ty)
        shape = compute.BatchMatmulShape(left[:-2], right[:-2], left[-2], left[-1], right[-1])
        kernel = compute.batch_matmul(shape, dtype, out_dtype)
        args = [self.visit_expr(arg) for arg in call.args]
        return self.emit_kernel(kernel, "batch_matmul", args, call.ty)


def _ints(values: Sequence[Any]) -> Any:
    return tuple(int(value) for value in values)


def _tensors(call: relax.Call) -> list[relax.Expr]:
    fields: list[relax.Expr] = []
    for arg in call.args:
        fields += list(arg.fields) if isinstance(arg, relax.Tuple) else [arg]
    return fields
