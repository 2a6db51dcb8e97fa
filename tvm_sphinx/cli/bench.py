"""``tvm-sphinx bench kernels``: each kernel of a model beside what the machine reaches at best."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

from ..errors import PlatformError
from ..platform import Device, Platform
from ..platform.device import CORE_KEYS, one_of_each_class
from ..platform.machine import group_name, usable_cores
from .compile import add_model_arguments, chosen_platform
from .devices import format_target
from .inputs import input_options
from .limits import check_count
from .output import add_json_argument, print_json
from .progress import ProgressLine


def add_parser(subparsers: Any, help_line: str) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "bench",
        help=help_line,
        description="Measure parts of a model on this machine.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n  tvm-sphinx bench kernels model.onnx --cores 1 --limit 10",
    )
    parts = parser.add_subparsers(title="parts", metavar="PART", required=True)
    kernels = parts.add_parser(
        "kernels",
        help="each distinct kernel beside the machine's peak, what loses most time first",
        description=(
            "Measure each distinct kernel of a model on each kind of CPU device, and print it beside\n"
            "the peak of that device, measured too. What loses most time against the peak comes first.\n"
            "Measured times are kept, and shared with 'tvm-sphinx compile'; a kernel is implemented as\n"
            "that would choose: tuned, by a rule, or TVM's default."
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=(
            "examples:\n"
            "  tvm-sphinx bench kernels model.onnx --cores 1 --limit 10\n"
            "  tvm-sphinx bench kernels model.onnx --json > kernels.json"
        ),
    )
    add_model_arguments(kernels)
    kernels.add_argument(
        "--cores", type=int, metavar="N", help="take the first N cores, in place of the platform's own"
    )
    kernels.add_argument("--limit", type=int, metavar="ROWS", help="kernels to print; default: all")
    add_json_argument(kernels)
    kernels.add_argument("-q", "--quiet", action="store_true", help="print no progress")
    kernels.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    inputs = input_options(args)
    check_count(args.limit, "--limit")
    devices = bench_devices(chosen_platform(args), args.cores)
    from ..cost.bench import bench_kernels, format_rows, measure_peak, to_json
    from ..frontend.schedulable import load_schedulable
    from ..runtime.kernels import device_processor
    from ..runtime.processor import check_processor
    from ..tune.apply import open_records

    for device in devices:
        processor = device_processor(device)
        if processor is not None:
            check_processor(device.name, processor)
    store, sources = open_records(args.records)
    alone = Platform(tuple(devices))
    extraction = load_schedulable(args.FILE, alone, function=args.entry, **inputs).extraction
    results = []
    for device in devices:
        peak = measure_peak(device)
        progress = ProgressLine(quiet=args.quiet)
        rows = bench_kernels(extraction, device, store, peak, sources, progress=progress)
        results.append(to_json(rows, device, peak))
        if not args.json:
            print(f"{args.FILE} on {device.name}, {format_target(device)}\n")
            print(f"{format_rows(rows, peak, args.limit)}\n")
    if args.json:
        print_json({"model": str(args.FILE), "devices": results})
    return 0


def bench_devices(platform: Platform, cores: int | None) -> list[Device]:
    """Return one device of each kind of CPU device, or of each target, on the first cores.

    Raises
    ------
    PlatformError
        If this machine has fewer cores than that, or a device claims one that it lacks.
    """
    platform.check_machine()
    cpus = [device for device in platform.devices if device.is_cpu]
    if cores is not None:
        present = usable_cores()
        if not 1 <= cores <= len(present):
            raise PlatformError(f"Expected --cores from 1 to {len(present)}; got {cores}.")
        taken = present[:cores]
        unknown: dict[str, Any] = dict.fromkeys(CORE_KEYS, ())
        bare = [replace(device, cores=taken, **unknown) for device in cpus]
        cpus = [replace(device, name=group_name(taken)) for device in _with_kinds(bare)]
    return one_of_each_class(cpus)


def _with_kinds(devices: list[Device]) -> tuple[Device, ...]:
    from ..platform.detect import with_kinds

    return with_kinds(Platform(tuple(devices))).devices
