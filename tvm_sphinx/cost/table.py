"""The cost table: what each task takes on each device, and each copy between two devices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import ProblemError
from ..platform import Platform
from ..scheduling.graph import TaskGraph
from ..scheduling.problem import CANNOT_RUN, UNLIMITED, Int64Array, SchedulingProblem
from ..wording import counted

# Tensors begin at multiples of this in a GPU's memory.
_MOST_BETWEEN_TENSORS = 256


@dataclass(frozen=True, eq=False, repr=False)
class CostTable:
    """Costs of a task graph (N tasks) on a platform (D devices).

    Parameters
    ----------
    exec_ns : (N, D) int64
        Median execution time; -1 where the device cannot run the task.
    spread_ns : (N, D) int64
        Half the interquartile range of what was measured, or the spread of a prediction.
    measured : (N, D) bool
        Whether the time was measured (on an equal device) or predicted.
    latency_ns : (D, D) int64
        Fixed part of a copy; 0 on the diagonal.
    bandwidth_bytes_per_s : (D, D) float64
        Bytes over what a copy takes beyond its latency; where memory is shared, over what it takes to
        fetch them from another core's cache.
    graph_fingerprint
        The task graph that the rows belong to.
    slowdown : (N, D) float64
        How many times longer a task is expected to take while other devices work; 1 by default.
    link_error : (D, D) float64
        Root mean square of the relative errors of the fit of a link; 0 by default.
    most_bytes : (D, D) float64
        Bytes of a tensor that are moved at most; infinite by default.
    num_estimated_links
        Kinds of link that nobody measured.
    staging_bytes_per_s : (D,) float64
        What is copied of a caller's memory on its way to a device, or from there; infinite by default.
    left_out : (N, D) bool
        Where nothing is to run, since it was not measured and cannot make a schedule much shorter, by
        the time that is predicted; none by default.
    weight_bytes : (N, D) int64
        What the weights of a task take on each device, in the layouts of its kernels; by default what
        they take as the model has them.
    turn_ns : (N, D, D) int64
        What it takes beside the copy to turn the result of a task into the layout that it has on another
        device; by default nothing.
    turned_bytes : (N,) int64
        Of its result that is turned; by default none.

    Raises
    ------
    ProblemError
        If a shape does not match or a time is out of range.
    """

    exec_ns: Int64Array
    spread_ns: Int64Array
    measured: npt.NDArray[np.bool_]
    latency_ns: Int64Array
    bandwidth_bytes_per_s: npt.NDArray[np.float64]
    graph_fingerprint: str
    slowdown: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    link_error: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    most_bytes: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    num_estimated_links: int = 0
    staging_bytes_per_s: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    left_out: npt.NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, dtype=np.bool_))
    weight_bytes: Int64Array | None = None
    turn_ns: Int64Array | None = None
    turned_bytes: Int64Array | None = None

    def __post_init__(self) -> None:
        num_devices = self.exec_ns.shape[1]
        if not self.slowdown.size:
            object.__setattr__(self, "slowdown", np.ones(self.exec_ns.shape))
        if not self.left_out.size:
            object.__setattr__(self, "left_out", np.zeros(self.exec_ns.shape, dtype=np.bool_))
        if not self.link_error.size:
            object.__setattr__(self, "link_error", np.zeros((num_devices, num_devices)))
        if not self.most_bytes.size:
            object.__setattr__(self, "most_bytes", np.full((num_devices, num_devices), math.inf))
        if not self.staging_bytes_per_s.size:
            object.__setattr__(self, "staging_bytes_per_s", np.full(num_devices, math.inf))
        for name in ("spread_ns", "measured", "slowdown", "left_out", "weight_bytes"):
            if name == "weight_bytes" and self.weight_bytes is None:
                continue
            if getattr(self, name).shape != self.exec_ns.shape:
                raise ProblemError(
                    f"Expected {name} of shape {self.exec_ns.shape}; got {getattr(self, name).shape}."
                )
        for name in ("latency_ns", "bandwidth_bytes_per_s", "link_error", "most_bytes"):
            if getattr(self, name).shape != (num_devices, num_devices):
                raise ProblemError(
                    f"Expected {name} of shape {(num_devices, num_devices)}; "
                    f"got {getattr(self, name).shape}."
                )
        if self.staging_bytes_per_s.shape != (num_devices,):
            raise ProblemError(
                f"Expected staging_bytes_per_s of shape {(num_devices,)}; "
                f"got {self.staging_bytes_per_s.shape}."
            )
        for name, shape in (
            ("turn_ns", (*self.exec_ns.shape, num_devices)),
            ("turned_bytes", self.exec_ns.shape[:1]),
        ):
            value = getattr(self, name)
            if value is not None and (value.shape != shape or value.min(initial=0) < 0):
                raise ProblemError(f"Expected {name} >= 0 of shape {shape}; got shape {value.shape}.")
        if self.exec_ns.min(initial=0) < -1 or self.latency_ns.min(initial=0) < 0:
            raise ProblemError("Expected times >= 0, or -1 for a device that cannot run a task.")
        if not (self.bandwidth_bytes_per_s > 0).all():
            raise ProblemError("Expected bandwidth_bytes_per_s > 0.")
        if not ((self.slowdown >= 1) & (self.slowdown < math.inf)).all():
            raise ProblemError(f"Expected slowdown >= 1; got {self.slowdown.min(initial=1)}.")

    def __repr__(self) -> str:
        tasks, devices = map(counted, self.exec_ns.shape, ("task", "device"))
        share = float(self.measured.mean()) if self.measured.size else 1.0
        return f"<CostTable of {tasks} on {devices}: {share:.0%} measured>"

    @property
    def measured_share(self) -> float:
        """Share of the times that were measured; 1 where there are none."""
        return float(self.measured.mean()) if self.measured.size else 1.0

    @property
    def loaded_ns(self) -> Int64Array:
        """Execution times beside devices that work, shape (N, D), int64 ns; -1 as in ``exec_ns``."""
        loaded = np.ceil(self.exec_ns * self.slowdown).astype(np.int64)
        return np.where(self.exec_ns < 0, self.exec_ns, loaded)

    def arrival_ns(self, num_bytes: Sequence[int] | Int64Array, host: int) -> Int64Array:
        """Return when arguments of these sizes are on each device, shape (len(num_bytes), D), int64 ns.

        They are staged in pieces, beside the copy: the slower of the two tells.
        """
        sizes = np.asarray(num_bytes, dtype=np.float64)[:, None]
        staged = np.ceil(sizes * 1e9 / self.staging_bytes_per_s).astype(np.int64)
        times: Int64Array = np.maximum(self.copy_ns(num_bytes)[:, host], self.latency_ns[host] + staged)
        return np.where(sizes > 0, times, 0)

    def return_ns(self, num_bytes: Sequence[int] | Int64Array, host: int) -> Int64Array:
        """Return what it takes from each device until results of these sizes are the caller's.

        Shape (len(num_bytes), D), int64 ns; they are staged after the copy.
        """
        sizes = np.asarray(num_bytes, dtype=np.float64)[:, None]
        staged = np.ceil(sizes * 1e9 / self.staging_bytes_per_s).astype(np.int64)
        return np.where(sizes > 0, self.copy_ns(num_bytes)[:, :, host] + staged, 0)

    def copy_ns(self, num_bytes: Sequence[int] | Int64Array) -> Int64Array:
        """Return the time of copies of these sizes, shape (len(num_bytes), D, D), int64 ns."""
        sizes = np.asarray(num_bytes, dtype=np.float64)[:, None, None]
        moved_bytes = np.minimum(sizes, self.most_bytes)
        moved = np.ceil(moved_bytes * 1e9 / self.bandwidth_bytes_per_s).astype(np.int64)
        times: Int64Array = self.latency_ns[None] + moved
        diagonal = np.arange(times.shape[1])
        times[:, diagonal, diagonal] = 0
        return times


def build_problem(
    graph: TaskGraph,
    platform: Platform,
    costs: CostTable,
    *,
    concurrent: bool = True,
    loaded: bool = True,
) -> SchedulingProblem:
    """Return the scheduling problem of a graph on a platform.

    Model inputs start on the host device and model outputs end there: their copies become release and
    delivery times. Every CPU device occupies its cores; a device of another kind occupies itself.

    Parameters
    ----------
    concurrent
        Whether the devices work at the same time. If not, all CPU devices take turns, as they do in the
        stock Relax VM, which issues their kernels from one thread.
    loaded
        Whether tasks take as long as beside devices that work. If not, or if devices take turns, they
        take as long as alone: for a schedule that uses one device only.

    Raises
    ------
    ProblemError
        If the costs belong to another graph, or a task can run nowhere; the message names it.
    """
    if costs.graph_fingerprint != graph.fingerprint or costs.exec_ns.shape[0] != graph.num_tasks:
        raise ProblemError(
            f"Expected costs of task graph {graph.fingerprint}; got costs of {costs.graph_fingerprint}."
        )
    if costs.exec_ns.shape[1] != len(platform.devices):
        raise ProblemError(
            f"Expected costs for {len(platform.devices)} devices; got {costs.exec_ns.shape[1]}."
        )
    _check_runnable(graph, platform, costs)
    host = platform.host_index
    in_bytes = np.array([graph.input_bytes(task) for task in range(graph.num_tasks)], dtype=np.int64)
    out_bytes = np.array([graph.returned_bytes(task) for task in range(graph.num_tasks)], dtype=np.int64)
    weight_bytes = costs.weight_bytes
    if weight_bytes is None:
        weight_bytes = np.array([task.weight_bytes for task in graph.tasks], dtype=np.int64)
    copy_class, copy_ns = _copies(graph, costs)
    output_bytes = np.array([sum(task.output_bytes) for task in graph.tasks], dtype=np.int64)
    if costs.turned_bytes is not None:
        output_bytes = output_bytes + costs.turned_bytes
    exec_ns = costs.loaded_ns if concurrent and loaded else costs.exec_ns
    return SchedulingProblem(
        name=graph.name,
        devices=tuple(device.name for device in platform.devices),
        device_cores=_exclusive_cores(platform, concurrent),
        exec_ns=np.where(costs.left_out, CANNOT_RUN, exec_ns),
        edges=np.array([(edge.src, edge.dst) for edge in graph.edges], dtype=np.int64).reshape(-1, 2),
        copy_class=copy_class,
        copy_ns=copy_ns,
        release_ns=costs.arrival_ns(in_bytes, host),
        delivery_ns=costs.return_ns(out_bytes, host),
        memory_bytes=_capacities(graph, platform, output_bytes),
        weight_bytes=weight_bytes,
        output_bytes=output_bytes,
    )


def _copies(graph: TaskGraph, costs: CostTable) -> tuple[Int64Array, Int64Array]:
    """Return the class of copy of each edge, shape (E,), and what each takes, shape (C, D, D), int64 ns.

    Edges are of one class that carry the same bytes and turn them alike.
    """
    sizes = np.array([edge.bytes for edge in graph.edges], dtype=np.int64)
    if costs.turn_ns is None or not sizes.size:
        kinds, copy_class = np.unique(sizes, return_inverse=True)
        return copy_class, costs.copy_ns(kinds)
    turns, turn_class = np.unique(costs.turn_ns, axis=0, return_inverse=True)
    turn_of_edge = turn_class.reshape(-1)[[edge.src for edge in graph.edges]]
    classes, copy_class = np.unique(np.stack([sizes, turn_of_edge], axis=1), axis=0, return_inverse=True)
    return copy_class.reshape(-1), costs.copy_ns(classes[:, 0]) + turns[classes[:, 1]]


def _capacities(graph: TaskGraph, platform: Platform, output_bytes: Int64Array) -> Int64Array:
    """Return what each device may hold of weights and tensors between tasks, shape (D,), int64.

    A schedule counts what each device holds by itself, and the streams of a GPU share one memory. So
    where not all of a model fits into that, the first of them gets it, and the others nothing. Model
    inputs and what lies between tensors, which a schedule does not count, are taken off.
    """
    inputs = sum(entry.bytes for entry in graph.inputs)
    around = inputs + _MOST_BETWEEN_TENSORS * 2 * graph.num_tasks
    whole = around + sum(task.weight_bytes for task in graph.tasks) + int(output_bytes.sum())
    seen: set[str] = set()
    capacities = []
    for device in platform.devices:
        limit = device.memory_bytes
        if limit is None:
            capacities.append(UNLIMITED)
        elif device.is_cpu or whole <= limit:
            capacities.append(limit)
        else:
            capacities.append(0 if device.memory_space in seen else max(0, limit - around))
            seen.add(device.memory_space)
    return np.array(capacities, dtype=np.int64)


def _check_runnable(graph: TaskGraph, platform: Platform, costs: CostTable) -> None:
    for task in np.flatnonzero((costs.exec_ns < 0).all(axis=1)).tolist():
        kinds = "+".join(graph.tasks[task].op_kinds)
        names = ", ".join(device.name for device in platform.devices)
        raise ProblemError(
            f"No device of the platform can run task {graph.tasks[task].name!r} ({kinds}); "
            f"devices: {names}."
        )


def _exclusive_cores(platform: Platform, concurrent: bool) -> tuple[tuple[int, ...], ...]:
    """Return the cores of each device; a GPU's streams, and other devices, get a number of their own.

    What streams of one GPU take from each other is in the costs (`tvm_sphinx.cost.measure.slowdown`).
    """
    beyond = 1 + max((core for device in platform.devices for core in device.cores), default=-1)
    own: dict[str, int] = {}
    cores = []
    for device in platform.devices:
        if device.is_cpu:
            cores.append(device.cores if concurrent else (0,))
        else:
            key = device.name if device.runtime.startswith("cuda:") else device.runtime
            cores.append((beyond + own.setdefault(key, len(own)),))
    return tuple(cores)


class LinkFit(NamedTuple):
    """Latency and bandwidth (bytes/s) of a link, and the root mean square of their relative error."""

    latency_ns: int
    bandwidth_bytes_per_s: float
    error: float


def fit_link(num_bytes: Sequence[int], times_ns: Sequence[float]) -> LinkFit:
    """Fit latency + bytes / bandwidth to measured copies.

    Least squares on the relative error, so that small copies count as much as large ones. The latency
    is at least 0, and the bandwidth infinite where the time does not grow with the size.

    Raises
    ------
    ProblemError
        If there are fewer than two sizes or a time is not positive.
    """
    if len(set(num_bytes)) < 2 or min(times_ns, default=0) <= 0:
        raise ProblemError("Expected copies of at least two sizes with times > 0.")
    weights = 1.0 / np.asarray(times_ns, dtype=np.float64)
    columns = np.stack([np.ones(len(num_bytes)), np.asarray(num_bytes, dtype=np.float64)], axis=1)
    ones = np.ones(len(num_bytes))
    (latency, per_byte), *_ = np.linalg.lstsq(columns * weights[:, None], ones, rcond=None)
    if per_byte <= 0:
        latency, per_byte = float(np.median(times_ns)), 0.0
    elif latency < 0:
        scaled = columns[:, 1] * weights
        latency, per_byte = 0.0, float(scaled @ ones / (scaled @ scaled))
    residuals = (latency + per_byte * columns[:, 1]) * weights - 1.0
    error = float(np.sqrt(np.mean(residuals**2)))
    return LinkFit(round(float(latency)), 1e9 / per_byte if per_byte > 0 else math.inf, error)
