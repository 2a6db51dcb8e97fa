"""The main path, from a model to a program that runs it on all devices. [TVM]"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ._tvm import tvm
from .compiled import CompiledModel, random_inputs
from .cost.fill import fill_costs
from .cost.measure import MeasureConfig, measure_costs
from .cost.model.model_file import default_model_path, load_cost_model
from .cost.progress import Progress
from .cost.records import RecordStore, default_record_path
from .cost.table import CostTable, build_problem
from .errors import UnsupportedError
from .extract import Extraction, extract_task_graph
from .frontend import entry_function, load_model
from .lower import lower_to_kernels
from .platform import Platform
from .programs import LaneProgramFile, Program, build_stock_program
from .race import speedup
from .relax_pass import annotate_schedule
from .report.placement import PlacementReport, format_ns, placement_report
from .runtime.build import build_image
from .schedule import Schedule, validate
from .search import SearchResult, Stop, search_schedule
from .single import build_on_single_device, input_specs
from .targets import device_target


def compile(
    model: Any,
    platform: Platform | str | Path = "detect",
    *,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    function: str | None = None,
    records: str | Path | None = "default",
    algorithm: str = "cpga",
    seed: int = 0,
    stop: Stop | None = None,
    measure: MeasureConfig | None = None,
    measure_budget_s: float | None = None,
    cost_model: str | Path = "default",
    with_reference: bool = True,
    progress: Progress | None = None,
) -> CompiledModel:
    """Compile a model so that one inference is spread over the devices of a platform.

    Parameters
    ----------
    model
        What `tvm_sphinx.frontend.load_model` takes: a path, a demo model's name, or a model in memory.
    platform
        A platform, a name in `tvm_sphinx.platform.NAMED_PLATFORMS`, or a platform file.
    input_shapes
        Shapes of ONNX inputs that the file leaves open.
    function
        Relax function to schedule; by default ``main`` or the only one.
    records
        File of measured times to use and to extend; None keeps them in memory.
    algorithm, seed, stop
        See `tvm_sphinx.search.search_schedule`.
    measure
        How long to measure each kernel.
    measure_budget_s
        Seconds to measure kernels that are not on record; the rest is predicted, see
        `tvm_sphinx.cost.fill.fill_costs`. None measures all of them.
    cost_model
        File of the model that predicts; made by ``tvm-sphinx train``.
    with_reference
        Also build the model for the best single device, and race the two: where the schedule turns out
        to be slower, the model runs on the single device.
    progress
        Called as ``progress(stage, done, total)``.

    Raises
    ------
    SphinxError
        With one sentence that names the value, the rule and the choices; nothing is written.
    """
    clock = _StageClock()
    predictor = None
    if measure_budget_s is not None:
        model_path = default_model_path() if cost_model == "default" else cost_model
        predictor = load_cost_model(model_path, str(tvm.__version__))
    if not isinstance(platform, Platform):
        platform = Platform.named(str(platform))
    store = RecordStore(default_record_path() if records == "default" else records)
    with clock("load"):
        module = load_model(model, input_shapes=input_shapes)
        entry = entry_function(module, function)
    with clock("lower"):
        targets = [device_target(device) for device in platform.devices]
        kernels = lower_to_kernels(module, targets[platform.host_index], entry, targets=targets)
    try:
        with clock("extract"):
            extraction = extract_task_graph(kernels, entry)
    except UnsupportedError as error:
        return build_on_single_device(module, entry, platform, str(error), clock.stages_s)
    with clock("measure"):
        if predictor is None or measure_budget_s is None:
            costs = measure_costs(extraction, platform, store, config=measure, progress=progress)
        else:
            costs = fill_costs(
                extraction,
                platform,
                store,
                predictor,
                measure_budget_s,
                config=measure,
                progress=progress,
            )
    with clock("search"):
        problem = build_problem(extraction.graph, platform, costs)
        single = search_schedule(problem, algorithm="single")
        found = search_schedule(problem, algorithm=algorithm, seed=seed, stop=stop)
        validate(problem, found.best)
    with clock("annotate"):
        annotated = annotate_schedule(extraction, found.best, platform)
    with clock("build"):
        program, note = _build(annotated, platform, found.best, entry)
    inputs = input_specs(module[entry])
    reference = None
    if with_reference:
        with clock("build reference"):
            alone = annotate_schedule(extraction, single.best, platform)
            reference, _ = _build(alone, platform, single.best, entry)
        with clock("race"):
            ratio = speedup(program, reference, random_inputs(inputs))
        if ratio is not None and ratio < 1.0 and (found.best.device != single.best.device).any():
            note = (
                f"The schedule, predicted at {format_ns(found.best.makespan_ns)}, measured {ratio:.2f}x "
                f"as fast as the best single device alone, so the model runs on that device."
            )
            program, found = reference, single
    return CompiledModel(
        inputs=inputs,
        platform=platform,
        program=program,
        reference=reference,
        report=_report(extraction, platform, costs, found, single),
        note=note,
        stages_s=clock.stages_s,
    )


def _build(annotated: Any, platform: Platform, schedule: Schedule, function: str) -> tuple[Program, str]:
    """Return the program for our lanes, or for the stock VM and the reason why."""
    try:
        return LaneProgramFile(build_image(annotated, platform, schedule)), ""
    except UnsupportedError as error:
        note = f"{error} It runs on the stock VM, where CPU devices take turns."
        return build_stock_program(annotated, platform, function), note


def _report(
    extraction: Extraction,
    platform: Platform,
    costs: CostTable,
    found: SearchResult,
    single: SearchResult,
) -> PlacementReport:
    return placement_report(
        extraction.graph,
        platform,
        found.best,
        single.best,
        measured_share=float(costs.measured.mean()) if costs.measured.size else 1.0,
        algorithm=found.algorithm,
        seed=found.seed,
        evaluations=found.evaluations,
    )


class _StageClock:
    """Wall seconds of each stage, in order."""

    def __init__(self) -> None:
        self.stages_s: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.stages_s[stage] = time.perf_counter() - begin
