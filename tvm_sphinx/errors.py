"""The errors that tvm-sphinx raises; a message names the value, the rule and the choices."""

from __future__ import annotations

from collections.abc import Iterable

_MOST_CAUSE = 400


class SphinxError(Exception):
    """Base of every error that tvm-sphinx raises on purpose."""


class EnvironmentMismatchError(SphinxError):
    """An installed package is missing or is not a version that tvm-sphinx works with."""


class ModelError(SphinxError):
    """A model file is missing, corrupt, or of a form that cannot be loaded."""


class PlatformError(SphinxError):
    """A platform description does not hold together or does not fit this machine."""


class ProblemError(SphinxError, ValueError):
    """A task graph, cost table or scheduling problem breaks one of its invariants."""


class InvalidScheduleError(SphinxError, ValueError):
    """A schedule is not valid for its problem, or belongs to another problem."""


class UnsupportedError(SphinxError):
    """A module is well formed, but is not of the kind that the called function handles."""


class NoCodeError(UnsupportedError):
    """TVM's code generation refuses a kernel for a target, now and whenever it is asked again."""


class VerificationError(SphinxError):
    """A program computes other numbers than the source of its model, or than its twin on one device."""


class GpuError(SphinxError, RuntimeError):
    """A GPU is not there or not of the kind that is needed, or it failed in a run."""


class ArtifactError(SphinxError):
    """A file written by tvm-sphinx is truncated, altered, or of another version."""


def known_choices(kind: str, value: object, choices: Iterable[object]) -> str:
    """Return the message for an unknown name: the value, what it should have been, and the choices."""
    listed = ", ".join(str(choice) for choice in choices) or "none"
    return f"Unknown {kind} {value!r}; known: {listed}."


def cause_of(error: BaseException) -> str:
    """Return what an error that is not ours says, in one line of at most some 400 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _MOST_CAUSE else f"{text[:_MOST_CAUSE]}..."
