"""A schedule drawn with matplotlib, for documents; matplotlib is an extra."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import EnvironmentMismatchError, SphinxError
from .decision import Decision

if TYPE_CHECKING:
    from ..runtime.trace import Trace


def plot_schedule(decision: Decision, path: str | Path, trace: Trace | None = None) -> None:
    """Write a picture, in the form of the file's suffix, of what is predicted, below what was measured.

    Raises
    ------
    EnvironmentMismatchError
        If matplotlib is not installed.
    SphinxError
        If it knows no such form of file, or the file cannot be written.
    """
    try:
        import matplotlib
    except ImportError:
        raise EnvironmentMismatchError(
            "Drawing with --plot needs matplotlib: pip install 'tvm-sphinx[plot]'"
        ) from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    parts = [("predicted", _predicted(decision))]
    if trace is not None:
        parts.insert(0, ("measured", _measured(trace)))
    names = decision.problem.devices
    size = (9.0, 0.9 + 0.45 * len(names) * len(parts))
    figure, axes = pyplot.subplots(len(parts), 1, sharex=True, squeeze=False, figsize=size)
    colours = pyplot.colormaps["tab10"].colors
    for axis, (title, bars) in zip(axes[:, 0], parts, strict=True):
        for device, begin_ns, length_ns in bars:
            colour = colours[device % 10]
            axis.barh(device, length_ns / 1e6, left=begin_ns / 1e6, color=colour, edgecolor="w", lw=0.3)
        axis.set_yticks(range(len(names)), names)
        axis.invert_yaxis()
        axis.set_title(title, loc="left", fontsize=10)
    axes[-1, 0].set_xlabel("ms")
    figure.tight_layout()
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise SphinxError(f"Cannot write {str(path)!r}: {error}") from error
    finally:
        pyplot.close(figure)


def _predicted(decision: Decision) -> list[tuple[int, Any, Any]]:
    schedule = decision.schedule
    lengths = schedule.finish_ns - schedule.start_ns
    return list(zip(schedule.device.tolist(), schedule.start_ns, lengths, strict=True))


def _measured(trace: Trace) -> list[tuple[int, Any, Any]]:
    return [(step.device, step.begin_ns, step.duration_ns) for step in trace.steps]
