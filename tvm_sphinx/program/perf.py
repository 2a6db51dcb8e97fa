"""Time programs of one model in turn, and say in a sentence what came out. [TVM]"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import SphinxError
from ..progress import Progress
from .compiled import CompiledModel, check_inputs, largest_difference
from .kinds import Array, flatten_outputs

#: What is timed beside the others.
OURS = "tvm-sphinx"
#: Runs of each before the first that counts, the very first of which is told by itself.
WARM_UP = 3
_QUANTILES = (50, 90, 95, 99)
_ROUND_S = 0.02
_MOST_RUNS = 100

#: From the model's inputs to its outputs.
Runner = Callable[[Sequence[Array]], list[Array]]


@dataclass(frozen=True)
class Timing:
    """What one contender took.

    Parameters
    ----------
    name
        Its name.
    first_s
        Its very first run: what it starts, maps and allocates.
    samples_s : (rounds, runs) float64
        Seconds of each run after the warm-up.
    difference
        Largest difference of its outputs from ours, as a share of our largest value.
    """

    name: str
    first_s: float
    samples_s: npt.NDArray[np.float64]
    difference: float

    @property
    def median_s(self) -> float:
        """Median of all runs, s."""
        return float(np.median(self.samples_s))

    def to_json(self) -> dict[str, Any]:
        """Return the figures; times in ms, throughput in runs a second."""
        samples = self.samples_s.reshape(-1)
        low, high = np.percentile(samples, [25, 75])
        return {
            "name": self.name,
            "runs": int(samples.size),
            **{f"p{q}_ms": float(np.percentile(samples, q)) * 1e3 for q in _QUANTILES},
            "min_ms": float(samples.min()) * 1e3,
            "spread": float((high - low) / 2 / self.median_s),
            "first_ms": self.first_s * 1e3,
            "runs_per_s": float(1 / samples.mean()),
            "difference": self.difference,
        }


def time_in_turn(
    runners: Mapping[str, Runner],
    inputs: Sequence[Array],
    *,
    rounds: int = 20,
    number: int | None = None,
    limit_s: float = 30.0,
    progress: Progress | None = None,
) -> list[Timing]:
    """Return what each contender takes; in every round each has a turn, in an order that is drawn.

    A turn begins with a run that is not counted: who ran before has left its own data in the caches, and
    may have threads that still wait for work on the cores (ONNX Runtime's do).

    Parameters
    ----------
    runners
        Contenders by name; the first is ours.
    inputs
        Arrays in the order of the model's inputs.
    rounds, number
        How many, and the runs of each contender in one; by default as many as take 20 ms.
    limit_s
        Seconds after which no round is begun, once there are three.
    progress
        Called after every round.

    Raises
    ------
    SphinxError
        If rounds or runs are less than one.
    """
    if rounds < 1 or (number is not None and number < 1):
        raise SphinxError(f"Expected rounds and runs >= 1; got {rounds} and {number}.")
    begin_s = time.monotonic()
    first, outputs, once = {}, {}, []
    for name, runner in runners.items():
        first[name] = _timed(runner, inputs)
        once.append(min(_timed(runner, inputs) for _ in range(WARM_UP - 1)))
        outputs[name] = runner(inputs)
    count = number or int(np.clip(_ROUND_S // max(once), 1, _MOST_RUNS))
    samples: dict[str, list[list[float]]] = {name: [] for name in runners}
    names, drawn = list(runners), np.random.default_rng(0)
    for done in range(rounds):
        if done >= 3 and time.monotonic() - begin_s >= limit_s:
            break
        for name in drawn.permutation(names).tolist():
            runners[name](inputs)
            samples[name].append([_timed(runners[name], inputs) for _ in range(count)])
        if progress:
            progress("time in turn", done + 1, rounds)
    ours = outputs[names[0]]
    return [
        Timing(n, first[n], np.array(samples[n]), largest_difference(outputs[n], ours)[1]) for n in names
    ]


def _timed(runner: Runner, inputs: Sequence[Array]) -> float:
    begin = time.perf_counter()
    runner(inputs)
    return time.perf_counter() - begin


def open_contenders(
    compiled: CompiledModel, onnx_model: Any = None, threads: int = 1
) -> tuple[dict[str, Runner], list[str]]:
    """Return the programs of a model as functions, ours first, and what is missing and why.

    Parameters
    ----------
    onnx_model
        An ``onnx.ModelProto`` for ONNX Runtime, or its path; None where the model is no ONNX file.
    threads
        That ONNX Runtime may use.
    """
    missing = []
    programs = {OURS: compiled.program, **compiled.variants}
    if not compiled.variants and compiled.reference is not None and compiled.report is not None:
        programs[f"on {compiled.report.best_single_device}"] = compiled.reference
        missing.append(
            "other single devices and the stock VM: not in this file; compile it with --variants"
        )
    runners: dict[str, Runner] = {}
    for name, program in programs.items():
        opened = program.open()
        runners[name] = lambda arrays, opened=opened: flatten_outputs(opened(arrays))  # type: ignore[misc]  # one lambda for each
    if onnx_model is None:
        missing.append("ONNX Runtime: the model is no ONNX file, or none is given with --model")
        return runners, missing
    try:
        name, session = _onnx_session(onnx_model, threads)
    except SphinxError as error:
        missing.append(f"ONNX Runtime: {error}")
        return runners, missing
    inputs, fixed = [spec.name for spec in compiled.inputs], compiled.fixed_inputs
    runners[name] = lambda arrays: [
        np.asarray(v) for v in session.run(None, {**fixed, **dict(zip(inputs, arrays, strict=True))})
    ]
    return runners, missing


def _onnx_session(model: Any, threads: int) -> tuple[str, Any]:
    try:
        import onnxruntime
    except ImportError:
        raise SphinxError("it is not installed: pip install 'tvm-sphinx[onnx]'") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4
    content = str(model) if hasattr(model, "__fspath__") else model.SerializeToString()
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # each of ONNX Runtime's error classes derives from Exception alone
        raise SphinxError(f"it refuses the model: {str(error).splitlines()[0]}") from error
    plural = "s" if threads != 1 else ""
    return f"ONNX Runtime {onnxruntime.__version__}, {threads} thread{plural}", session


def verdict(timings: Sequence[Timing]) -> str:
    """Return a sentence that compares the first with each of the others, round by round.

    Where the quartiles of the ratios lie on both sides of 1, there is no difference beyond the noise.
    """
    ours, *others = timings
    told = []
    for other in sorted(others, key=lambda timing: timing.median_s):
        ratios = np.median(other.samples_s, axis=1) / np.median(ours.samples_s, axis=1)
        low, middle, high = np.percentile(ratios, [25, 50, 75])
        if low <= 1 <= high:
            told.append(f"as fast as {other.name} within the noise ({low:.2f} to {high:.2f}x)")
        else:
            told.append(f"{middle:.2f}x as fast as {other.name} ({low:.2f} to {high:.2f}x)")
    median = f"{ours.name} takes {ours.median_s * 1e3:.3g} ms"
    return f"{median}: {'; '.join(told)}." if told else f"{median}; there is nothing to compare with."


def model_inputs(compiled: CompiledModel, seed: int) -> list[Array]:
    """Return drawn inputs in order."""
    return check_inputs(compiled.inputs, compiled.random_inputs(seed))
