"""``tvm-sphinx run``: run a compiled model and compare it with the best single device."""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..errors import UnsupportedError
from ..interrupt import raise_if_interrupted
from ..report.files import check_writable, write_text
from .limits import check_count
from .output import add_json_argument, print_json

if TYPE_CHECKING:
    from ..program.compiled import CompiledModel
    from ..runtime.trace import Trace

_FILL_MODES = ("random", "zeros", "ones")
# Runs of a program that seems to part ways with its prediction.
_MOST_TRACES = 5


def add_parser(subparsers: Any, help_line: str) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "run",
        help=help_line,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=(
            "Run a program that 'tvm-sphinx compile -o' wrote. A warning tells if it takes much longer\n"
            "or shorter than predicted, and which device is late."
        ),
        epilog=(
            "examples:\n"
            "  tvm-sphinx run model.sphinx --print-time\n"
            "  tvm-sphinx run model.sphinx -i in.npz -o out.npz\n"
            "  tvm-sphinx run model.sphinx --trace trace.json      open it at ui.perfetto.dev"
        ),
    )
    parser.add_argument("FILE", help="the program")
    parser.add_argument(
        "-i", "--inputs", help="inputs by the names of the model file, as .npz; default: see --fill-mode"
    )
    parser.add_argument("-o", "--outputs", help="write the outputs to this .npz file")
    parser.add_argument("--fill-mode", choices=_FILL_MODES, default="random", help="default: random")
    parser.add_argument("--seed", type=int, default=0, help="seed of random inputs; default: 0")
    parser.add_argument("--print-time", action="store_true", help="time it, in turn with one device")
    parser.add_argument("--repeat", type=int, default=10, help="timed rounds; default: 10")
    parser.add_argument("--number", type=int, default=1, help="runs in each round; default: 1")
    parser.add_argument(
        "--trace",
        metavar="OUT.json",
        help="write a run's events, measured beside predicted, for Perfetto",
    )
    add_json_argument(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    for name in ("repeat", "number"):
        check_count(getattr(args, name), f"--{name}")
    for output in (args.trace, args.outputs):
        check_writable(output, besides=args.FILE)
    from ..program.array_files import write_outputs
    from ..program.compiled import CompiledModel, largest_difference

    compiled = CompiledModel.load(args.FILE)
    inputs = _inputs(args, compiled)
    outputs = compiled.run(inputs)
    raise_if_interrupted()
    if args.outputs:
        write_outputs(args.outputs, dict(zip(compiled.output_names, outputs, strict=True)))
    told: dict[str, Any] = {
        "outputs": [
            {"name": name, "dtype": str(output.dtype), "shape": list(output.shape)}
            for name, output in zip(compiled.output_names, outputs, strict=True)
        ],
        "note": compiled.note,
    }
    if compiled.reference is not None:
        absolute, relative = largest_difference(outputs, compiled.run_reference(inputs))
        device = compiled.report.best_single_device if compiled.report else "one device"
        told["difference"] = {"absolute": absolute, "relative": relative, "from": device}
    if args.print_time:
        told["seconds"] = _times(compiled, inputs, args.repeat, args.number)
        told["is_single_device"] = compiled.reference is compiled.program
    if warning := _warning(compiled, inputs):
        warnings.warn(warning, stacklevel=1)
        told["warning"] = warning
    if args.trace:
        _, trace = compiled.run_traced(inputs)
        write_text(args.trace, trace.to_chrome())
        told["trace"] = args.trace
    if args.json:
        print_json(told)
    else:
        print("\n".join(_lines(told, args.repeat, args.number)))
    return 0


def _inputs(args: argparse.Namespace, compiled: CompiledModel) -> dict[str, Any]:
    import numpy as np

    from ..program.array_files import read_inputs

    if args.inputs is None:
        inputs = compiled.random_inputs(args.seed)
        if args.fill_mode != "random":
            value = 0 if args.fill_mode == "zeros" else 1
            inputs = {name: np.full_like(array, value) for name, array in inputs.items()}
        return inputs
    given = read_inputs(args.inputs)
    types = {spec.name: spec.dtype for spec in compiled.inputs}
    # NumPy's files have no name for this type.
    return {
        name: array.view("bfloat16")
        if types.get(name) == "bfloat16" and array.dtype.str == "|V2"
        else array
        for name, array in given.items()
    }


def _times(
    compiled: CompiledModel, inputs: dict[str, Any], repeat: int, number: int
) -> dict[str, list[float]]:
    """Time the program and its single-device reference in turn; return seconds of each round."""
    calls = {"program": compiled.run}
    if compiled.reference is not None:
        calls["single device"] = compiled.run_reference
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeat):
        for name, call in calls.items():
            begin = time.perf_counter()
            for _ in range(number):
                call(inputs)
            samples[name].append((time.perf_counter() - begin) / number)
    return samples


def _warning(compiled: CompiledModel, inputs: dict[str, Any]) -> str:
    """Return how a run parts ways with its prediction, "" if it does not, or nothing tells its times.

    A run that does is repeated: the shortest counts.
    """
    from ..report.lateness import describe_lateness, fastest, parts_ways

    traces: list[Trace] = []
    while len(traces) < _MOST_TRACES and (not traces or parts_ways(fastest(traces))):
        try:
            traces.append(compiled.run_traced(inputs)[1])
        except UnsupportedError:
            return ""
    trace = fastest(traces)
    return describe_lateness(trace) if parts_ways(trace) else ""


def _lines(told: dict[str, Any], repeat: int, number: int) -> Iterator[str]:
    """Yield what a run has to tell as text."""
    for output in told["outputs"]:
        yield f"{output['name']:<20} {output['dtype']} {output['shape']}"
    if told["note"]:
        yield f"note                 {told['note']}"
    if difference := told.get("difference"):
        yield (
            f"largest difference   {difference['absolute']:.3g} from the build for {difference['from']} "
            f"alone ({difference['relative']:.3g} of the largest value)"
        )
    samples = told.get("seconds", {})
    each = f", each a mean of {number} runs" if number > 1 else ""
    for name, values in samples.items():
        low, middle, high = _spread([value * 1e3 for value in values])
        yield f"{name:<20} {middle:.3f} ms (min {low:.3f}, max {high:.3f} of {repeat}{each})"
    if "single device" in samples:
        pairs = zip(samples["single device"], samples["program"], strict=True)
        low, middle, high = _spread([other / own for other, own in pairs])
        if told["is_single_device"]:
            told_ratio = f"none, both are one program ({middle:.2f}x, min {low:.2f}, max {high:.2f})"
        else:
            told_ratio = f"{middle:.2f}x over the single device (min {low:.2f}, max {high:.2f})"
        yield f"speed-up             {told_ratio}"
    if trace := told.get("trace"):
        yield f"wrote                {trace}"


def _spread(values: list[float]) -> tuple[float, float, float]:
    return min(values), statistics.median(values), max(values)
