"""``tvm-sphinx compile``: schedule a model over a platform and write a program that runs it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ..platform import NAMED_PLATFORMS
from ..platform.home import data_home
from ..report.describe import format_fixed
from ..report.files import check_writable, write_text
from ..report.text import format_table
from .config_file import add_config_argument
from .durations import optional_duration
from .inputs import add_input_arguments, input_options
from .limits import add_limit_arguments, limit_options
from .output import add_json_argument, print_json
from .parser import names_of
from .passes import add_pass_arguments, check_dumps, chosen_passes, dump_options, dumped_code
from .progress import ProgressLine
from .targets import add_target_options, given_targets

if TYPE_CHECKING:
    from ..platform import Platform
    from ..program.compiled import CompiledModel


def add_parser(subparsers: Any, help_line: str) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "compile",
        help=help_line,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=(
            "Schedule a model over the devices of a platform by measured costs, and compile it.\n"
            "Each device, and each --target, is a candidate for placing kernels on (in tvmc a second\n"
            "target was the host)."
        ),
        epilog=(
            "examples:\n"
            "  tvm-sphinx compile model.onnx -o model.sphinx\n"
            "  tvm-sphinx compile model.onnx --platform unlike-cpus --pin 'conv*=native' -v\n"
            "  tvm-sphinx compile model.onnx --target 'llvm -mcpu=znver4' --target 'cuda -arch=sm_90'\n"
            "  tvm-sphinx compile model.onnx --measure-budget 30s --json > report.json"
        ),
    )
    add_model_arguments(parser)
    parser.add_argument("-o", "--output", metavar="OUT", help="write the program to this file")
    parser.add_argument(
        "--measure-budget",
        metavar="TIME",
        help="measure kernels for at most this long (30s, 2m, 0), first those that matter most, and "
        "predict the rest; default: measure all",
    )
    parser.add_argument(
        "--leave-out",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="measure only kernels that may change the schedule, and predict the others; default: on "
        "five or more classes of devices, where it takes less time",
    )
    parser.add_argument(
        "--libraries",
        metavar="NAME,...",
        help="libraries that may compute products on a GPU where they are faster and compute the same: "
        "cublaslt, and cublaslt-tf32 for float32 in TF32; default: none",
    )
    parser.add_argument(
        "--cost-model",
        default="default",
        metavar="MODEL.json",
        help="what predicts; default: what 'tvm-sphinx train' made of this machine, else a "
        "model of what is on record, if that suffices, else the model that is shipped",
    )
    parser.add_argument(
        "--rpc-tracker", metavar="HOST:PORT", help="TVM's RPC tracker, to measure on another machine"
    )
    parser.add_argument(
        "--rpc-key",
        metavar="KEY",
        help="the platform is that of the machines which the tracker lists under this key; devices with "
        "an rpc_key of their own in the platform file keep it",
    )
    parser.add_argument("--algorithm", default="cpga", help="search algorithm; default: cpga")
    parser.add_argument("--seed", type=int, default=0, help="seed of the search; default: 0")
    parser.add_argument(
        "--time-limit", metavar="TIME", help="search for this long (30s), in place of evaluations"
    )
    parser.add_argument(
        "--prune",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="search segments that recur once, and blocks of tasks first; default: yes",
    )
    add_limit_arguments(parser)
    add_pass_arguments(parser)
    add_config_argument(parser)
    parser.add_argument(
        "--variants",
        action="store_true",
        help="also build it for every single device and for the stock VM, for 'tvm-sphinx perf OUT'",
    )
    parser.add_argument(
        "--no-reference", action="store_true", help="leave out the build for the best single device"
    )
    parser.add_argument(
        "--refine",
        metavar="TIME",
        help="for this long (20s) run the program, search again with the times that kernels had in it, "
        "and keep the fastest of all that were found; default: 0",
    )
    parser.add_argument(
        "--verify",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="compare the program with the model run by its own framework; default: yes",
    )
    parser.add_argument(
        "--verify-inputs",
        metavar="FILE.npz",
        help="inputs by the names of the model file to verify with; default: drawn",
    )
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="print the whole report, and where each task runs"
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="print no progress")
    add_json_argument(parser)
    parser.set_defaults(run=run)


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what says which model, on which devices, by which measured times."""
    parser.add_argument(
        "FILE",
        nargs="?",
        default="inception-v1",
        help="a .onnx, .pt2 (torch.export) or .json (tvm.ir.save_json) file, or a demo model; "
        "default: the demo model inception-v1",
    )
    place = parser.add_mutually_exclusive_group()
    place.add_argument(
        "--platform",
        default="detect",
        help=f"a platform file (TOML), or one of {', '.join(NAMED_PLATFORMS)}; default: detect",
    )
    place.add_argument(
        "--target",
        action="append",
        help="a TVM target: 'llvm -mcpu=znver4', JSON, or a .json file; repeat it for more, or give "
        "several with commas. The n-th CPU target owns the n-th core of this machine",
    )
    add_target_options(parser)
    add_input_arguments(parser)
    parser.add_argument("--entry", help="Relax function to schedule; default: main, or the only one")
    parser.add_argument(
        "--records",
        "--tuning-records",
        default="default",
        metavar="FILE",
        help=f"measured times to use and extend; default: {data_home() / 'records.jsonl'}",
    )


def run(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    inputs = input_options(args)
    check_writable(args.output, besides=args.FILE)
    check_dumps(args)
    limits = limit_options(args)
    budget_s = optional_duration(args.measure_budget, "--measure-budget")
    refine_s = optional_duration(args.refine, "--refine")
    time_limit_s = optional_duration(args.time_limit, "--time-limit")
    from ..cost.measure.kernels import MeasureConfig
    from ..pipeline import compile
    from ..platform import remote_platform
    from ..program.array_files import read_inputs
    from ..search import Stop

    verify_inputs = None if args.verify_inputs is None else read_inputs(args.verify_inputs)
    if args.rpc_key is None:
        platform = chosen_platform(args)
    else:
        platform = remote_platform(args.platform, given_targets(args), args.rpc_key, args.rpc_tracker)
    with chosen_passes(args):
        compiled = compile(
            args.FILE,
            platform,
            **inputs,
            function=args.entry,
            records=args.records,
            algorithm=args.algorithm,
            seed=args.seed,
            stop=None if time_limit_s is None else Stop(time_limit_s=time_limit_s),
            prune=args.prune,
            measure=MeasureConfig(rpc_tracker=args.rpc_tracker),
            measure_budget_s=budget_s,
            leave_out=args.leave_out,
            libraries=names_of(args.libraries),
            refine_s=refine_s or 0.0,
            cost_model=args.cost_model,
            with_reference=not args.no_reference,
            verify=args.verify,
            verify_inputs=verify_inputs,
            variants=args.variants,
            output=args.output,
            progress=ProgressLine(quiet=args.quiet),
            **limits,
            **dump_options(args),
        )
    _report(args, compiled)
    return 0


def _report(args: argparse.Namespace, compiled: CompiledModel) -> None:
    """Print what was decided: in a line, as a whole, or for machines."""
    if args.dump_offloads:
        table = offload_table(compiled)
        if args.dump_offloads == "-":
            print(table)
        else:
            write_text(args.dump_offloads, table + "\n")
    if args.json:
        print_json({"model": args.FILE, "output": args.output, **compiled.to_json()})
        return
    if args.verbose:
        names = ", ".join(device.name for device in compiled.platform.devices)
        print(f"{args.FILE} on {names}\n\n{compiled.describe(verbose=True)}")
        print(f"\nstages               {format_stages(compiled)}")
    else:
        print(compiled.summary())
        for name, value in format_fixed(compiled.fixed_inputs).items():
            print(f"fixed input          {name} = {value}")
        if compiled.note and compiled.report is not None:
            print(compiled.note)
    written = [args.output, args.dump_ir and f"{args.dump_ir}/*.py", dumped_code(args)]
    if args.dump_offloads != "-":
        written.append(args.dump_offloads)
    for name in filter(None, written):
        print(f"wrote                {name}")


def offload_table(compiled: CompiledModel) -> str:
    """Return which device runs which operators, one task a line, in the order of the schedule."""
    if compiled.report is None:
        return compiled.note
    rows = [("device", "task", "kernel", "source")]
    for task in compiled.report.tasks:
        rows.append((task.device, task.name, task.kernel, ", ".join(task.origin) or "-"))
    dynamic = compiled.report.dynamic
    if dynamic is not None:
        rows += [(dynamic.device, "-", "of open shape", operator) for operator in dynamic.operators]
    return format_table(rows)


def format_stages(compiled: CompiledModel) -> str:
    """Return the time of each stage in one line."""
    return ", ".join(f"{stage} {seconds:.2f} s" for stage, seconds in compiled.stages_s.items())


def chosen_platform(args: argparse.Namespace) -> Platform:
    """Return the platform that the arguments of `add_model_arguments` name."""
    from ..platform import load_platform, platform_of_targets

    targets = given_targets(args)
    return platform_of_targets(targets) if targets else load_platform(args.platform)
