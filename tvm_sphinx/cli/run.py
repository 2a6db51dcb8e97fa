"""``tvm-sphinx run``: run a compiled model and compare it with the best single device."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING, Any

from ..errors import SphinxError
from ..interrupt import raise_if_interrupted
from ..report.files import check_writable, write_text

if TYPE_CHECKING:
    from ..program.compiled import CompiledModel

_FILL_MODES = ("random", "zeros", "ones")


def add_parser(subparsers: Any) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "run",
        help="run a compiled model, compare it with a single device, time it",
        description="Run a program that 'tvm-sphinx compile -o' wrote.",
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
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    for name in ("repeat", "number"):
        if getattr(args, name) < 1:
            raise SphinxError(f"Expected --{name} >= 1; got {getattr(args, name)}.")
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
    for name, output in zip(compiled.output_names, outputs, strict=True):
        print(f"{name:<20} {output.dtype} {list(output.shape)}")
    if compiled.note:
        print(f"note                 {compiled.note}")
    if compiled.reference is not None:
        absolute, relative = largest_difference(outputs, compiled.run_reference(inputs))
        device = compiled.report.best_single_device if compiled.report else "one device"
        print(
            f"largest difference   {absolute:.3g} from the build for {device} alone "
            f"({relative:.3g} of the largest value)"
        )
    if args.print_time:
        _print_times(compiled, inputs, args.repeat, args.number)
    if args.trace:
        _, trace = compiled.run_traced(inputs)
        write_text(args.trace, trace.to_chrome())
        print(f"wrote                {args.trace}")
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


def _print_times(compiled: CompiledModel, inputs: dict[str, Any], repeat: int, number: int) -> None:
    """Time the program and its single-device reference in turn, and print medians and ratios."""
    import numpy as np

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
    for name, values in samples.items():
        low, middle, high = np.percentile(values, [0, 50, 100]) * 1e3
        print(f"{name:<20} {middle:.3f} ms (min {low:.3f}, max {high:.3f}, {repeat} x {number})")
    if "single device" in samples:
        ratios = np.array(samples["single device"]) / np.array(samples["program"])
        low, middle, high = np.percentile(ratios, [0, 50, 100])
        print(
            f"speed-up             {middle:.2f}x over the single device (min {low:.2f}, max {high:.2f})"
        )
