"""Verify a program against the source of its model, run by its own framework. [TVM]

Two questions are kept apart. *Is the model right?* The outputs equal those of the source framework; this
alone sees the faults of an importer. *Is the schedule right?* They equal those of the build for one
device.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...errors import GpuError, PlatformError, UnsupportedError, VerificationError, cause_of
from ...frontend.model_source import ModelSource
from ...frontend.signature import Interface
from ...platform import Platform
from ...platform.targets import device_target
from ..compiled import check_inputs, random_inputs
from ..kinds import Program, flatten_outputs
from .draw import Example, draw_example, nudged
from .locate import find_culprit
from .open_source import open_source
from .source import NotVerifiedError, RunnableSource
from .tolerance import Array, OutputCheck, compare, worst
from .verification import Verification

# Draws, as long as the source's own outputs hang on the rounding of its inputs.
_MOST_DRAWS = 3


@dataclass(frozen=True)
class Subject:
    """What a program is verified against.

    Parameters
    ----------
    source
        The model as it was given.
    function
        What TVM imported of it.
    interface
        Inputs and outputs of the program, under the source's names.
    platform
        What it was built for.
    """

    source: ModelSource
    function: Any
    interface: Interface
    platform: Platform


@dataclass(frozen=True)
class _Programs:
    """The program, opened, and the build for one device, which may be the same, or None."""

    run: Callable[[Sequence[Array]], Any]
    program: Program
    reference: Program | None


def verify_program(
    subject: Subject,
    program: Program,
    reference: Program | None = None,
    given: Mapping[str, Any] | None = None,
    *,
    seed: int = 0,
) -> Verification:
    """Run a program and its source on the same inputs, and compare.

    Parameters
    ----------
    program, reference
        The program, and the build for one device, which may be the same, or None.
    given
        Inputs by name; by default some are drawn that the source accepts.
    seed
        Seed of the draw.

    Raises
    ------
    VerificationError
        If an output differs by more than `tvm_sphinx.program.verify.tolerance.TOLERANCES`; the message
        names it and the first operator that differs.
    InputError
        If the given inputs do not fit the model.
    """
    specs = subject.interface.inputs
    chosen = None if given is None else check_inputs(specs, given)
    if subject.platform.is_remote:
        return Verification(reason="the devices are on another machine")
    try:
        programs = _Programs(program.open(), program, reference)
    except (GpuError, PlatformError, UnsupportedError) as error:
        return Verification(reason=f"it cannot run here: {error}".rstrip("."))
    try:
        source = open_source(subject.source)
        return _against(subject, programs, source, chosen, seed)
    except NotVerifiedError as error:
        inputs = chosen or check_inputs(specs, random_inputs(specs, seed))
        schedule = _schedule_difference(subject, programs, inputs, flatten_outputs(programs.run(inputs)))
        return Verification(reason=str(error), schedule=schedule)


def _against(
    subject: Subject,
    programs: _Programs,
    source: RunnableSource,
    chosen: list[Array] | None,
    seed: int,
) -> Verification:
    for draw in range(_MOST_DRAWS if chosen is None else 1):
        example = _example(subject, source, chosen, seed + draw)
        outputs = flatten_outputs(programs.run(example.inputs))
        checks = _checks(subject, outputs, example.outputs, source)
        if all(check.is_equal for check in checks):
            schedule = _schedule_difference(subject, programs, example.inputs, outputs)
            return Verification(tuple(checks), "", source.runtime, example.told, schedule)
        if not _hangs_on_rounding(subject, source, example):
            raise VerificationError(_message(subject, source, example, checks))
    raise NotVerifiedError(
        f"the outputs of {source.runtime} itself change by more than the tolerance when the inputs "
        f"change by their rounding, or from run to run"
    )


def _example(subject: Subject, source: RunnableSource, chosen: list[Array] | None, seed: int) -> Example:
    if chosen is None:
        return draw_example(source, subject.interface.inputs, seed)
    try:
        return Example(chosen, source.run(chosen), "the given inputs")
    except NotVerifiedError:
        raise
    except Exception as error:  # each framework has errors of its own for inputs that do not suit
        raise VerificationError(
            f"{source.runtime} does not accept the inputs to verify with: {cause_of(error)}"
        ) from error


def _checks(
    subject: Subject, ours: Sequence[Array], theirs: Sequence[Array], source: RunnableSource
) -> list[OutputCheck]:
    if len(ours) != len(theirs):
        raise VerificationError(
            f"Expected {len(theirs)} outputs, as {source.runtime} returns of {subject.source.where}; "
            f"the program returns {len(ours)}."
        )
    names = [spec.name for spec in subject.interface.outputs]
    if len(names) != len(theirs):
        names = [f"output_{number}" for number in range(len(theirs))]
    return [
        compare(name, mine, other, source.computed_dtypes)
        for name, mine, other in zip(names, ours, theirs, strict=True)
    ]


def _hangs_on_rounding(subject: Subject, source: RunnableSource, example: Example) -> bool:
    """Return whether the source, on inputs that are nudged or the same, is as far from itself."""
    for inputs in (example.inputs, nudged(example.inputs, 1), nudged(example.inputs, 2)):
        again = source.run(inputs)
        if len(again) != len(example.outputs):
            return True
        if not all(check.is_equal for check in _checks(subject, again, example.outputs, source)):
            return True
    return False


def _message(
    subject: Subject, source: RunnableSource, example: Example, checks: Sequence[OutputCheck]
) -> str:
    wrong = worst([check for check in checks if not check.is_equal])
    assert wrong is not None
    told = f"Output {wrong.name!r} of the program {wrong.describe()}; compared with {source.runtime}."
    host = subject.platform.devices[subject.platform.host_index]
    try:
        culprit = find_culprit(subject.function, source, example.inputs, device_target(host))
    except Exception as error:  # the search for the cause must not hide what is wrong
        return f"{told} The operator that differs was not found: {cause_of(error)}"
    if culprit is None:
        return (
            f"{told} Built operator by operator for one device it is right: the fault is of the kernels "
            f"that were chosen, or of the schedule."
        )
    return f"{told} {culprit.describe()}"


def _schedule_difference(
    subject: Subject, programs: _Programs, inputs: Sequence[Array], outputs: Sequence[Array]
) -> float | None:
    """Return how far the outputs are from those of the build for one device, None where it is the same.

    Raises
    ------
    VerificationError
        If it is farther than the tolerance.
    """
    if programs.reference is None or programs.reference is programs.program:
        return None
    others = flatten_outputs(programs.reference.open()(inputs))
    checks = [
        compare(spec.name, mine, other)
        for spec, mine, other in zip(subject.interface.outputs, outputs, others, strict=True)
    ]
    wrong = worst([check for check in checks if not check.is_equal])
    if wrong is not None:
        raise VerificationError(
            f"Output {wrong.name!r} of the schedule {wrong.describe()}; compared with the build for one "
            f"device."
        )
    return max((check.difference for check in checks), default=0.0)
