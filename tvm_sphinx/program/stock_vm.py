"""Build a scheduled module for the stock Relax VM. [TVM]

Stock `StaticPlanBlockMemory` compares storage by size, dtype and scope, and so may hand storage of one
device to a kernel of another. Here every device plans its memory in a scope of its own, and the lowered
module is checked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._tvm import relax, tirx, tvm
from ..errors import SphinxError
from ..kernels.implement import ImplementKernels
from ..platform import Platform
from ..platform.targets import runtime_device

_DEVICE_SCOPE = "device"
_DL_CPU = 1  # DLPack's number for the host


def lowering_passes() -> list[Any]:
    """Return the passes from a scheduled module to one that the VM's code generator takes."""
    transform = relax.transform
    return [
        # Kernels: each for the target that it carries.
        ImplementKernels(),
        # Dataflow to explicit allocation.
        ShareHostMemory(),
        transform.ToNonDataflow(),
        transform.RemovePurityChecking(),
        transform.CallTIRRewrite(),
        # Memory: each device plans for itself.
        SeparateDeviceMemory(),
        transform.StaticPlanBlockMemory(),
        JoinDeviceMemory(),
        CheckDeviceMemory(),
        # Finish as the stock pipelines do.
        transform.LowerAllocTensor(),
        transform.KillAfterLastUse(),
        transform.LowerRuntimeBuiltin(),
        UseOneHostDevice(),
        ForgetConstantDevices(),
        transform.ComputePrimValue(),
        transform.VMShapeLower(),
        transform.AttachGlobalSymbol(),
        BuildForOtherProcessors(),
    ]


def lower_scheduled() -> Any:
    """Return the pass that lowers a scheduled module for the VM; see `lowering_passes`."""
    return tvm.transform.Sequential(lowering_passes(), name="LowerScheduled")


def build_executable(module: Any, target: Any = None) -> Any:
    """Return the ``relax.VMExecutable`` of a scheduled module; each kernel carries its own target."""
    return tvm.compile(module, target=target, relax_pipeline=lower_scheduled())


def vm_devices(platform: Platform) -> list[Any]:
    """Return the devices to open a `relax.VirtualMachine` with: one for each device of the platform."""
    return [runtime_device(device.runtime) for device in platform.devices]


@tvm.transform.module_pass(opt_level=0, name="SeparateDeviceMemory")
class SeparateDeviceMemory:
    """Allocate the tensors of each device in a storage scope of its own, so that none are shared."""

    def transform_module(self, mod: Any, _ctx: Any) -> Any:
        """Return the module with the device number in the scope of every allocation."""

        def rewrite(call: Any) -> Any:
            if _operator(call) != "relax.builtin.alloc_tensor" or str(call.args[3].value) != "global":
                return call
            scope = tvm.ir.StringImm(f"{_DEVICE_SCOPE}{int(call.args[2].value)}")
            return relax.Call(call.op, [*call.args[:3], scope], call.attrs, call.ty_args)

        return _rewrite_calls(mod, rewrite)


@tvm.transform.module_pass(opt_level=0, name="JoinDeviceMemory")
class JoinDeviceMemory:
    """Undo `SeparateDeviceMemory` after planning: all scopes are global again."""

    def transform_module(self, mod: Any, _ctx: Any) -> Any:
        """Return the module with global scopes."""
        position = {"relax.builtin.alloc_tensor": 3, "relax.memory.alloc_storage": 2}

        def rewrite(call: Any) -> Any:
            scope = position.get(_operator(call))
            if scope is None or not str(call.args[scope].value).startswith(_DEVICE_SCOPE):
                return call
            args = list(call.args)
            args[scope] = tvm.ir.StringImm("global")
            return relax.Call(call.op, args, call.attrs, call.ty_args)

        return _rewrite_calls(mod, rewrite)


@tvm.transform.module_pass(opt_level=0, name="CheckDeviceMemory")
class CheckDeviceMemory:
    """Check that no storage serves tensors of two devices.

    Raises
    ------
    SphinxError
        With the storage and the devices, if one does.
    """

    def transform_module(self, mod: Any, _ctx: Any) -> Any:
        """Return the module as it is."""
        for var, devices in storage_devices(mod).items():
            if len(devices) > 1:
                raise SphinxError(f"Storage {var} serves several devices: {sorted(devices)}.")
        return mod


def storage_devices(module: Any) -> dict[str, set[int]]:
    """Return, for each planned storage, the devices that it is allocated for and that use it.

    Keys are ``function/variable``; devices are positions in the module's ``vdevice`` list.
    """
    found: dict[str, set[int]] = {}
    for function_var, function in module.functions.items():
        if not isinstance(function, relax.Function) or not isinstance(function.body, relax.SeqExpr):
            continue
        for block in function.body.blocks:
            for binding in block.bindings:
                value: Any = getattr(binding, "value", None)
                operator = _operator(value)
                if operator == "relax.memory.alloc_storage":
                    key = f"{function_var.name_hint}/{binding.var.name}"
                    found.setdefault(key, set()).add(int(value.args[1].value))
                elif operator == "relax.memory.alloc_tensor":
                    key = f"{function_var.name_hint}/{value.args[0].name}"
                    found.setdefault(key, set()).add(int(value.args[4].value))
    return found


@tvm.transform.module_pass(opt_level=0, name="ShareHostMemory")
class ShareHostMemory:
    """Hand tensors from one CPU device to another without a copy, since they share the host's memory."""

    def transform_module(self, mod: Any, _ctx: Any) -> Any:
        """Return the module with copies inside the host's memory replaced by what they copy."""

        def rewrite(call: Any) -> Any:
            if _operator(call) != "relax.to_vdevice":
                return call
            (source,) = call.args
            is_placed = isinstance(source.ty, relax.TensorType) and source.ty.vdevice is not None
            if not is_placed or not is_host_target(call.attrs.dst_vdevice.target):
                return call
            return source if is_host_target(source.ty.vdevice.target) else call

        return _rewrite_calls(mod, rewrite)


@tvm.transform.module_pass(opt_level=0, name="UseOneHostDevice")
class UseOneHostDevice:
    """Let all CPU devices use the VM's first device, whatever their number.

    So a module that is placed on CPU devices alone runs on a VM opened with a single CPU, and a module
    placed on a CPU and a GPU on a VM opened with one device for each entry of ``vdevice``. (The VM keeps
    weights on its first device, and kernels refuse operands of several CPU numbers.)
    """

    def transform_module(self, mod: Any, _ctx: Any) -> Any:
        """Return the module with host storage, and copies to the host, on CPU 0."""
        vdevices = list(mod.global_infos.get("vdevice", []))
        on_host = {index for index, vdevice in enumerate(vdevices) if is_host_target(vdevice.target)}
        if 0 not in on_host:
            return mod

        def rewrite(call: Any) -> Any:
            args = list(call.args)
            if _operator(call) == "relax.vm.alloc_storage" and int(args[1].value) in on_host:
                args[1] = relax.prim_value(0)
            elif _external_name(call) == "vm.builtin.to_device" and int(args[1].value) == _DL_CPU:
                args[2] = relax.prim_value(0)
            else:
                return call
            return relax.Call(call.op, args, call.attrs, call.ty_args)

        return _rewrite_calls(mod, rewrite)


@tvm.transform.module_pass(opt_level=0, name="ForgetConstantDevices")
class ForgetConstantDevices:
    """Take the virtual devices off the weights.

    The VM keeps weights on its first device whatever they say, and writes a line to stderr for each one
    that says something.
    """

    def transform_module(self, mod: Any, _ctx: Any) -> Any:
        """Return the module with its constants unplaced."""

        def rewrite(constant: Any) -> Any:
            ty = constant.ty
            if not isinstance(ty, relax.TensorType) or ty.vdevice is None:
                return constant
            return tvm.ir.GenericConst(constant.value, relax.TensorType(ty.shape, ty.dtype))

        return _rewrite(mod, lambda call: call, rewrite)


@tvm.transform.module_pass(opt_level=0, name="BuildForOtherProcessors")
class BuildForOtherProcessors:
    """Compile the CPU kernels of every target but the first by themselves, and link them as libraries.

    TVM compiles all host functions of a module for one processor, that of the first of them, so a kernel
    for another processor would get instructions that it may not have, or miss those that it has.
    """

    def transform_module(self, mod: Any, _ctx: Any) -> Any:
        """Return the module without these kernels, with their libraries in ``external_mods``."""
        by_target: dict[str, dict[Any, Any]] = {}
        for var, function in mod.functions_items():
            target = function.attrs.get("target") if function.attrs else None
            if isinstance(function, tirx.PrimFunc) and target is not None and is_host_target(target):
                by_target.setdefault(str(target), {})[var] = function
        others = list(by_target.values())[1:]
        if not others:
            return mod
        libraries = list(mod.attrs.get("external_mods", [])) if mod.attrs else []
        external = {}
        for functions in others:
            target = next(iter(functions.values())).attrs["target"]
            libraries.append(tirx.build(tvm.IRModule(functions), target=target))
            external.update(
                {var.name_hint: str(f.attrs["global_symbol"]) for var, f in functions.items()}
            )

        def rewrite(call: Any) -> Any:
            if not isinstance(call.op, tvm.ir.GlobalVar) or call.op.name_hint not in external:
                return call
            function = relax.ExternFunc(external[call.op.name_hint])
            return relax.Call(function, call.args, call.attrs, call.ty_args)

        linked = _rewrite_calls(mod, rewrite)
        for var in [var for var in linked.get_global_vars() if var.name_hint in external]:
            del linked[var]
        return linked.with_attr("external_mods", libraries)


def is_host_target(target: Any) -> bool:
    """Return whether kernels of a target compute in the host's memory."""
    return "cpu" in [str(key) for key in target.keys]


def _operator(expr: Any) -> str:
    """Return the name of the operator that an expression calls; empty for anything else."""
    if isinstance(expr, relax.Call) and isinstance(expr.op, tvm.ir.Op):
        return str(expr.op.name)
    return ""


def _external_name(call: Any) -> str:
    """Return the name of the packed function that a call calls; empty for anything else."""
    return str(call.op.global_symbol) if isinstance(call.op, relax.ExternFunc) else ""


@relax.expr_functor.mutator
class _Rewriter(relax.PyExprMutator):  # type: ignore[misc]  # TVM ships no types
    """Replaces each call, and each constant, by what a function makes of it."""

    def __init__(self, module: Any, call: Callable[[Any], Any], constant: Callable[[Any], Any]) -> None:
        super().__init__(module)
        self.call = call
        self.constant = constant

    def visit_call_(self, call: Any) -> Any:
        return self.call(self.visit_expr_post_order(call))

    def visit_generic_const_(self, constant: Any) -> Any:
        return self.constant(constant)


def _rewrite_calls(module: Any, rewrite: Callable[[Any], Any]) -> Any:
    """Return the module with each call of its Relax functions rewritten."""
    return _rewrite(module, rewrite, lambda constant: constant)


def _rewrite(module: Any, call: Callable[[Any], Any], constant: Callable[[Any], Any]) -> Any:
    mutator = _Rewriter(module, call, constant)
    for var, function in module.functions_items():
        if isinstance(function, relax.Function):
            mutator.builder_.update_func(var, mutator.visit_expr(function))
    return mutator.builder_.get()
