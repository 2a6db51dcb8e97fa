"""Measure kernels on a device: on its own cores, with as many threads as it has cores. [TVM]

What is on record is not measured again; each new measurement is on record before the next one starts.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..._tvm import tvm, tvm_ffi
from ...errors import UnsupportedError
from ...frontend.extract import Kernel
from ...kernels.implement import for_target, implement_kernel, pass_options
from ...notice import warn
from ...platform import Device
from ...platform.targets import device_target, is_at_hand
from ...progress import Progress
from ..records.classes import class_of
from ..records.kernel_archive import KernelArchive
from ..records.store import DeviceClass, Record, RecordStore
from .kernel_timing import (
    NO_SAMPLES,
    Bench,
    LocalBench,
    MeasureConfig,
    build_kernels,
    kernel_symbol,
    shape_texts,
)
from .precision import Demand, first_look
from .remote import RemoteBench
from .rotation import MOST_TOGETHER_BYTES, Turn, sample_in_rotation
from .sampling import Goal, Samples, is_narrow, stolen_share

__all__ = ["MeasureConfig", "implement_for", "implementation_id", "measure_kernels"]

# A median known worse than this, or most samples of which were disturbed, is measured a second time.
_WIDE = 0.05
_DISTURBED = 0.5
# Kernels that are timed in turn, at most; fewer than the least are timed one after the other.
_MOST_IN_TURN, _LEAST_IN_TURN = 64, 3
# The second time takes no more than this share of the first.
_RETRY_SHARE = 0.25
# More time than this that a hypervisor gave to others, or kernels known badly, make a warning.
_STOLEN = 0.02
_WIDE_SHARE = 0.1


def measure_kernels(
    kernels: Sequence[Kernel],
    device: Device,
    records: RecordStore,
    config: MeasureConfig,
    stage: str = "measure",
    progress: Progress | None = None,
    *,
    functions: Sequence[Any] | None = None,
    end_s: float = math.inf,
    again: bool = True,
    demand: Demand | None = None,
) -> list[Record]:
    """Return a record for each kernel on a device; those that the store lacks are measured.

    On a CPU, weights are measured as far away as ``Kernel.reuse_bytes`` puts them. ``functions`` are
    the PrimFuncs to measure for the kernels, with the device's target; by default what the schedule
    rules make of them (`implement_for`). No kernel is begun once ``time.monotonic()`` has reached
    ``end_s``: those without a record are then left out of what is returned. With a ``demand`` of a model
    all have a short look first, and are then timed as well as they matter. Those that are known badly
    are measured a second time if ``again``.

    A kernel that TVM has no code for on the device is recorded without samples, with a warning.

    Raises
    ------
    SphinxError
        If the device cannot be reached, or this machine cannot build kernels; what was measured before
        is on record, and nothing of the others.
    """
    implemented = functions
    if implemented is None:
        implemented = [implement_for(kernel, device) for kernel in kernels]
    version = str(tvm.__version__)
    where = class_of(device)
    keys = [implementation_id(*pair, device) for pair in zip(kernels, implemented, strict=True)]
    missing = [i for i, key in enumerate(keys) if records.get(key, str(where), version) is None]
    if missing and time.monotonic() < end_s:
        for reason, count in records.foreign([keys[i] for i in missing], where, version).items():
            warn(f"{count} of {len(keys)} kernels were measured {reason}; these times are not used.")
        bench = _open_bench(device, config, f"{len(missing)} of {len(kernels)} kernels")
        by_key = {keys[i]: implemented[i] for i in missing}
        symbols = {kernel_symbol(key): function for key, function in by_key.items()}
        missing_kernels = {
            keys[i]: kernels[i].on(device).as_implemented(implemented[i]) for i in missing
        }
        built = build_kernels(bench, symbols, device)
        _warn_of_refused(built.refused, device)
        session = _Session(bench, built.modules, config.goal, demand)
        archive = KernelArchive.beside(records)
        known = len(kernels) - len(missing)
        report = progress or (lambda *_: None)
        stage = f"{stage}, {known} on record" if known else stage
        report(stage, known, len(kernels))
        for done, key in enumerate(session.look(missing_kernels, end_s)):
            archive.add(key, by_key[key], missing_kernels[key])
            records.add(session.record(key, where))
            if known + done + 1 < len(kernels):  # the last one is done when all are timed closely
                report(stage, known + done + 1, len(kernels))
        second = session.time_again(end_s) if again else ()
        for key in itertools.chain(session.time_closer(end_s), second):
            records.add(session.record(key, where))
        session.warn_if_busy(device)
        report(stage, len(kernels), len(kernels))
    elif progress and not missing:
        progress(f"{stage}, all on record", len(kernels), len(kernels))
    found = [records.get(key, str(where), version) for key in keys]
    return [record for record in found if record is not None]


def _open_bench(device: Device, config: MeasureConfig, wanted: str) -> Bench:
    if device.rpc_key is not None:
        return RemoteBench(device, config)
    if not is_at_hand(device):
        raise UnsupportedError(
            f"Device {device.name!r} ({device.runtime}) is not at hand, and {wanted} are not on record "
            f"for it. Give peak_gflop_per_s and peak_gb_per_s in the platform file to have its costs "
            f"estimated."
        )
    return LocalBench(device, config)


def _warn_of_refused(refused: dict[str, str], device: Device) -> None:
    """Warn of kernels that TVM has no code for, with the cause of the first of them."""
    if refused:
        symbol, cause = next(iter(refused.items()))
        warn(
            f"TVM refuses {len(refused)} kernels for device {device.name!r}, which go on record as "
            f"unable to run there; the first is {symbol}: {cause}"
        )


class _Session:
    """Times kernels one after the other, and those again that another load disturbed."""

    def __init__(
        self, bench: Bench, modules: dict[str, Any], goal: Goal, demand: Demand | None = None
    ) -> None:
        self.bench, self.modules, self.demand = bench, modules, demand
        self.goal = goal
        self.timed: dict[str, tuple[Kernel, Samples]] = {}
        self._begin_s = time.monotonic()
        self._ticks = bench.host.ticks()

    def look(self, kernels: Mapping[str, Kernel], end_s: float = math.inf) -> Iterator[str]:
        """Time kernels by key, if there is a demand at a first look; yields each one that was timed.

        None is begun once ``time.monotonic()`` has reached ``end_s``.
        """
        goal = self.goal if self.demand is None else first_look(self.goal)
        yield from self._time(dict.fromkeys(kernels, goal), kernels, end_s)

    def _time(
        self, goals: Mapping[str, Goal], kernels: Mapping[str, Kernel], end_s: float
    ) -> Iterator[str]:
        """Time kernels until their goals are met, those with cold weights in turn; yields their keys."""
        for group in self._groups(goals, kernels):
            if time.monotonic() >= end_s:
                return
            if len(group) < _LEAST_IN_TURN:
                for key in group:
                    if time.monotonic() < end_s:
                        self.timed[key] = kernels[key], self._alone(key, kernels[key], goals[key])
                        yield key
                continue
            turns = [turn for turn in group.values() if turn is not None]
            found = sample_in_rotation(turns, switches=self.bench.host.switches, end_s=end_s)
            for key, samples in zip(group, found, strict=True):
                self.timed[key] = kernels[key], samples
                yield key

    def _groups(
        self, goals: Mapping[str, Goal], kernels: Mapping[str, Kernel]
    ) -> Iterator[dict[str, Turn | None]]:
        """Yield kernels that are timed together; one that is timed by itself comes alone."""
        group: dict[str, Turn | None] = {}
        for key, goal in goals.items():
            module = self.modules.get(kernel_symbol(key))
            turn = None
            if self.demand is not None and module is not None:
                turn = self.bench.turn(module, kernel_symbol(key), kernels[key], goal)
            if turn is None:
                yield {key: None}
                continue
            size = sum(one.bytes for one in group.values() if one)
            if group and (len(group) >= _MOST_IN_TURN or size + turn.bytes > MOST_TOGETHER_BYTES):
                yield group
                group = {}
            group[key] = turn
        if group:
            yield group

    def _alone(self, key: str, kernel: Kernel, goal: Goal) -> Samples:
        """Time a kernel by itself; without samples if it cannot run."""
        symbol = kernel_symbol(key)
        if not kernel.is_external and symbol not in self.modules:
            return NO_SAMPLES
        return self.bench.time(self.modules.get(symbol), symbol, kernel, goal)

    def record(self, key: str, where: DeviceClass) -> Record:
        """Return the record of what was timed last of a kernel, with its machine's load if known."""
        kernel, samples = self.timed[key]
        load, shapes = self.bench.host.load(), shape_texts(kernel)
        made = Record(key, where, str(tvm.__version__), samples.ns, shapes=shapes)
        return made if load is None else replace(made, host_load=load)

    def time_closer(self, end_s: float = math.inf) -> Iterator[str]:
        """Time kernels closer of which a first look tells too little, what matters most first.

        Yields those that were timed.
        """
        if self.demand is None:
            return
        demand = self.demand.of_total({k.id: s.median_ns for k, s in self.timed.values()})
        self.demand = demand

        def matters(item: tuple[str, tuple[Kernel, Samples]]) -> float:
            kernel, samples = item[1]
            return demand.spent_ns(kernel.id, samples.median_ns)

        goals, kernels = {}, {}
        for key, (kernel, look) in sorted(self.timed.items(), key=matters, reverse=True):
            if look.ns and not is_narrow(look.ns, self._goal_of(key)):
                goals[key], kernels[key] = self._goal_of(key), kernel
        yield from self._time(goals, kernels, end_s)

    def time_again(self, end_s: float = math.inf) -> Iterator[str]:
        """Time kernels that are known badly again, the worst first, while time allows.

        Yields those that are known better then.
        """
        now_s = time.monotonic()
        end_s = min(end_s, now_s + _RETRY_SHARE * (now_s - self._begin_s))
        first = sorted(self.timed.items(), key=lambda item: -_doubt(item[1][1]))
        doubtful = {key: known for key, known in first if self._is_doubtful(key)}
        goals = {key: self._goal_of(key) for key in doubtful}
        kernels = {key: kernel for key, (kernel, _) in doubtful.items()}
        for key in self._time(goals, kernels, end_s):
            if _doubt(self.timed[key][1]) < _doubt(doubtful[key][1]):
                yield key
            else:
                self.timed[key] = doubtful[key]

    def _goal_of(self, key: str) -> Goal:
        """Return when a kernel that was timed is known well enough."""
        if self.demand is None:
            return self.goal
        kernel, samples = self.timed[key]
        least = self.goal.half_width
        return replace(self.goal, half_width=self.demand.half_width(kernel.id, samples.median_ns, least))

    def _is_doubtful(self, key: str) -> bool:
        _, samples = self.timed[key]
        if not samples.ns:
            return False
        # A slow kernel has few samples, and no interval; then their spread has to do.
        enough = samples.ns if len(samples.ns) >= 6 else samples.ns * 6
        wide = replace(self.goal, half_width=max(_WIDE, self._goal_of(key).half_width))
        return not is_narrow(enough, wide) or samples.disturbed > _DISTURBED

    def warn_if_busy(self, device: Device) -> None:
        """Warn where the machine did too much else to tell what kernels take."""
        wide = [key for key in self.timed if self._is_doubtful(key)]
        stolen = stolen_share(self._ticks, self.bench.host.ticks())
        load = self.bench.host.load()
        shown = "unknown" if load is None else f"{load:.1f}"
        if len(wide) <= _WIDE_SHARE * len(self.timed) and stolen <= _STOLEN:
            return
        signs = [f"load {shown}", f"{stolen:.1%} of the time was taken by the hypervisor"]
        if wide:
            medians = f"{len(wide)} of {len(self.timed)} medians"
            signs.insert(0, f"{medians} are known to no better than {_WIDE:.0%} or were disturbed")
        warn(f"The machine was busy while kernels were timed on {device.name!r}: {', '.join(signs)}.")


def _doubt(samples: Samples) -> float:
    return samples.half_width + samples.disturbed if samples.ns else 0.0


def implementation_id(kernel: Kernel, function: Any, device: Device) -> str:
    """Return the id of a kernel as implemented and as measured, for looking up its records."""
    far = f"-far{kernel.reuse_bytes >> 10}k" if device.is_cpu and kernel.reuse_bytes else ""
    if device.runtime.startswith("cuda:"):
        far = f"-in-model{kernel.reuse_bytes >> 10}k"  # other code always runs there meanwhile
    if function is None or kernel.is_external:
        return kernel.content + far
    options = pass_options()
    if options != _plain_options():
        far += f"-passes{hashlib.sha256(options.encode()).hexdigest()[:8]}"
    bare = function.without_attr("target")
    return f"{kernel.content}.{tvm_ffi.structural_hash(bare) & (2**64 - 1):016x}{far}"


@functools.cache
def _plain_options() -> str:
    """Return `pass_options` where nobody has chosen any."""
    with tvm.transform.PassContext():
        return pass_options()


def implement_for(kernel: Kernel, device: Device) -> Any:
    """Return the kernel scheduled for a device, None where it is not made for it.

    On a CPU it takes those of its weights packed that may be (`tvm_sphinx.kernels.packed_weights`), and
    images where they stand there (`tvm_sphinx.frontend.extract.Kernel.on`).
    """
    if kernel.is_external:
        return None
    target, kernel = device_target(device), kernel.on(device)
    if kernel.target_kind not in (None, str(target.kind.name)):
        return None
    return implement_kernel(for_target(kernel.function, kernel.packable, target), target)
