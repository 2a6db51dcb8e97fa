"""The main path, from a model to a program that runs it on all devices: its stages on one page. [TVM]"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .cost.choose.costing import Costing, cost_kernels
from .errors import UnsupportedError
from .frontend.extract import Extraction
from .frontend.load import entry_function, load_model, read_source
from .frontend.model_source import ModelSource
from .frontend.schedulable import find_schedulable
from .frontend.signature import Interface, read_interface
from .platform import Platform
from .program.build import build_program
from .program.compare_builds import Build
from .program.compiled import CompiledModel
from .program.decide import decide_schedule, record_decision
from .program.dynamic_part import complete_programs, open_part
from .program.fallback import build_fallback
from .program.options import CompileOptions, shows_options
from .program.refine import settle
from .program.variants import build_variants
from .program.verify.check import Subject
from .progress import StageClock
from .relax_pass import annotate_schedule
from .report.placement import placement_report
from .search import SearchResult
from .tune.apply import note_costs, open_records


@shows_options
def compile(model: Any, platform: Platform | str | Path = "detect", **options: Any) -> CompiledModel:
    """Compile a model so that one inference is spread over the devices of a platform.

    Parameters
    ----------
    model
        What `tvm_sphinx.frontend.load.load_model` takes: a path, a demo model's name, or a model in
        memory.
    platform
        A platform, a name in `tvm_sphinx.platform.NAMED_PLATFORMS`, or a platform file.
    options
        See `tvm_sphinx.program.options.CompileOptions`; all have defaults.

    Raises
    ------
    SphinxError
        With one sentence that names the value, the rule and the choices; nothing is written.
    """
    asked, clock = CompileOptions(**options), StageClock()
    asked.check_cost_model()
    devices = asked.platform(platform)
    records, tuned = open_records(asked.records)
    sources = [*tuned, *asked.library_kernels()]
    with clock("load"):
        source = read_source(model, asked.fixed_inputs, asked.function)
        module = load_model(source, input_shapes=asked.input_shapes)
        entry = entry_function(module, asked.function)
        interface = read_interface(source, module[entry], asked.input_shapes)
        asked.check_verify_inputs(interface)
        subject = Subject(source, module[entry], interface, devices)
    asked.dump("1-imported", module)
    try:
        schedulable = find_schedulable(module, devices, entry, clock, asked.dump)
        part = open_part(schedulable.split, entry, devices, clock, asked.measure)
    except UnsupportedError as error:
        reason = _why_not_scheduled(error, source, interface)
        compiled = build_fallback(module, entry, devices, reason, clock, interface, asked.measure)
        compiled.fixed_inputs = dict(source.fixed)
        compiled.verification = asked.verify_program(subject, compiled.program, None, clock)
        return asked.deliver(compiled)
    extraction, graph = schedulable.extraction, schedulable.extraction.graph
    asked.check_limits(graph, devices)
    with clock("measure"):
        costs = cost_kernels(
            extraction,
            devices,
            records,
            sources,
            budget_s=asked.measure_budget_s,
            predictor=asked.predictor(devices, records),
            guide=asked.guide(devices, records),
            in_place=not asked.refine_s,  # a loop begins with what kernels take alone
            config=asked.measure,
            progress=asked.progress,
        )
    note_costs(records, source.name, costs, devices)
    with clock("search"):
        decided = decide_schedule(graph, devices, costs, asked)

    def build(found: SearchResult) -> Build:
        return _build(extraction, found, devices, costs, entry, StageClock())

    first = _build(extraction, decided.found, devices, costs, entry, clock, decided.note, asked)
    settled = settle(
        first,
        decided,
        costs,
        graph,
        devices,
        interface,
        asked,
        records,
        decide=lambda costs: decide_schedule(graph, devices, costs, asked),
        build=build,
        clock=clock,
    )
    kept, decided, costs = settled.kept, settled.decided, settled.costs
    programs = complete_programs(
        part,
        kept.program,
        settled.reference.program if settled.reference else None,
        build_variants(decided, kept, build, extraction, devices, costs, entry)
        if asked.variants
        else {},
        interface.inputs,
        clock,
    )
    return asked.deliver(
        CompiledModel(
            inputs=interface.inputs,
            outputs=interface.outputs,
            fixed_inputs=dict(source.fixed),
            platform=devices,
            program=programs.program,
            reference=programs.reference,
            report=placement_report(
                graph, devices, kept.found, decided.single.best, costs.summary, programs.dynamic
            ),
            note=programs.with_note(kept.note),
            stages_s=clock.stages_s,
            graph=graph,
            pruning=decided.searched.pruning,
            decision=record_decision(decided, kept.found, graph, devices, costs, asked),
            variants=programs.variants,
            verification=asked.verify_program(subject, programs.program, programs.reference, clock),
        )
    )


def _why_not_scheduled(error: UnsupportedError, source: ModelSource, interface: Interface) -> str:
    """Return the error, and what the user can do about open inputs."""
    if source.kind == "onnx" and any(-1 in spec.shape for spec in interface.inputs):
        return f"{error} What the file leaves open, --input-shapes settles."
    return str(error)


def _build(
    extraction: Extraction,
    found: SearchResult,
    platform: Platform,
    costs: Costing,
    entry: str,
    clock: StageClock,
    note: str = "",
    asked: CompileOptions | None = None,
) -> Build:
    """Write a schedule into the module, and compile that; its own note comes before the given one."""
    with clock("annotate"):
        annotated = annotate_schedule(extraction, found.best, platform, costs.choices.function)
    if asked is not None:
        asked.dump_placed(annotated)
    with clock("build"):
        program, reason = build_program(annotated, platform, found.best, entry)
    return Build(found, program, reason or note)
