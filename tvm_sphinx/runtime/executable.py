"""The executable that runs a schedule on all its devices at once. [TVM]"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .._tvm_runtime import tvm_ffi
from ..errors import UnsupportedError
from ..platform import Platform
from ..platform.fit import fit_machine
from ..scheduling.schedule import Schedule
from .encode import Opcode, make_lanes
from .gpu_plan import num_segments
from .image import Image
from .loading import load_kernels
from .plan import LanePlan, make_plan
from .processor import check_processor
from .program import COMPILED, LaneProgram, TensorView
from .tensors import empty_tensor, host_tensor, order_inputs, to_tensor, view_as
from .trace import Trace, check_schedule, make_trace

#: Inputs of a run: tensors by argument name, or in the order of the arguments.
Inputs = Mapping[str, Any] | Sequence[Any]


class ConcurrentExecutable:
    """A model that runs as its schedule says, each device in threads bound to its cores.

    Any number of threads may call it; they take turns. Objects of it are made by
    `tvm_sphinx.runtime.build.build_executable` and by `load`.

    Parameters
    ----------
    image
        What is executed; it is also what `save` writes.
    bind_cores
        Whether to bind the threads to the cores of their devices. Where these are not allowed, equal
        ones take their place (`tvm_sphinx.platform.fit`).
    use_graphs
        Whether what a GPU does between two waits for the host is launched as one CUDA graph.

    Raises
    ------
    GpuError
        If a GPU is not there, or lacks memory, or is of another architecture than the kernels.
    UnsupportedError
        If a packed function that the model calls is not registered.
    PlatformError
        If this process may use too few cores of the kinds that the platform names, or this machine lacks
        instructions that its kernels use.
    InvalidScheduleError
        If the schedule is not the one of the program.
    """

    def __init__(self, image: Image, *, bind_cores: bool = True, use_graphs: bool = True) -> None:
        if image.schedule is not None:
            check_schedule(image.program, image.schedule)
        if bind_cores:
            used = {step.device for step in image.program.steps}
            image = replace(image, platform=fit_machine(image.platform, used))
        self.image = image
        self.plan: LanePlan = make_plan(image.program, image.platform)
        for number, workers in enumerate(self.plan.device_workers):
            processor = image.processors[number] if image.processors else None
            if workers and processor is not None:
                check_processor(image.platform.devices[number].name, processor)
        module = load_kernels(image.library) if image.library else None
        functions = _find_functions(self.plan, module)
        self._lanes = make_lanes(
            self.plan, functions, image.weights, bind_cores, image.gpu, use_graphs=use_graphs
        )
        program = image.program
        self._inputs = list(zip(program.input_names, self._views(program.inputs), strict=True))
        self._aligned = [_is_read_by_kernels(program, tensor) for tensor in program.inputs]
        self._output_views = self._views(program.outputs)
        slots = program.space_buffers("output")
        # Results that share a buffer are views of the first of them.
        self._output_slots = [slots.index(program.tensors[t].buffer) for t in program.outputs]
        self._num_slots = len(slots)

    def _views(self, tensors: Sequence[int]) -> list[TensorView]:
        return [self.image.program.tensors[tensor] for tensor in tensors]

    @property
    def platform(self) -> Platform:
        """The devices that it runs on."""
        return self.image.platform

    @property
    def schedule(self) -> Schedule | None:
        """The schedule that it was built from, with its predicted times."""
        return self.image.schedule

    @property
    def inputs(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Shape and dtype of each argument by name."""
        return {name: (view.shape, view.dtype) for name, view in self._inputs}

    def run(self, inputs: Inputs) -> Any:
        """Run the model once.

        Parameters
        ----------
        inputs
            numpy arrays, or tensors that speak DLPack, on the host. They are used in place if they are
            compact and aligned to 64 bytes (as those of torch and TVM are), and copied if not. A GPU
            takes what lies in pinned memory (``torch.Tensor.pin_memory``) from there.

        Returns
        -------
        result
            A ``tvm_ffi.Tensor``, or a tuple of them in the structure of the model's result. They
            are the caller's own; ``numpy.from_dlpack`` and ``torch.from_dlpack`` share their memory.

        Raises
        ------
        InputError
            If an input has another shape, dtype or device than the model's, or their number differs.
        """
        slots, results = self._slots(inputs)
        self._lanes(int(Opcode.RUN), *slots)
        return _nest(self.image.program.structure, results)

    def run_traced(self, inputs: Inputs, *, warm_runs: int = 0) -> tuple[Any, Trace]:
        """Run the model once; return its result as `run` does, and what happened when.

        Before it, ``warm_runs`` of the same on the same memory are not traced: what is traced then finds
        caches, pages and lanes as one of many runs does.
        """
        slots, results = self._slots(inputs)
        for _ in range(warm_runs):
            self._lanes(int(Opcode.RUN), *slots)
        num_steps = len(self.plan.program.steps)
        stamps = np.zeros((num_steps + num_segments(self.plan), 2), dtype=np.int64)
        self._lanes(int(Opcode.RUN_TRACED), tvm_ffi.from_dlpack(stamps), *slots)
        stamps = stamps[:num_steps]
        stamps -= stamps[:, 0].min(initial=np.iinfo(np.int64).max) if len(stamps) else 0
        trace = make_trace(self.plan, self.platform, self.schedule, stamps)
        return _nest(self.image.program.structure, results), trace

    def time_evaluator(self, inputs: Inputs | None = None, *, number: int = 10, repeat: int = 3) -> Any:
        """Measure how long a run takes; no Python runs in between.

        Parameters
        ----------
        inputs
            As for `run`; zeros by default.
        number, repeat
            Runs that are averaged, and number of averages, after one run that is not counted.

        Returns
        -------
        ``tvm.runtime.module.BenchmarkResult``
            With ``results`` in seconds, one for each repeat.
        """
        durations = self.durations_ns(inputs, number * repeat).reshape(repeat, number)
        from .._tvm import tvm

        return tvm.runtime.module.BenchmarkResult((durations.mean(axis=1) * 1e-9).tolist())

    def durations_ns(self, inputs: Inputs | None = None, count: int = 10) -> npt.NDArray[np.int64]:
        """Return how long each of ``count`` runs took in ns, after one that is not counted."""
        slots, _ = self._slots(self.zero_inputs() if inputs is None else inputs)
        durations = np.zeros(count + 1, dtype=np.int64)
        self._lanes(int(Opcode.TIME), tvm_ffi.from_dlpack(durations), *slots)
        return durations[1:]

    def gpu_durations_ns(self, inputs: Inputs | None = None) -> npt.NDArray[np.int64]:
        """Run once; return how long the GPUs took from each wait of a feeder to its next, in ns."""
        slots, _ = self._slots(self.zero_inputs() if inputs is None else inputs)
        durations = np.zeros(num_segments(self.plan), dtype=np.int64)
        self._lanes(int(Opcode.TIME_GPUS), tvm_ffi.from_dlpack(durations), *slots)
        return durations

    def zero_inputs(self) -> dict[str, Any]:
        """Return inputs that are all zero."""
        return {name: to_tensor(np.zeros(view.shape, view.dtype)) for name, view in self._inputs}

    def delay_lanes(self, seed: int, longest_ns: int) -> None:
        """Delay the lanes at random points by up to ``longest_ns``; 0 ends it. For tests."""
        self._lanes(int(Opcode.SET_DELAYS), seed, longest_ns)

    def set_spin(self, wait_ns: int = 500_000, idle_ns: int = 200_000) -> None:
        """Set how long a lane spins before it sleeps: for another lane, and for the next run."""
        self._lanes(int(Opcode.SET_SPIN), wait_ns, idle_ns)

    def save(self, path: str | Path) -> None:
        """Write the executable into one file, which `load` reads in another process."""
        self.image.save(path)

    @classmethod
    def load(cls, path: str | Path, *, bind_cores: bool = True) -> ConcurrentExecutable:
        """Read an executable that `save` wrote.

        It holds machine code: load it only from where you would run a program from.

        Raises
        ------
        ArtifactError
            If the file is truncated, altered, or written by another version; nothing of it runs then.
        """
        return cls(Image.load(path), bind_cores=bind_cores)

    def _slots(self, inputs: Inputs) -> tuple[list[Any], list[Any]]:
        """Return the tensors to call the lanes with, and those that will hold the results."""
        ordered = order_inputs(inputs, self.image.program.input_names)
        slots = [
            host_tensor(value, name, view, align)
            for value, (name, view), align in zip(ordered, self._inputs, self._aligned, strict=True)
        ]
        buffers: list[Any] = [None] * self._num_slots
        results = []
        for slot, view in zip(self._output_slots, self._output_views, strict=True):
            if buffers[slot] is None:
                buffers[slot] = empty_tensor(view.shape, view.dtype)
                results.append(buffers[slot])
            else:
                results.append(view_as(buffers[slot], view.shape, view.dtype))
        return slots + buffers, results


def _find_functions(plan: LanePlan, module: Any) -> dict[tuple[str, str], Any]:
    """Return the function of each (kind, name) that the steps call."""
    functions: dict[tuple[str, str], Any] = {}
    for index, step in enumerate(plan.program.steps):
        key = (step.kind, step.function)
        if key in functions or step.kind not in (*COMPILED, "external"):
            continue
        if plan.places.feeder(plan.leader(index)) is not None:
            continue
        if step.kind in COMPILED:
            functions[key] = module.get_function(step.function)
        else:
            functions[key] = tvm_ffi.get_global_func(step.function, allow_missing=True)
        if functions[key] is None:
            raise UnsupportedError(f"Packed function {step.function!r} is not registered.")
    return functions


def _is_read_by_kernels(program: LaneProgram, tensor: int) -> bool:
    """Return whether an argument is more than copied, so that its memory has to be aligned."""
    readers = program.readers.get(program.tensors[tensor].buffer, ())
    is_result = any(program.tensors[t].buffer == program.tensors[tensor].buffer for t in program.outputs)
    return is_result or any(program.steps[step].kind not in ("copy", "stage") for step in readers)


def _nest(structure: Any, results: list[Any]) -> Any:
    if isinstance(structure, list):
        return tuple(_nest(item, results) for item in structure)
    return results[structure]
