"""Write a schedule into a Relax module: every tensor on its device, copies at the crossings. [TVM]

`HeterogeneousSchedule` is the pass; it takes the scheduler as an argument and imports none.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ._tvm import relax, tvm
from .errors import InvalidScheduleError, SphinxError
from .frontend.dataflow import PLAIN_WEIGHTS, Dataflow, is_lowered
from .frontend.extract import (
    Extraction,
    Implement,
    Kernel,
    channels_last_type,
    extract_task_graph,
    takes_channels_last,
)
from .frontend.image_layouts import extents_of, results_of
from .frontend.load import entry_function, public_functions
from .frontend.lower import lower_for_platform
from .kernels import packed_weights, turn
from .kernels.implement import for_target
from .platform import Device, Platform
from .platform.platform_file import load_platform
from .platform.targets import device_target
from .scheduling.graph import FROM_INPUT, Operand, TaskGraph
from .scheduling.schedule import Schedule

#: Function attribute that marks a scheduled function; it holds the fingerprint of its task graph.
SCHEDULED_ATTR = "sphinx.schedule"
#: Function attribute of a function whose trailing arguments are weights: the function that gives them.
WEIGHTS_ATTR = "sphinx.weights"

Scheduler = Callable[[TaskGraph], Schedule]


@tvm.transform.module_pass(opt_level=0, name="HeterogeneousSchedule")
class HeterogeneousSchedule:
    """Place each kernel of a function on the device that a scheduler gives it.

    A module straight from an importer, or from a user's own passes, is lowered first
    (`tvm_sphinx.frontend.lower.lower_for_platform`); one that calls kernels already stays as it is.

    Parameters
    ----------
    scheduler
        Called with the task graph of the function; returns the schedule to write into the module.
        It may raise; then the module is not changed.
    platform
        The devices that the schedule's device numbers refer to: a platform, a name in
        `tvm_sphinx.platform.NAMED_PLATFORMS`, or a platform file.
    function
        Name of the function, see `tvm_sphinx.frontend.load.entry_function`.

    Raises
    ------
    SphinxError
        If the scheduler is no function, or the platform cannot be read.
    UnsupportedError
        If the function has dynamic shapes, or an ``if`` that is no task.
    InvalidScheduleError
        If the schedule does not fit the graph and the platform.
    """

    def __init__(
        self, scheduler: Scheduler, platform: Platform | str | Path, function: str | None = None
    ) -> None:
        if not callable(scheduler):
            raise SphinxError(
                f"Expected a scheduler as a function from TaskGraph to Schedule; got {scheduler!r:.80}."
            )
        self.scheduler = scheduler
        self.platform = load_platform(platform)
        self.function = function

    def transform_module(self, mod: Any, _ctx: Any) -> Any:
        """Return the annotated module; a module that is scheduled already is returned as it is."""
        if is_scheduled(mod):
            return mod
        name = entry_function(mod, self.function)
        if not is_lowered(mod, name):
            mod = lower_for_platform(mod, self.platform, name)
        extraction = extract_task_graph(mod, name)
        return annotate_schedule(extraction, self.scheduler(extraction.graph), self.platform)


def is_scheduled(module: Any) -> bool:
    """Return whether a function of the module was placed by `annotate_schedule`."""
    return any(
        isinstance(function, relax.Function) and function.attrs and SCHEDULED_ATTR in function.attrs
        for function in module.functions.values()
    )


def annotate_schedule(
    extraction: Extraction,
    schedule: Schedule,
    platform: Platform,
    implement: Implement | None = None,
) -> Any:
    """Return a new module with the schedule written into the extracted function.

    - ``vdevice`` lists one virtual device for each device of the platform, in its order.
    - Kernel calls stand in schedule order, each result on the virtual device of its task.
    - A tensor that another device reads gets one ``to_vdevice`` for each such device.
    - Each kernel is cloned per target that runs it; the clone carries that target. ``implement`` may
      give it, scheduled already; None leaves that to `tvm_sphinx.kernels.implement.ImplementKernels`.
    - A kernel that takes a weight packed is called with it as a constant that was packed here, once; the
      clone of another device, such as a GPU, with the weight as the model has it.
    - Weights of devices with their own memory become trailing arguments, so that they are placed
      once, by the function that the attribute ``sphinx.weights`` names, and not once per inference.

    Arguments are expected, and results delivered, on the platform's host device.

    Raises
    ------
    InvalidScheduleError
        If the schedule has another number of tasks, names a device that the platform lacks, or
        runs a task before one whose outputs it reads.
    """
    graph = extraction.graph
    _check_fits(graph, schedule, platform)
    writer = _Writer(extraction, schedule, platform, implement)
    return writer.write()


def _check_fits(graph: TaskGraph, schedule: Schedule, platform: Platform) -> None:
    if schedule.num_tasks != graph.num_tasks:
        raise InvalidScheduleError(
            f"Expected a schedule of {graph.num_tasks} tasks; got one of {schedule.num_tasks}."
        )
    num_devices = len(platform.devices)
    if graph.num_tasks and not 0 <= schedule.device.min() <= schedule.device.max() < num_devices:
        raise InvalidScheduleError(
            f"Expected devices 0..{num_devices - 1}; "
            f"got {schedule.device.min()}..{schedule.device.max()}."
        )
    for edge in graph.edges:
        if schedule.start_ns[edge.dst] < schedule.finish_ns[edge.src]:
            raise InvalidScheduleError(
                f"Expected task {edge.dst} to start when task {edge.src}, which it reads, has finished; "
                f"got {schedule.start_ns[edge.dst]} and {schedule.finish_ns[edge.src]} ns."
            )


class _Writer:
    """Emits the placed function; a tensor comes to a device when its first reader there needs it."""

    def __init__(
        self,
        extraction: Extraction,
        schedule: Schedule,
        platform: Platform,
        implement: Implement | None = None,
    ) -> None:
        self.kernels = extraction.kernels
        self.packed = extraction.packed
        self.channels_last = extraction.channels_last
        self.implement = implement
        self.dataflow: Dataflow = extraction.dataflow
        self.graph = extraction.graph
        self.schedule = schedule
        self.platform = platform
        self.vdevices = [_virtual_device(device) for device in platform.devices]
        self.takes_last = [takes_channels_last(device) for device in platform.devices]
        self.builder = relax.BlockBuilder(self._module_with_vdevices())
        # (tensor, device) -> variable that holds it there; views are kept beside as (variable, device).
        self.placed: dict[tuple[Operand, int], Any] = {}
        self.views: dict[tuple[Any, int], Any] = {}
        self.clones: dict[tuple[Any, str, str], tuple[Any, dict[int, str]]] = {}
        # Of images that were turned on the device that made them, and the functions that turn.
        self.turned: dict[Operand, Any] = {}
        self.turns: dict[tuple[Any, ...], Any] = {}
        self.weights: list[tuple[Any, Any]] = []  # (argument, constant) of devices with own memory

    def write(self) -> Any:
        """Return the module with the placed function in the place of the extracted one."""
        function = self.dataflow.function
        host = self.platform.host_index
        params = []
        for position, param in enumerate(function.params):
            placed = relax.Var(str(param.name), _placed_type(param.ty, self.vdevices[host]))
            self.placed[Operand(FROM_INPUT, position), host] = placed
            params.append(placed)
        attrs = {**dict(function.attrs or {}), SCHEDULED_ATTR: self.graph.fingerprint}
        attrs.pop(PLAIN_WEIGHTS, None)
        with self.builder.function("placed_main", params=params, private=True):
            with self.builder.dataflow():
                for task in self._topological_schedule_order():
                    self._emit_task(task)
                result = self._deliver(self.dataflow.result)
                output = self.builder.emit_output(result)
            self.builder.emit_func_output(output)
        return self._finish(self.builder.finalize(), attrs)

    def _topological_schedule_order(self) -> list[int]:
        """Tasks by start time; of those that start together, a producer of no duration goes first."""
        rank = {task: position for position, task in enumerate(self.schedule.order)}
        order: list[int] = []
        done: set[int] = set()
        for task in self.schedule.order:
            stack = [task]
            while stack:
                top = stack[-1]
                waiting = [p for p in self.graph.predecessors[top] if p not in done]
                if waiting:
                    stack.extend(sorted(waiting, key=lambda p: -rank[p]))
                    continue
                stack.pop()
                if top not in done:
                    done.add(top)
                    order.append(top)
        return order

    def _emit_task(self, task: int) -> None:
        source = self.dataflow.calls[task]
        device = int(self.schedule.device[task])
        vdevice = self.vdevices[device]
        callee = source.call.args[0]
        packings: dict[int, str] = {}
        if not source.is_external:
            kernel = self.kernels[self.graph.tasks[task].kernel]
            callee, packings = self._clone(callee, kernel, self.platform.devices[device])
        arguments = relax.Tuple(
            [
                self._packed(argument, packings[position], vdevice)
                if position in packings
                else self._on_device(argument, device)
                for position, argument in enumerate(source.arguments)
            ]
        )
        types = [
            self._type_on(Operand(task, number), output, device)
            for number, output in enumerate(source.outputs)
        ]
        is_tuple = isinstance(source.call.ty, relax.TupleType)
        ty_args = [relax.TupleType(types)] if is_tuple else types
        call = relax.Call(source.call.op, [callee, arguments], source.call.attrs, ty_args)
        var = self.builder.emit(call, self.graph.tasks[task].name)
        for output in range(len(types)):
            item = self.builder.emit(relax.TupleGetItem(var, output)) if is_tuple else var
            self.placed[Operand(task, output), device] = item
        for operand in results_of(self.graph, task):
            if self._is_read_channels_last(operand, device):
                # Here, not where it is first read: the other device is not to wait for more than this.
                self.turned[operand] = self._turn(operand, self.placed[operand, device], device, False)

    def _type_on(self, operand: Operand, ty: Any, device: int) -> Any:
        """Return the type of what a task makes on a device."""
        is_last = operand in self.channels_last and self.takes_last[device]
        return _placed_type(channels_last_type(ty) if is_last else ty, self.vdevices[device])

    def _is_read_channels_last(self, operand: Operand, device: int) -> bool:
        """Return whether a result of a task on a device that has it otherwise is read so elsewhere."""
        if self.takes_last[device] or operand not in self.channels_last:
            return False
        readers = [
            reader
            for reader in self.graph.successors[operand.producer]
            if operand in self.graph.tasks[reader].operands
        ]
        return any(self.takes_last[int(self.schedule.device[reader])] for reader in readers)

    def _turn(self, operand: Operand, source: Any, device: int, is_back: bool) -> Any:
        """Return a tensor turned on a device: channels last, or back."""
        ty = self.dataflow.calls[operand.producer].outputs[operand.output]
        target = device_target(self.platform.devices[device])
        key = (extents_of(ty), str(ty.dtype), is_back, str(target))
        if key not in self.turns:
            function = turn(*key[:2], is_back=is_back).with_attr("target", target)
            name = "to_channels_first" if is_back else "to_channels_last"
            self.turns[key] = self.builder.add_func(function, name)
        made = _placed_type(ty if is_back else channels_last_type(ty), self.vdevices[device])
        call = relax.call_tir(self.turns[key], [source], made)
        return self.builder.emit(call, f"turn_{self.graph.tasks[operand.producer].name}")

    def _clone(self, callee: Any, kernel: Kernel, device: Device) -> tuple[Any, dict[int, str]]:
        """Return the clone of a kernel for a device's target, and how it takes which weights packed.

        Devices of one target share it.
        """
        target = device_target(device)
        key = (callee, kernel.id, str(target))
        if key not in self.clones:
            function = self.implement(kernel, device) if self.implement else None
            if function is None:
                here = kernel.on(device)
                plain = self.dataflow.module[callee] if here is kernel else here.function
                function = for_target(plain, kernel.packable, target).with_attr("target", target)
            if "global_symbol" in function.attrs:
                function = function.without_attr("global_symbol")
            name = f"{callee.name_hint}_{device.name}".replace("-", "_").replace(",", "_")
            self.clones[key] = self.builder.add_func(function, name), packed_weights(function)
        return self.clones[key]

    def _on_device(self, expr: Any, device: int) -> Any:
        """Return the expression with its tensors on the device; copies and views are emitted once."""
        if isinstance(expr, relax.Tuple):
            return relax.Tuple([self._on_device(field, device) for field in expr.fields])
        if isinstance(expr, tvm.ir.GenericConst):
            return self._weight(expr, device)
        if isinstance(expr, relax.Call):
            return self._view(expr, device)
        if isinstance(expr, relax.Var) and self.dataflow.task_of(expr) is None:
            if expr not in self.dataflow.params:
                return self._on_device(self.dataflow.definitions[expr], device)
        elif not isinstance(expr, (relax.Var, relax.TupleGetItem)):
            return expr  # a shape or an immediate value
        if isinstance(expr, relax.TupleGetItem):
            return self._item(expr, device)
        operands = self.dataflow.tensors(expr)
        fields = [self._tensor(operand, device) for operand in operands]
        return relax.Tuple(fields) if isinstance(expr.ty, relax.TupleType) else fields[0]

    def _item(self, expr: Any, device: int) -> Any:
        """Return one field of a tuple: of a kernel's outputs, or of a tuple written in the function."""
        value, index = expr.tuple_value, int(expr.index)
        while isinstance(value, relax.Var) and self.dataflow.task_of(value) is None:
            value = self.dataflow.definitions[value]
        if isinstance(value, relax.Tuple):
            return self._on_device(value.fields[index], device)
        if isinstance(value, relax.TupleGetItem):
            return self._on_device(value, device).fields[index]
        return self._tensor(self.dataflow.tensors(value)[index], device)

    def _tensor(self, operand: Operand, device: int) -> Any:
        """Return the variable that holds a tensor on a device, copied there if it is not yet."""
        if (operand, device) not in self.placed:
            if operand.producer == FROM_INPUT:
                home = self.platform.host_index
            else:
                home = int(self.schedule.device[operand.producer])
            if operand in self.channels_last and self.takes_last[home] != self.takes_last[device]:
                self.placed[operand, device] = self._across(operand, home, device)
            else:
                self.placed[operand, device] = self._copy(self.placed[operand, home], device)
        return self.placed[operand, device]

    def _copy(self, source: Any, device: int) -> Any:
        return self.builder.emit(relax.op.to_vdevice(source, self.vdevices[device]))

    def _across(self, operand: Operand, home: int, device: int) -> Any:
        """Return an image on a device that has it in the other form, turned once in each memory.

        It is not a CPU that turns it, but what is at the other end.
        """
        if operand in self.turned:
            return self._copy(self.turned[operand], device)
        memory = self.platform.devices[device].memory_space
        for (other, where), held in self.placed.items():
            is_alike = self.takes_last[where] == self.takes_last[device]
            if other == operand and is_alike and self.platform.devices[where].memory_space == memory:
                return self._copy(held, device)
        arrived = self._copy(self.placed[operand, home], device)
        return self._turn(operand, arrived, device, True)

    def _view(self, call: Any, device: int) -> Any:
        key = (call, device)
        if key not in self.views:
            arguments = [self._on_device(call.args[0], device), *call.args[1:]]
            self.views[key] = self.builder.emit(relax.Call(call.op, arguments, call.attrs))
        return self.views[key]

    def _weight(self, constant: Any, device: int) -> Any:
        """Return a weight on a device: in place in host memory, else an argument of the function."""
        (operand,) = self.dataflow.tensors(constant)
        if self.platform.devices[device].memory_space == "host":
            return tvm.ir.GenericConst(constant.value, _placed_type(constant.ty, self.vdevices[device]))
        if (operand, device) not in self.placed:
            name = f"weight{len(self.weights)}"
            argument = relax.Var(name, _placed_type(constant.ty, self.vdevices[device]))
            self.weights.append((argument, constant))
            self.placed[operand, device] = argument
        return self.placed[operand, device]

    def _packed(self, constant: Any, packing: str, vdevice: Any) -> Any:
        """Return a weight packed for a kernel, as a constant in host memory."""
        value = self.packed.pack(constant.value, packing)
        ty = relax.TensorType(list(value.shape), str(value.dtype), vdevice)
        return tvm.ir.GenericConst(value, ty)

    def _deliver(self, result: Any) -> Any:
        """Return the function's result with all its tensors on the host device."""
        return self._on_device(result, self.platform.host_index)

    def _module_with_vdevices(self) -> Any:
        module = tvm.IRModule(
            dict(self.dataflow.module.functions.items()),
            attrs=self.dataflow.module.attrs,
            global_infos=dict(self.dataflow.module.global_infos.items()),
        )
        module.update_global_info("vdevice", self.vdevices)
        return module

    def _finish(self, module: Any, attrs: dict[str, Any]) -> Any:
        """Put the placed function under the name of the extracted one and drop what is unused."""
        placed = module["placed_main"]
        entry = module.get_global_var(self.dataflow.name)
        for name, value in attrs.items():
            placed = placed.with_attr(name, value)
        del module[module.get_global_var("placed_main")]
        if self.weights:
            placed = self._take_weights(module, placed)
        module[entry] = placed
        _give_target(module, device_target(self.platform.devices[self.platform.host_index]))
        return relax.transform.DeadCodeElimination(public_functions(module))(module)

    def _take_weights(self, module: Any, placed: Any) -> Any:
        """Append the weights as arguments, and add the function that returns them, placed."""
        name = f"{self.dataflow.name}_weights"
        builder = relax.BlockBuilder(module)
        with builder.function(name, params=[]):
            with builder.dataflow():
                copies = [
                    builder.emit(relax.op.to_vdevice(constant, argument.ty.vdevice))
                    for argument, constant in self.weights
                ]
                output = builder.emit_output(relax.Tuple(copies))
            builder.emit_func_output(output)
        for var, function in builder.finalize().functions.items():
            if var.name_hint == name:
                module[var] = function
        params = [*placed.params, *(argument for argument, _ in self.weights)]
        attrs = {**dict(placed.attrs), WEIGHTS_ATTR: name, "num_input": len(placed.params)}
        return relax.Function(
            params, placed.body, placed.ret_ty, placed.is_pure, tvm.ir.make_node("ir.DictAttrs", **attrs)
        )


def _virtual_device(device: Device) -> Any:
    index = int(device.runtime.partition(":")[2])
    return relax.VDevice(device_target(device), index, "global")


def _placed_type(ty: Any, vdevice: Any) -> Any:
    return relax.TensorType(ty.shape, ty.dtype, vdevice)


def _give_target(module: Any, target: Any) -> None:
    """Give the host's target to the PrimFuncs that only other functions call."""
    for var, function in module.functions.items():
        if isinstance(function, tvm.tirx.PrimFunc) and "target" not in function.attrs:
            module[var] = function.with_attr("target", target)
