"""Extract the task graph of a lowered Relax module. [TVM]"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

from .._tvm import relax, tvm, tvm_ffi
from ..kernels import (
    ImageRole,
    image_role,
    is_staged,
    loop_limit,
    packed_weights,
    permuted,
    turned,
)
from ..platform import Device
from ..platform.targets import device_target
from ..scheduling.graph import FROM_CONSTANT, GraphInput, Operand, Task, TaskGraph, fingerprint_json
from .dataflow import PLAIN_WEIGHTS, Dataflow, KernelCall, tensor_bytes
from .image_layouts import choose_channels_last, extents_of, positions_of, results_of
from .load import entry_function
from .origins import NAME_PATTERN, Origins
from .packed_weights import PackedWeights

# In the id of a kernel, ahead of the positions that stand channels last on CPUs.
_LAST = "-last"
# In the name of a block: the value that it was made for, and a number that makes it unique.
_VALUE_NAME = re.compile(rf"^(T|[lg]v\d*(_\d+)?|{NAME_PATTERN})_|_\d+$")
# Attributes of a PrimFunc that change neither what it computes nor how fast.
_NAMING_ATTRS = ("global_symbol", "op_pattern", "target")
# Weights that come back after less than the first are in the nearest cache, and after more than the
# second they are no farther (`tvm_sphinx.cost.measure.cache_state.Reuse`).
_LEAST_REUSE_BYTES, _MOST_REUSE_BYTES = 1 << 14, 1 << 26
# A core computes so many numbers at least in the time that it reads or writes a byte of memory.
_LEAST_FLOPS_PER_BYTE = 4


@dataclass(frozen=True)
class Kernel:
    """A distinct kernel: what has to be built and measured once for each kind of device.

    ``function`` is the PrimFunc, or the name of an external function. ``argument_types`` are the
    tensor types of its inputs and then its outputs. ``target_kind`` is set where the function was
    made for one kind of target only; ``weights`` are the positions of its arguments that are constants,
    and ``reuse_bytes`` is what a model reads between two uses of theirs, see `weight_reuse`. Those of
    ``packable`` are constants in every call, and lie as the model has them: an implementation may take
    them packed. Those of ``channels_last`` are images that stand so on CPUs, and there alone; what a
    CPU has to compute then is what `on` returns.
    """

    id: str
    function: Any
    argument_types: tuple[Any, ...]
    target_kind: str | None = None
    weights: tuple[int, ...] = ()
    reuse_bytes: int = 0
    packable: tuple[int, ...] = ()
    channels_last: tuple[int, ...] = ()

    @property
    def content(self) -> str:
        """What it computes, as records know it: its id but for what stands channels last on CPUs."""
        return self.id.partition(_LAST)[0]

    def on(self, device: Device) -> Kernel:
        """Return the kernel as a device computes it, with its images where they stand there."""
        return self._on_cpus if self.channels_last and takes_channels_last(device) else self

    @cached_property
    def _on_cpus(self) -> Kernel:
        types = list(self.argument_types)
        for position in self.channels_last:
            types[position] = channels_last_type(types[position])
        function = turned(self.function, self.channels_last)
        return replace(self, function=function, argument_types=tuple(types), channels_last=())

    @property
    def is_external(self) -> bool:
        """Whether a packed function outside of TVM's code generation computes it."""
        return isinstance(self.function, str)

    def as_implemented(self, function: Any) -> Kernel:
        """Return the kernel with the types of the operands that a PrimFunc for it takes, some packed."""
        types = list(self.argument_types)
        for position in packed_weights(function):
            param = function.params[position]
            types[position] = relax.TensorType([int(n) for n in param.shape], str(param.dtype))
        return replace(self, argument_types=tuple(types))


#: Gives the PrimFunc that implements a kernel on a device, scheduled and with the device's target; None
#: stands for what `tvm_sphinx.kernels.implement.implement_kernel` makes of it.
Implement = Callable[[Kernel, Device], Any | None]


@dataclass(frozen=True)
class Extraction:
    """A task graph and what it was extracted from: task i is ``dataflow.calls[i]``.

    The tensors of ``channels_last`` stand so on CPUs. ``packed`` keeps the weights that were packed for
    kernels of it.
    """

    graph: TaskGraph
    dataflow: Dataflow
    kernels: dict[str, Kernel]
    channels_last: frozenset[Operand] = frozenset()
    packed: PackedWeights = field(default_factory=PackedWeights, compare=False, repr=False)


def extract_task_graph(module: Any, function: str | None = None) -> Extraction:
    """Return the task graph of a lowered module, one task for each kernel call.

    Views, tuples and constants are no tasks: they stand for what they are made of. Tasks whose
    PrimFuncs are structurally equal, on the same shapes and dtypes, have the same kernel id.

    Parameters
    ----------
    module
        IRModule as `tvm_sphinx.frontend.lower.lower_to_kernels` returns it.
    function
        Name of the entry function, see `tvm_sphinx.frontend.load.entry_function`.

    Raises
    ------
    UnsupportedError
        If the function is not static straight-line code.
    """
    name = entry_function(module, function)
    dataflow = Dataflow(module, name)
    kernels = _KernelTable()
    tasks = []
    names: dict[str, int] = {}
    origins = Origins.of(dataflow.function)
    for call in dataflow.calls:
        variable = str(call.var.name)
        operators = origins.operators_of(variable)
        kernel = kernels.add(call)
        operands = tuple(operand for expr in call.arguments for operand in dataflow.tensors(expr))
        constants = {
            operand: tensor_bytes(expr.ty)
            for expr in call.arguments
            for operand in dataflow.tensors(expr)
            if operand.producer == FROM_CONSTANT
        }
        tasks.append(
            Task(
                name=_unique(operators[0].label if operators else variable, names),
                kernel=kernel.id,
                operands=operands,
                output_bytes=tuple(tensor_bytes(output) for output in call.outputs),
                op_kinds=kernels.op_kinds[kernel.id],
                flops=kernels.flops[kernel.id],
                weight_bytes=sum(constants.values()),
                origin=tuple(dict.fromkeys(operator.text for operator in operators)),
            )
        )
    inputs = tuple(
        GraphInput(str(param.name), tensor_bytes(param.ty)) for param in dataflow.function.params
    )
    graph = TaskGraph(name, tuple(tasks), inputs, tuple(dataflow.tensors(dataflow.result)))
    is_plain = PLAIN_WEIGHTS in (dataflow.function.attrs or {})
    weighted = kernels.with_weights(is_plain)
    reuse = weight_reuse(graph, weighted)
    found = {key: replace(kernel, reuse_bytes=reuse[key]) for key, kernel in weighted.items()}
    made = Extraction(graph, dataflow, found)
    return _with_images_turned(made) if is_plain else made


def takes_channels_last(device: Device) -> bool:
    """Return whether a device has images channels last where the kernels on both sides want them so."""
    return str(device_target(device).kind.name) == "llvm"


def channels_last_type(ty: Any) -> Any:
    """Return the type of an image with its channels last."""
    return relax.TensorType(permuted(extents_of(ty)), str(ty.dtype))


def _with_images_turned(plain: Extraction) -> Extraction:
    """Return an extraction in which images stand channels last on CPUs where kernels want them so."""
    graph, dataflow = plain.graph, plain.dataflow
    roles = {
        key: ImageRole.KEEPS if kernel.target_kind else image_role(kernel.function, kernel.packable)
        for key, kernel in plain.kernels.items()
    }
    chosen = choose_channels_last(graph, dataflow, roles)
    tasks: list[Task] = []
    kernels: dict[str, Kernel] = {}
    for number, task in enumerate(graph.tasks):
        kernel = plain.kernels[task.kernel]
        if not kernel.is_external:
            operands = [dataflow.tensors(argument) for argument in dataflow.calls[number].arguments]
            positions = positions_of(results_of(graph, number), operands, chosen)
            if positions:
                key = f"{kernel.id}{_LAST}{'_'.join(map(str, positions))}"
                kernel = replace(kernel, id=key, channels_last=positions)
        kernels.setdefault(kernel.id, kernel)
        tasks.append(replace(task, kernel=kernel.id))
    return replace(
        plain, graph=replace(graph, tasks=tuple(tasks)), kernels=kernels, channels_last=chosen
    )


def weight_reuse(graph: TaskGraph, kernels: Mapping[str, Kernel]) -> dict[str, int]:
    """Return what a model reads, in bytes of distinct weights, between two uses of each kernel's.

    Inferences follow each other, so where a weight is used once this is the size of all weights; where
    the steps of a recurrent network share it, it is what one step reads. Of several tasks it is the
    median, rounded to the nearest power of four, so that models of about one size share their records;
    it is 0 for kernels without weights.
    """
    sizes: dict[int, int] = {}
    read_by = [_constants(task, kernels[task.kernel], sizes) for task in graph.tasks]
    uses: dict[int, list[int]] = {}
    for task, constants in enumerate(read_by):
        for constant in constants:
            uses.setdefault(constant, []).append(task)
    total = sum(sizes.values())
    distances: dict[str, list[int]] = {}
    for tasks in uses.values():
        # The first one comes after the last one of the inference before.
        for before, task in pairwise([tasks[-1] - len(read_by), *tasks]):
            passed = total
            if len(tasks) > 1:
                between = {constant for at in range(before + 1, task + 1) for constant in read_by[at]}
                passed = sum(sizes[constant] for constant in between)
            distances.setdefault(graph.tasks[task].kernel, []).append(passed)
    found = {key: sorted(values)[len(values) // 2] for key, values in distances.items()}
    return {
        key: _power_of_four(found[key]) if key in found and kernel.weights else 0
        for key, kernel in kernels.items()
    }


def _constants(task: Task, kernel: Kernel, sizes: dict[int, int]) -> set[int]:
    """Return the constants that a task reads, and note their sizes."""
    found = set()
    # Outputs follow the operands.
    for operand, ty in zip(task.operands, kernel.argument_types, strict=False):
        if operand.producer == FROM_CONSTANT:
            sizes[operand.output] = tensor_bytes(ty)
            found.add(operand.output)
    return found


def _power_of_four(size: int) -> int:
    within = min(max(size, _LEAST_REUSE_BYTES), _MOST_REUSE_BYTES)
    return 1 << within.bit_length() // 2 * 2


class _KernelTable:
    """Gives equal kernels one id: hashing finds candidates, structural equality decides."""

    def __init__(self) -> None:
        self.kernels: dict[str, Kernel] = {}
        self.op_kinds: dict[str, tuple[str, ...]] = {}
        self.flops: dict[str, int] = {}
        self._seen: dict[Any, Kernel] = {}
        # By kernel id, how many calls there are, and how many have a constant at each position.
        self._calls: Counter[str] = Counter()
        self._constants: Counter[tuple[str, int]] = Counter()

    def add(self, call: KernelCall) -> Kernel:
        """Return the kernel that is called."""
        kernel = self._find(call)
        self._calls[kernel.id] += 1
        if not call.is_external:
            for position, argument in enumerate(call.arguments):
                if isinstance(argument, tvm.ir.GenericConst):
                    self._constants[kernel.id, position] += 1
        return kernel

    def with_weights(self, is_plain: bool) -> dict[str, Kernel]:
        """Return the kernels by id with their weights: the operands that most calls have constant.

        The first of many steps may have a constant where all others have what the step before made.
        ``is_plain`` tells that no layout was chosen for weights, so that they may be packed.
        """
        weights: dict[str, list[int]] = {}
        packable: dict[str, list[int]] = {}
        for (kernel, position), count in sorted(self._constants.items()):
            if 2 * count > self._calls[kernel]:
                weights.setdefault(kernel, []).append(position)
            if is_plain and count == self._calls[kernel]:
                packable.setdefault(kernel, []).append(position)
        return {
            key: replace(
                kernel, weights=tuple(weights.get(key, ())), packable=tuple(packable.get(key, ()))
            )
            for key, kernel in self.kernels.items()
        }

    def _find(self, call: KernelCall) -> Kernel:
        types = (*(argument.ty for argument in call.arguments), *call.outputs)
        if call.is_external:
            content = [call.callee, [str(ty) for ty in types]]
            kernel = Kernel(f"extern-{fingerprint_json(content)[:16]}", call.callee, types)
            self.op_kinds[kernel.id] = (call.callee,)
            self.flops[kernel.id] = 0
            return self.kernels.setdefault(kernel.id, kernel)
        if call.callee in self._seen:
            return self._seen[call.callee]
        kernel = self._identify(call.callee, types)
        self._seen[call.callee] = kernel
        return kernel

    def _identify(self, function: Any, types: tuple[Any, ...]) -> Kernel:
        bare = function
        for attr in _NAMING_ATTRS:
            if bare.attrs and attr in bare.attrs:
                bare = bare.without_attr(attr)
        target = function.attrs.get("target") if function.attrs else None
        kind = None if target is None else str(target.kind.name)
        digest = f"{tvm_ffi.structural_hash(bare) & (2**64 - 1):016x}"
        attempt = 0
        while True:
            kernel_id = digest + (f"-{kind}" if kind else "") + (f"-{attempt}" if attempt else "")
            known = self.kernels.get(kernel_id)
            if known is None:
                self.kernels[kernel_id] = Kernel(kernel_id, bare, types, kind)
                self.op_kinds[kernel_id] = op_kinds(bare)
                self.flops[kernel_id] = kernel_flops(bare)
                return self.kernels[kernel_id]
            if tvm_ffi.structural_equal(known.function, bare):
                return known
            attempt += 1


def op_kinds(function: Any) -> tuple[str, ...]:
    """Return the kinds of operators in a PrimFunc, from the names of its blocks, each once.

    What holds the branches of an ``if``, or a loop, is of that kind alone, whatever is in it.
    """
    if is_staged(function):
        return ("if",) if loop_limit(function) is None else ("loop",)
    kinds: dict[str, None] = {}

    def visit(block: Any) -> None:
        name = str(block.name_hint)
        if name != "root":
            kinds[_VALUE_NAME.sub("", name) or name] = None

    tvm_ffi.structural_walk(function.body, (tvm.s_tir.SBlock, visit))
    return tuple(kinds)


def kernel_flops(function: Any) -> int:
    """Return TVM's count of arithmetic operations of a PrimFunc; 0 where it has none."""
    try:
        # Loops that run one time less than a tensor without elements has count as -1.
        return max(0, int(tvm.s_tir.analysis.estimate_tir_flops(tvm.IRModule({"main": function}))))
    except Exception:  # the estimator raises InternalError on loops and calls that it does not know
        return 0


def is_memory_bound(function: Any, operand_bytes: int) -> bool:
    """Return whether a core takes longer to read and write a kernel's operands than to compute.

    A packed function, known by its name alone, is taken to compute.
    """
    if isinstance(function, str):
        return False
    return kernel_flops(function) < _LEAST_FLOPS_PER_BYTE * operand_bytes


def _unique(name: str, seen: dict[str, int]) -> str:
    seen[name] = seen.get(name, -1) + 1
    return name if seen[name] == 0 else _unique(f"{name}_{seen[name]}", seen)
