"""What can be tuned: the kernels of a model on each kind of CPU device. [TVM]"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..cost.choose.costing import measure_rules
from ..cost.records.store import RecordStore
from ..errors import SphinxError, known_choices
from ..frontend.extract import Extraction, Kernel
from ..platform import Device, Platform
from ..progress import Progress
from .space import workload_module


@dataclass
class KernelTuning:
    """One kernel on one device class.

    Attributes
    ----------
    kernel, device
        What is tuned, and a device of the class.
    calls
        How often the model calls it in one inference.
    op_kinds
        Its kinds of operators.
    rule_ns
        Median time of one call under our schedule rules.
    best_ns
        The same of the fastest tuned candidate; None if there is none yet.
    trials, failed
        Candidates measured, those on record included; those of this run that failed.
    """

    kernel: Kernel
    device: Device
    calls: int
    op_kinds: tuple[str, ...]
    rule_ns: int
    module: Any
    best_ns: int | None = None
    trials: int = 0
    failed: int = 0
    exhausted: bool = False

    @property
    def now_ns(self) -> int:
        """Time of all its calls in one inference, with the faster of the two."""
        return self.calls * min(self.rule_ns, self.best_ns or self.rule_ns)

    @property
    def before_ns(self) -> int:
        """The same with our schedule rules."""
        return self.calls * self.rule_ns


def find_tunable(
    extraction: Extraction,
    platform: Platform,
    records: RecordStore,
    tasks: Sequence[str] | int | None,
    progress: Progress | None = None,
) -> list[KernelTuning]:
    """Return the kernels to tune on each CPU device class.

    Arguments and errors as in `tvm_sphinx.tune.session.tune_kernels`.
    """
    platform.check_machine()
    calls: dict[str, int] = {}
    kinds: dict[str, tuple[str, ...]] = {}
    for task in extraction.graph.tasks:
        calls[task.kernel] = calls.get(task.kernel, 0) + 1
        kinds[task.kernel] = task.op_kinds
    cpus = [device for device in platform.devices if device.is_cpu]
    modules = {
        name: workload_module(kernel.on(cpus[0]) if cpus else kernel)
        for name, kernel in extraction.kernels.items()
    }
    chosen = _select_by_name(extraction, modules, kinds, tasks)
    rules = [cost.rule for cost in measure_rules(chosen, cpus, records, progress=progress).values()]
    found = [
        KernelTuning(
            rule.kernel,
            rule.device,
            calls[rule.kernel.id],
            kinds[rule.kernel.id],
            rule.time_ns,
            modules[rule.kernel.id],
        )
        for rule in rules
        if rule.time_ns >= 0
    ]
    if isinstance(tasks, int):
        time_ns: dict[str, int] = {}
        for entry in found:
            time_ns[entry.kernel.id] = time_ns.get(entry.kernel.id, 0) + entry.before_ns
        heaviest = sorted(time_ns, key=lambda name: -time_ns[name])[:tasks]
        found = [entry for entry in found if entry.kernel.id in heaviest]
    if not found:
        raise SphinxError("Expected a kernel that can be tuned on a CPU device; the model has none.")
    return found


def _select_by_name(
    extraction: Extraction,
    modules: dict[str, Any],
    kinds: dict[str, tuple[str, ...]],
    tasks: Sequence[str] | int | None,
) -> list[Kernel]:
    if isinstance(tasks, int) and tasks < 1:
        raise SphinxError(f"Expected at least 1 task to tune; got {tasks}.")
    kernels = [kernel for kernel in extraction.kernels.values() if modules[kernel.id] is not None]
    if tasks is None or isinstance(tasks, int):
        return kernels
    known = sorted({kind for kernel in kernels for kind in kinds[kernel.id]})
    for name in tasks:
        if not any(name in kind for kind in known):
            raise SphinxError(known_choices("kind of operator", name, known))
    return [
        kernel for kernel in kernels if any(name in kind for kind in kinds[kernel.id] for name in tasks)
    ]
