"""The main path, from a model to a program that runs it on all devices. [TVM]"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ._tvm import tvm
from .cost.choose.candidates import CandidateSource, KernelChoices, choose_kernels
from .cost.choose.fill import always_measured, fill_costs
from .cost.measure.kernels import MeasureConfig, measure_costs
from .cost.model.model_file import CostModel, default_model_path, load_cost_model
from .cost.records.store import RecordStore
from .cost.table import CostTable, build_problem
from .errors import UnsupportedError
from .frontend.extract import Extraction, extract_task_graph
from .frontend.load import entry_function, load_model, read_source
from .frontend.lower import lower_to_kernels
from .frontend.signature import check_declared, input_specs, output_specs
from .patterns import (
    find_patterns,
    prune_problem,
    prune_search_space,
    report_pruning,
    search_with_pruning,
)
from .platform import Platform
from .platform.targets import device_target
from .program.compare_builds import is_promising, speedup
from .program.compiled import CompiledModel, check_inputs, random_inputs
from .program.fallback import build_on_single_device
from .program.kinds import LaneProgramFile, Program, build_stock_program
from .program.verify.check import Subject, verify_program
from .program.verify.verification import Verification
from .progress import Progress
from .relax_pass import annotate_schedule
from .report.placement import PlacementReport, format_ns, placement_report
from .runtime.build import build_image
from .scheduling.graph import TaskGraph
from .scheduling.schedule import Schedule, validate
from .search import SearchResult, Stop, check_algorithm, search_schedule
from .tune.apply import open_records


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
    prune: bool = True,
    measure: MeasureConfig | None = None,
    measure_budget_s: float | None = None,
    cost_model: str | Path = "default",
    with_reference: bool = True,
    verify: bool = True,
    verify_inputs: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> CompiledModel:
    """Compile a model so that one inference is spread over the devices of a platform.

    Parameters
    ----------
    model
        What `tvm_sphinx.frontend.load.load_model` takes: a path, a demo model's name, or a model in
        memory.
    platform
        A platform, a name in `tvm_sphinx.platform.NAMED_PLATFORMS`, or a platform file.
    input_shapes
        Shapes of ONNX inputs that the file leaves open.
    function
        Relax function to schedule; by default ``main`` or the only one.
    records
        File of measured times to use and to extend, or its folder (see
        `tvm_sphinx.cost.records.store.record_path`); what `tvm-sphinx tune` has found lies beside it.
        None keeps times in memory, without tuned kernels.
    algorithm, seed, stop
        See `tvm_sphinx.search.search_schedule`.
    prune
        Start ``"cpga"`` from a schedule of the network's layers folded together, where layers follow
        each other; see `tvm_sphinx.patterns.search_with_pruning`.
    measure
        How long to measure, and through which RPC tracker where the platform is of another machine.
    measure_budget_s
        Seconds to measure kernels that are not on record; the rest is predicted, see
        `tvm_sphinx.cost.choose.fill.fill_costs`. None measures all of them.
    cost_model
        File of the model that predicts; made by ``tvm-sphinx train``.
    with_reference
        Also build the model for the best single device, and race the two: where the schedule turns out
        to be slower, the model runs on the single device. It does so, too, where the schedule promises
        less than 2 % (`tvm_sphinx.program.compare_builds.LEAST_GAIN`).
    verify
        Run the program and the source of the model (an ONNX file by ONNX Runtime, a torch program by
        torch) on the same inputs and compare; see `tvm_sphinx.program.verify.check`.
    verify_inputs
        Inputs by name to verify with; by default some are drawn.
    progress
        Called as ``progress(stage, done, total)``.

    Raises
    ------
    SphinxError
        With one sentence that names the value, the rule and the choices; nothing is written.
    """
    clock = _StageClock()
    check_algorithm(algorithm)
    predictor = None
    if measure_budget_s is not None:
        model_path = default_model_path() if cost_model == "default" else cost_model
        predictor = load_cost_model(model_path, str(tvm.__version__))
    if not isinstance(platform, Platform):
        platform = Platform.named(str(platform))
    store, sources = open_records(records)
    with clock("load"):
        source = read_source(model)
        module = load_model(source, input_shapes=input_shapes)
        entry = entry_function(module, function)
        signature = source.signature(module[entry])
        check_declared(module[entry], signature, source.where, input_shapes)
        inputs = input_specs(module[entry], signature)
        outputs = output_specs(module[entry], signature)
        if verify_inputs is not None:
            check_inputs(inputs, verify_inputs)

    def verified(program: Program, reference: Program | None) -> Verification | None:
        if not verify:
            return None
        with clock("verify"):
            subject = Subject(program, reference, source, module[entry], inputs, outputs, platform)
            return verify_program(subject, verify_inputs, seed=seed)

    with clock("lower"):
        kernels = _lower(module, platform, entry)
    try:
        with clock("extract"):
            extraction = extract_task_graph(kernels, entry)
    except UnsupportedError as error:
        compiled = build_on_single_device(
            module,
            entry,
            platform,
            str(error),
            clock.stages_s,
            measure,
            inputs=inputs,
            outputs=outputs,
        )
        compiled.verification = verified(compiled.program, None)
        return compiled
    with clock("measure"):
        choices, costs = _cost(
            extraction, platform, store, sources, measure, predictor, measure_budget_s or 0.0, progress
        )
    with clock("search"):
        problem = build_problem(extraction.graph, platform, costs)
        if prune and algorithm == "cpga":
            pruned = prune_problem(problem, extraction.graph)
            found = search_with_pruning(problem, pruned, seed=seed, stop=stop)
        else:
            found = search_schedule(problem, algorithm=algorithm, seed=seed, stop=stop)
        validate(problem, found.best)
        # A device that works alone is not slowed by others: its times are those that were measured.
        alone = build_problem(extraction.graph, platform, costs, loaded=False)
        single = search_schedule(alone, algorithm="single")
        promise = ""
        if not is_promising(found.best, single.best):
            if (found.best.device != single.best.device).any():
                promise = (
                    f"The best schedule over all devices is predicted at "
                    f"{format_ns(found.best.makespan_ns)}, too little below the best single "
                    f"device's {format_ns(single.best.makespan_ns)} to be tried: the model runs on that."
                )
            found = single
    with clock("patterns"):
        hierarchy = find_patterns(extraction.graph)
        space = prune_search_space(extraction.graph, hierarchy, problem)
        pruning = report_pruning(extraction.graph, hierarchy, space, problem)
    with clock("annotate"):
        annotated = annotate_schedule(extraction, found.best, platform, choices.function)
    with clock("build"):
        program, note = _build(annotated, platform, found.best, entry)
        note = note or promise
    reference = None
    if with_reference and found is single:
        reference = program
    elif with_reference:
        with clock("build reference"):
            on_one = annotate_schedule(extraction, single.best, platform, choices.function)
            reference, _ = _build(on_one, platform, single.best, entry)
        ratio = None
        if not platform.is_remote:
            with clock("race"):
                arrays = list(random_inputs(inputs).values())
                ratio = speedup(program, reference, arrays, progress)
        if ratio is not None and ratio < 1.0 and (found.best.device != single.best.device).any():
            note = (
                f"The schedule, predicted at {format_ns(found.best.makespan_ns)}, measured {ratio:.2f}x "
                f"as fast as the best single device alone, so the model runs on that device."
            )
            program, found = reference, single
    return CompiledModel(
        inputs=inputs,
        outputs=outputs,
        verification=verified(program, reference),
        platform=platform,
        program=program,
        reference=reference,
        report=_report(
            extraction,
            platform,
            costs,
            found,
            single,
            choices,
            always_measured(platform) if predictor else [],
        ),
        note=note,
        stages_s=clock.stages_s,
        graph=extraction.graph,
        pruning=pruning,
    )


def _cost(
    extraction: Extraction,
    platform: Platform,
    store: RecordStore,
    sources: Sequence[CandidateSource],
    config: MeasureConfig | None,
    predictor: CostModel | None,
    budget_s: float,
    progress: Progress | None,
) -> tuple[KernelChoices, CostTable]:
    """Measure all kernels and choose the fastest of each; with a predictor, measure within a budget."""
    if predictor is not None:
        return fill_costs(
            extraction, platform, store, predictor, budget_s, sources, config=config, progress=progress
        )
    choices = choose_kernels(extraction, platform, store, sources, config=config, progress=progress)
    costs = measure_costs(
        extraction, platform, store, config=config, progress=progress, implement=choices.function
    )
    return choices, costs


def extract_graph(
    model: Any,
    platform: Platform | str | Path = "detect",
    *,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    function: str | None = None,
) -> TaskGraph:
    """Return the task graph that `compile` would schedule; parameters are those of `compile`.

    The platform decides the layouts of kernels, and hence which of them are equal.

    Raises
    ------
    UnsupportedError
        If the model has dynamic shapes or control flow, and so no task graph.
    SphinxError
        If the model or the platform cannot be loaded.
    """
    if not isinstance(platform, Platform):
        platform = Platform.named(str(platform))
    module = load_model(model, input_shapes=input_shapes)
    entry = entry_function(module, function)
    return extract_task_graph(_lower(module, platform, entry), entry).graph


def _lower(module: Any, platform: Platform, entry: str) -> Any:
    targets = [device_target(device) for device in platform.devices]
    return lower_to_kernels(module, targets[platform.host_index], entry, targets=targets)


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
    choices: KernelChoices,
    outside_model: Sequence[str],
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
        implementations=_implementations(extraction, platform, found.best, choices),
        default_kernels=_default_kernels(extraction, platform, found.best, choices),
        always_measured=outside_model,
    )


def _implementations(
    extraction: Extraction, platform: Platform, schedule: Schedule, choices: KernelChoices
) -> dict[str, int]:
    """Count the distinct kernels that a schedule runs, each once on each device, by their origin."""
    placed = {
        (task.kernel, int(device))
        for task, device in zip(extraction.graph.tasks, schedule.device, strict=True)
    }
    origins = [choices.origin(kernel, platform.devices[device]) for kernel, device in placed]
    return {origin: origins.count(origin) for origin in sorted(set(origins) - {""})}


def _default_kernels(
    extraction: Extraction, platform: Platform, schedule: Schedule, choices: KernelChoices
) -> list[str]:
    """Name the kernels that run on a CPU device in TVM's default loops, by operators and first task."""
    found: dict[tuple[str, str], str] = {}
    for task, number in zip(extraction.graph.tasks, schedule.device.tolist(), strict=True):
        device = platform.devices[number]
        if choices.origin(task.kernel, device) == "default":
            name = f"{'+'.join(task.op_kinds)} ({task.name} on {device.name})"
            found.setdefault((task.kernel, device.cost_class), name)
    return list(found.values())


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
