"""Keep out implementations of a kernel that compute other numbers, or are far too slow. [TVM]"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from ..._tvm import tvm
from ...errors import NoCodeError, cause_of
from ...kernels import pack_weight, packed_weights
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
from .check_on_gpu import gpu_fault
from .kernel_costs import Implementation

# One that exceeds what the rules' kernel was measured to take by this factor in its first calls is
# measured no further; nor one that exceeds that, and what it takes in the same calls, by a smaller one.
_GIVE_UP = 3.0
_LAG = 1.25
# About so many calls are made, but no more than fit into this time.
_CALLS, _MOST_NS = 4, 20_000_000


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


def check_candidates(
    candidates: Sequence[Implementation], rules: Sequence[Implementation], records: RecordStore
) -> None:
    """Check candidates of one device beside the rules' kernels, all in one library where TVM builds all.

    Each is checked as `check_candidate` says.
    """
    pairs = [(one, rule) for one, rule in zip(candidates, rules, strict=True) if not one.record(records)]
    if not pairs or not pairs[0][0].device.is_cpu:
        for one, rule in pairs:
            check_candidate(one, rule, records)
        return
    functions = {}
    for number, (one, rule) in enumerate(pairs):
        functions[f"candidate{number}"] = one.function
        functions[f"reference{number}"] = rule.function
    try:
        module = load_for_lanes(functions)
    except NoCodeError:  # which is at fault shows when each is built alone
        for one, rule in pairs:
            check_candidate(one, rule, records)
        return
    for number, (one, rule) in enumerate(pairs):
        loaded = (module.get_function(f"{name}{number}") for name in ("reference", "candidate"))
        _record(one, _compare(one, rule, *loaded), records)


def check_candidate(candidate: Implementation, rule: Implementation, records: RecordStore) -> None:
    """Put on record, so that nobody measures it, a candidate that is wrong or far too slow.

    Nothing is done where it is on record already. One that TVM refuses, or that computes other numbers
    than the rules' kernel, is recorded without samples, and a warning tells of it.

    Raises
    ------
    UnsupportedError
        If this machine cannot build kernels; nothing is recorded.
    """
    if candidate.record(records) is not None:
        return
    if not candidate.device.is_cpu:
        _record(candidate, _Verdict(wrong=gpu_fault(candidate, rule)), records)
        return
    sound = {"reference": rule.function}
    try:
        module = load_for_lanes({**sound, "candidate": candidate.function})
    except NoCodeError as error:
        load_for_lanes(sound)  # if this fails too, it is not the candidate's fault
        _record(candidate, _Verdict((), cause_of(error)), records)
        return
    loaded = (module.get_function(name) for name in ("reference", "candidate"))
    _record(candidate, _compare(candidate, rule, *loaded), records)


class _Verdict(NamedTuple):
    """The times of a candidate that is far too slow, or what is wrong with it; neither of a good one."""

    samples_ns: tuple[int, ...] = ()
    wrong: str = ""


def _record(candidate: Implementation, verdict: _Verdict, records: RecordStore) -> None:
    kernel, device = candidate.kernel, candidate.device
    if verdict.wrong:
        warn(
            f"The {candidate.candidate.origin} candidate of kernel {kernel.id} on {device.name} is "
            f"dropped: {verdict.wrong}."
        )
    elif not verdict.samples_ns:
        return
    shapes = shape_texts(kernel.as_implemented(candidate.candidate.function))
    where, version = class_of(device), str(tvm.__version__)
    made = Record(candidate.key, where, version, verdict.samples_ns, host_load(), shapes=shapes)
    records.add(made)


def _compare(candidate: Implementation, rule: Implementation, reference: Any, function: Any) -> _Verdict:
    """Return what is to be said of a candidate after some calls of it and of the rules' kernel.

    Of a kernel that may go several ways all are tried, and the times are those of the slowest. Both have
    the same operands, packed for the one that takes them so, which are then not compared.
    """
    host, device = runtime_device("cpu:0"), candidate.device
    implemented = rule.candidate.function, candidate.candidate.function
    expected, found = (
        [
            _call(loaded, _packed(operands, own), device, rule.time_ns)
            for operands in draws_of(candidate.kernel, host)
        ]
        for loaded, own in zip((reference, function), implemented, strict=True)
    )
    here, there = map(packed_weights, implemented)
    apart = [at for at in here | there if here.get(at) != there.get(at)]
    if not all(
        agree(ours.but(apart), right.but(apart)) for ours, right in zip(found, expected, strict=True)
    ):
        return _Verdict(wrong="it computes other numbers than our rule's")
    slowest, usual = (max((one.samples_ns for one in called), key=min) for called in (found, expected))
    least = _LAG * max(rule.time_ns, min(usual))
    is_far_off = min(slowest) > min(least, _GIVE_UP * rule.time_ns)
    return _Verdict(slowest) if is_far_off else _Verdict()


def _packed(operands: list[Any], function: Any) -> list[Any]:
    """Return operands as a PrimFunc takes them."""
    taken = list(operands)
    for position, packing in packed_weights(function).items():
        taken[position] = tvm.runtime.tensor(pack_weight(operands[position].numpy(), packing))
    return taken


class _Called(NamedTuple):
    """How long single calls took, and what all operands hold then."""

    samples_ns: tuple[int, ...]
    results: list[Any]

    def but(self, positions: Collection[int]) -> list[Any]:
        """What the operands hold but for some."""
        return [result for number, result in enumerate(self.results) if number not in positions]


def _call(function: Any, operands: list[Any], device: Device, expected_ns: int) -> _Called:
    samples = time_in_lane(
        function, operands, device, min_ns=max(1, min(_CALLS * expected_ns, _MOST_NS))
    )
    return _Called(samples, [operand.numpy() for operand in operands])
