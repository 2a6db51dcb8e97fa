"""From any Relax module to one that the stock VM runs on several devices, as one pass. [TVM]"""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

from ._tvm import tvm
from .cost.choose.costing import cost_kernels
from .cost.table import build_problem
from .errors import SphinxError, UnsupportedError, known_choices
from .frontend.default_pipeline import run_default_pipeline
from .frontend.extract import extract_task_graph
from .frontend.load import entry_function
from .frontend.lower import lower_for_platform
from .notice import warn
from .platform import Device, Platform
from .platform.detect import detect_platform
from .platform.targets import device_target
from .program.decide import find_schedule
from .program.options import CompileOptions
from .program.stock_vm import lower_scheduled
from .relax_pass import annotate_schedule, is_scheduled
from .tune.apply import open_records


@tvm.transform.module_pass(opt_level=0, name="ScheduleForVM")
class ScheduleForVM:
    """Lower a module, schedule it for the stock VM, and lower the result for its code generator.

    The VM issues kernels from one thread: CPU devices take turns, and only devices of other kinds work
    beside them. The schedule is made for that. A module that is scheduled already is only lowered; one
    that cannot be scheduled takes TVM's pipeline for the target, with a warning.

    Parameters
    ----------
    platform : Platform or str, optional
        See `tvm_sphinx.plugin.sphinx_pipeline`.
    options
        Those of `tvm_sphinx.compile`, see `tvm_sphinx.plugin.sphinx_pipeline`.

    Raises
    ------
    SphinxError
        If an option is unknown, out of range, or one that a pass has no use for.
    """

    def __init__(self, platform: Platform | str | None = None, **options: Any) -> None:
        known = [field.name for field in fields(CompileOptions)]
        for name, value in options.items():
            if name not in known:
                raise SphinxError(known_choices("option of the pipeline", name, known))
            if name in ("output", "variants") and value:
                raise SphinxError(
                    f"The pipeline returns a module and writes no program: expected no {name}; got "
                    f"{value!r}. Use tvm_sphinx.compile."
                )
            if name == "fixed_inputs" and value:
                raise SphinxError(
                    f"The pipeline takes a module as it is: expected no fixed_inputs; got those of "
                    f"{', '.join(map(str, value))}. Bind them first, by relax.transform.BindParams."
                )
            if name == "libraries" and value:
                raise SphinxError(
                    f"TVM's VM calls no libraries: expected none; got {value!r}. Use tvm_sphinx.compile."
                )
            if name == "leave_out" and value:
                raise SphinxError("The pipeline measures all kernels: expected no leave_out; got True.")
        self.asked = CompileOptions(**options)
        self.asked.check_cost_model()
        self.given = None if platform is None else self.asked.platform(platform)

    def transform_module(self, mod: Any, _ctx: Any) -> Any:
        """Return the lowered module."""
        if is_scheduled(mod):
            return lower_scheduled()(mod)
        target = tvm.target.Target.current(allow_none=True)
        asked = self.asked
        platform = self.given or asked.platform(platform_for_target(target))
        records, sources = open_records(asked.records)
        try:
            entry = entry_function(mod, asked.function)
            lowered = lower_for_platform(mod, platform, entry)
            asked.dump("2-lowered", lowered)
            extraction = extract_task_graph(lowered, entry)
            costs = cost_kernels(
                extraction,
                platform,
                records,
                sources,
                budget_s=asked.measure_budget_s,
                predictor=asked.predictor(platform, records),
                config=asked.measure,
                progress=asked.progress,
            )
        except UnsupportedError as error:
            warn(f"tvm-sphinx leaves the module to TVM's pipeline: {error}")
            return run_default_pipeline(
                mod, target or device_target(platform.devices[platform.host_index])
            )
        problem = build_problem(extraction.graph, platform, costs.table, concurrent=False)
        found = find_schedule(asked.constrain(problem, extraction.graph), asked)
        annotated = annotate_schedule(extraction, found.best, platform, costs.choices.function)
        asked.dump_placed(annotated)
        return lower_scheduled()(annotated)


def platform_for_target(target: Any) -> Platform:
    """Return the platform of this machine with a target in the place of its own of the same kind.

    None, and a bare ``llvm`` without a processor, leave the detected targets as they are.
    """
    detected = detect_platform()
    if target is None or (target.kind.name == "llvm" and not target.attrs.get("mcpu")):
        return detected
    config = {key: value for key, value in json.loads(str(target)).items() if value and key != "host"}
    config.pop("keys", None)
    given = json.dumps(config, sort_keys=True)
    if target.kind.name == "llvm":
        config.pop("num-cores", None)
        given = json.dumps(config, sort_keys=True)
        return Platform(tuple(replace(d, target=given) if d.is_cpu else d for d in detected.devices))
    kind = str(target.kind.name)
    cpus = tuple(device for device in detected.devices if device.is_cpu)
    return Platform((*cpus, Device(f"{kind}0", given, f"{kind}:0")))
