"""What can implement a kernel on a device, and when a candidate beats the schedule rules' kernel. [TVM]

Candidates are the schedule rules' kernel, on a CPU TVM's default loops, and what `CandidateSource`s add:
tuned schedules for a CPU, for a GPU the libraries that were asked for
(`tvm_sphinx.cost.choose.library_candidates`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ...frontend.extract import Kernel
from ...platform import Device
from ...platform.targets import is_at_hand, runtime_device
from .default_loops import default_loops

# A candidate has to be faster than the rules' kernel by this much, which is more than their noise.
_MARGIN = 0.03


@dataclass(frozen=True)
class Candidate:
    """An implementation of a kernel.

    Parameters
    ----------
    origin
        ``"rule"``, ``"default"`` (the loops as TVM lowers them), ``"tuned"``, or what a source says,
        such as the name of a library.
    function
        The PrimFunc, which is compiled as it is, or computed by the library that it is marked for
        (`tvm_sphinx.kernels.library_of`). It has the parameters of the kernel, but may take weights
        packed, see `tvm_sphinx.kernels.packed_weights`.
    found_ns
        What it took where it was found, in the same conditions, and compared with a kernel that is known
        to be right; 0 is not known. If that is more than the rules' kernel takes, it is not measured
        again.
    """

    origin: str
    function: Any
    found_ns: int = 0


#: Gives further implementations of a kernel for a device.
CandidateSource = Callable[[Kernel, Device], Sequence[Candidate]]


def has_candidates(device: Device) -> bool:
    """Return whether kernels of a device may have other implementations than the rules'.

    Those of a CPU or a CUDA GPU at hand may.
    """
    if device.rpc_key is not None:
        return False
    if device.is_cpu:
        return bool(runtime_device(device.runtime).exist)
    return device.runtime.startswith("cuda:") and is_at_hand(device)


def rules_candidate(function: Any) -> Candidate:
    """Return what `tvm_sphinx.kernels.implement.implement_kernel` has made as a candidate."""
    return Candidate("rule" if function.attrs.get("tirx.is_scheduled", 0) else "default", function)


def other_candidates(
    kernel: Kernel,
    device: Device,
    sources: Sequence[CandidateSource],
    rule: Candidate,
    rule_ns: int,
) -> list[Candidate]:
    """Return the candidates beside the rules' one: the sources', and on a CPU TVM's default loops."""
    found = [candidate for source in sources for candidate in source(kernel, device)]
    if not device.is_cpu:  # TVM's default loops bind no threads
        return found
    loops = None if rule.origin == "default" else default_loops(kernel.function, rule_ns)
    return found if loops is None else [*found, Candidate("default", loops)]


def may_win(candidate: Candidate, rule_ns: int) -> bool:
    """Return whether a candidate is worth measuring beside a rules' kernel of that time."""
    return candidate.found_ns <= rule_ns


def is_faster(found_ns: int, best_ns: int, rule_ns: int) -> bool:
    """Return whether a candidate beats the best so far, and the rules' kernel by more than noise."""
    return found_ns < min(best_ns, (1 - _MARGIN) * rule_ns)
