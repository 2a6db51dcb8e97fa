"""Keep out implementations of a kernel that compute other numbers, or are far too slow. [TVM]"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from ..._tvm import tvm
from ...errors import NoCodeError, cause_of
from ...frontend.extract import Kernel
from ...kernels import PACKINGS, packed_weights
from ...kernels.code_cache import trim_cache
from ...notice import warn
from ...platform import Device
from ...platform.targets import device_target, runtime_device
from ...runtime.kernels import kernel_object
from ...runtime.threads import map_in_threads
from ..measure.kernel_timing import draws_of, shape_texts
from ..measure.lane_timing import load_for_lanes, time_in_lane
from ..measure.sampling import host_load
from ..records.classes import class_of
from ..records.store import Record, RecordStore
from .agreement import agree
from .kernel_costs import Implementation

# One that exceeds the rules' kernel by this factor in its first calls is measured no further.
_GIVE_UP = 3.0


def compile_ahead(candidates: Sequence[Implementation], records: RecordStore) -> None:
    """Compile candidates that are not on record on all cores; their code is kept (`kernel_object`).

    One that TVM refuses is left for `check_candidate` to find.

    Raises
    ------
    UnsupportedError
        If this machine cannot build kernels.
    """

    def compile_one(candidate: Implementation) -> None:
        target = device_target(candidate.device)
        with suppress(NoCodeError):
            kernel_object(candidate.candidate.function.with_attr("target", target))

    wanted = [one for one in candidates if one.record(records) is None]
    map_in_threads(compile_one, wanted)
    if wanted:
        trim_cache()


def check_candidate(candidate: Implementation, rule: Implementation, records: RecordStore) -> None:
    """Put on record, so that nobody measures it, a candidate that is wrong or far too slow.

    Nothing is done where it is on record already. One that TVM refuses, or that computes other numbers
    than the rules' kernel, is recorded without samples, and a warning tells of it.

    Raises
    ------
    UnsupportedError
        If this machine cannot build kernels; nothing is recorded.
    """
    kernel, device = candidate.kernel, candidate.device
    if candidate.record(records) is not None:
        return
    function, reference = candidate.candidate.function, rule.candidate.function
    samples, wrong = _try(kernel, function, reference, device)
    if wrong:
        warn(
            f"The {candidate.candidate.origin} candidate of kernel {kernel.id} on {device.name} is "
            f"dropped: {wrong}."
        )
    elif min(samples) <= _GIVE_UP * rule.time_ns:
        return
    shapes = shape_texts(kernel.as_implemented(function))
    where, version = class_of(device), str(tvm.__version__)
    records.add(Record(candidate.key, where, version, samples, host_load(), shapes=shapes))


def _try(kernel: Kernel, function: Any, reference: Any, device: Device) -> tuple[tuple[int, ...], str]:
    """Return the times of its first calls and "", or none and what is wrong with it.

    Of a kernel that may go several ways all are tried, and the times are those of the slowest. Both have
    the same operands, packed for the one that takes them so, which are then not compared.
    """
    host = runtime_device("cpu:0")
    target = device_target(device)
    sound = {"reference": reference.with_attr("target", target)}
    try:
        module = load_for_lanes({**sound, "candidate": function.with_attr("target", target)})
    except NoCodeError as error:
        load_for_lanes(sound)  # if this fails too, it is not the candidate's fault
        return (), cause_of(error)
    expected, found = (
        [
            _call(module.get_function(name), _packed(operands, implemented), device)
            for operands in draws_of(kernel, host)
        ]
        for name, implemented in (("reference", reference), ("candidate", function))
    )
    here, there = packed_weights(reference), packed_weights(function)
    apart = [at for at in here | there if here.get(at) != there.get(at)]
    if not all(
        agree(ours.but(apart), right.but(apart)) for ours, right in zip(found, expected, strict=True)
    ):
        return (), "it computes other numbers than our rule's"
    return max((one.samples_ns for one in found), key=min), ""


def _packed(operands: list[Any], function: Any) -> list[Any]:
    """Return operands as a PrimFunc takes them."""
    taken = list(operands)
    for position, packing in packed_weights(function).items():
        taken[position] = tvm.runtime.tensor(PACKINGS[packing](operands[position].numpy()))
    return taken


class _Called(NamedTuple):
    """How long single calls took, and what all operands hold then."""

    samples_ns: tuple[int, ...]
    results: list[Any]

    def but(self, positions: Collection[int]) -> list[Any]:
        """What the operands hold but for some."""
        return [result for number, result in enumerate(self.results) if number not in positions]


def _call(function: Any, operands: list[Any], device: Device) -> _Called:
    samples = time_in_lane(function, operands, device, min_ns=1)
    return _Called(samples, [operand.numpy() for operand in operands])
