"""Keep out implementations of a kernel that compute other numbers, or are far too slow. [TVM]"""

from __future__ import annotations

import warnings
from typing import Any

from .._tvm import tvm
from ..errors import NoCodeError, cause_of
from ..extract import Kernel
from ..platform import Device
from ..runtime.sampling import host_load
from ..runtime.timing import load_for_lanes, time_in_lane
from ..targets import device_target, runtime_device
from .agreement import agree
from .classes import class_of
from .divisors import divisor_operands
from .kernel_timing import random_operands, shape_texts
from .measure import implementation_id
from .records import Record, RecordStore

# One that exceeds the rules' kernel by this factor in its first calls is measured no further.
_GIVE_UP = 3.0


def vet_implementation(
    kernel: Kernel,
    function: Any,
    reference: Any,
    device: Device,
    records: RecordStore,
    *,
    origin: str,
    rule_ns: int,
) -> None:
    """Put on record, so that nobody measures it, an implementation that is wrong or far too slow.

    Nothing is done where it is on record already. One that TVM refuses, or that computes other numbers,
    is recorded without samples, and a warning tells of it.

    Parameters
    ----------
    function, reference
        PrimFuncs: the new implementation, and one that is known to be right.
    origin
        Where the new one comes from, for the warning.
    rule_ns
        What the rules' kernel takes.

    Raises
    ------
    UnsupportedError
        If this machine cannot build kernels; nothing is recorded.
    """
    where, version = class_of(device), str(tvm.__version__)
    key = implementation_id(kernel, function, device)
    if records.get(key, str(where), version) is not None:
        return
    samples, wrong = _try(kernel, function, reference, device)
    if wrong:
        warnings.warn(
            f"The {origin} candidate of kernel {kernel.id} on {device.name} is dropped: {wrong}.",
            stacklevel=2,
        )
    elif min(samples) <= _GIVE_UP * rule_ns:
        return
    shapes = shape_texts(kernel)
    records.add(Record(key, where, version, samples, host_load(), shapes=shapes))


def _try(kernel: Kernel, function: Any, reference: Any, device: Device) -> tuple[tuple[int, ...], str]:
    """Return the times of its first calls and "", or none and what is wrong with it."""
    target = device_target(device)
    sound = {"reference": reference.with_attr("target", target)}
    try:
        module = load_for_lanes({**sound, "candidate": function.with_attr("target", target)})
    except NoCodeError as error:
        load_for_lanes(sound)  # if this fails too, it is not the candidate's fault
        return (), cause_of(error)
    results = []
    samples: tuple[int, ...] = ()
    for name in ("reference", "candidate"):
        operands = random_operands(
            kernel.argument_types, divisor_operands(kernel.function), runtime_device("cpu:0")
        )
        samples = time_in_lane(module.get_function(name), operands, device, min_ns=1)
        results.append([operand.numpy() for operand in operands])
    if not agree(results[1], results[0]):
        return (), "it computes other numbers than our rule's"
    return samples, ""
