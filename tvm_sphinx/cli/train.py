"""``tvm-sphinx train``: make a cost model of this machine, to predict what was not measured."""

from __future__ import annotations

import argparse
from typing import Any

from ..errors import SphinxError
from ..platform import NAMED_PLATFORMS
from ..platform.home import data_home
from ..report.files import check_writable
from .durations import parse_duration
from .output import add_json_argument, print_json
from .progress import ProgressLine


def add_parser(subparsers: Any, help_line: str) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "train",
        help=help_line,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=(
            "Draw kernels as networks have them, measure them, and learn to predict times from all\n"
            "that is on record. What is on record is not measured again: a stopped run goes on where\n"
            "it was, and models that were compiled before are training data too."
        ),
        epilog=(
            "examples:\n"
            "  tvm-sphinx train --budget 20m\n"
            "  tvm-sphinx train --platform unlike-cpus --samples 300 -o small-model.json\n"
            "  tvm-sphinx compile model.onnx --measure-budget 30s       uses the model"
        ),
    )
    parser.add_argument(
        "--platform",
        help="CPU devices to measure on: a platform file (TOML), or one of "
        f"{', '.join(NAMED_PLATFORMS)}; default: each kind of device of all of these",
    )
    parser.add_argument("--records", default="default", help="file of measured times to use and extend")
    parser.add_argument(
        "--samples", type=int, default=900, metavar="N", help="kernels to draw; default: 900"
    )
    parser.add_argument(
        "--budget", metavar="S", help="stop measuring after this long, '90s' or '10m'; default: no limit"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the draws; default: 0")
    parser.add_argument(
        "-o",
        "--output",
        metavar="MODEL.json",
        help=f"default: {data_home() / 'cpu-model.json'}, where compile looks for it",
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="print no progress")
    add_json_argument(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    check_writable(args.output)
    budget_s = None if args.budget is None else parse_duration(args.budget, "--budget")
    if args.samples < 0:
        raise SphinxError(f"Expected --samples >= 0; got {args.samples}.")
    from ..cost.model.model_file import default_model_path, save_cost_model
    from ..cost.model.training import default_devices, train_model
    from ..cost.records.store import RecordStore, record_path
    from ..platform import load_platform

    devices = load_platform(args.platform).devices if args.platform else default_devices()
    records = RecordStore(record_path(args.records))
    model = train_model(
        devices,
        records,
        samples=args.samples,
        budget_s=budget_s,
        seed=args.seed,
        progress=ProgressLine(quiet=args.quiet),
    )
    path = args.output or default_model_path()
    save_cost_model(model, path)
    if args.json:
        error = {"median": model.heldout.median_error, "within_quarter": model.heldout.within_quarter}
        print_json({"measurements": model.num_rows, "heldout": error, "model": str(path)})
        return 0
    print(
        f"learned from         {model.num_rows} measurements\n"
        f"held-out error       {model.heldout.median_error:.1%} median, "
        f"{model.heldout.within_quarter:.0%} of kernels within 25%\n"
        f"wrote                {path}"
    )
    return 0
