"""Is the GPU there, do kernels compile and agree with the CPU, do mixed placements agree?

    python benchmarks/gpu/check.py OUT.jsonl [CHECK ...]

One JSON line per check, each by itself: a failure is a line, not the end.
"""

from __future__ import annotations

import ctypes
import json
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from platforms import cpu_devices, gpu_devices, install_fake_compiler, platforms
from small_network import small_input, small_network

import tvm_sphinx
from tvm_sphinx.cost.measure.kernel_timing import MeasureConfig
from tvm_sphinx.frontend.extract import extract_task_graph
from tvm_sphinx.frontend.lower import lower_to_kernels
from tvm_sphinx.platform import Platform, load_platform
from tvm_sphinx.platform.targets import device_target
from tvm_sphinx.program.build import build_stock_program
from tvm_sphinx.program.kinds import LaneProgramFile, flatten_outputs
from tvm_sphinx.relax_pass import annotate_schedule
from tvm_sphinx.runtime.build import build_image
from tvm_sphinx.scheduling.schedule import Schedule

_TOLERANCE = 1e-3
_QUICK = MeasureConfig(sample_ms=0.5, under_load=False)
Check = Callable[[], dict[str, Any]]


def runtime() -> dict[str, Any]:
    """TVM has its CUDA runtime; where it has not, say why, which TVM does not."""
    library = Path(tvm.__file__).parent / "lib" / "libtvm_runtime_cuda.so"
    try:
        ctypes.CDLL(str(library))
        why = ""
    except OSError as error:
        why = str(error)
    assert tvm.cuda(0).exist, why or "TVM finds no device"
    return {"tvm": tvm.__version__, "numpy": np.__version__, "python": sys.version.split()[0]}


def devices() -> dict[str, Any]:
    """The package finds the GPU."""
    assert gpu_devices(), "no device of a GPU in the platform detect"
    described = [f"{device.name}: {device.runtime} {device.target}" for device in gpu_devices()]
    return {
        "devices": described,
        "detected": [device.name for device in load_platform("detect").devices],
    }


def without_xgboost() -> dict[str, Any]:
    """Nothing that was imported so far needs XGBoost."""
    assert "xgboost" not in sys.modules
    return {"modules": len(sys.modules)}


def stock_placements() -> dict[str, Any]:
    """All on the CPU, all on the GPU, and random placements agree on TVM's own VM."""
    return _placements(
        lambda annotated, platform, _: build_stock_program(annotated, platform, "main").open(), 3
    )


def lane_placements() -> dict[str, Any]:
    """The same in the lanes."""
    return _placements(
        lambda annotated, platform, schedule: LaneProgramFile(
            build_image(annotated, platform, schedule)
        ).open(),
        6,
    )


def _placements(open_program: Callable[..., Any], most: int) -> dict[str, Any]:
    platform = Platform((cpu_devices()[0], *gpu_devices()))
    targets = [device_target(device) for device in platform.devices]
    kernels = lower_to_kernels(small_network(), targets[platform.host_index], targets=targets)
    extraction = extract_task_graph(kernels)
    count, rng = extraction.graph.num_tasks, np.random.default_rng(2)
    start = np.arange(count) * 10
    expected, worst = None, 0.0
    for number in range(most):
        drawn = rng.integers(0, len(platform.devices), count)
        placement = np.full(count, number) if number < 2 else drawn
        schedule = Schedule(placement, start, start + 10, 10 * count, 0, "by hand")
        annotated = annotate_schedule(extraction, schedule, platform)
        program = open_program(annotated, platform, schedule)
        for _ in range(20):
            got = flatten_outputs(program([small_input()]))[0]
            expected = got if expected is None else expected
            worst = max(worst, float(np.abs(got - expected).max() / np.abs(expected).max()))
    assert worst < _TOLERANCE, f"relative error {worst}"
    return {"tasks": count, "devices": len(platform.devices), "worst_relative_error": worst}


def compile_and_run() -> dict[str, Any]:
    """Each platform is measured, searched, built, and agrees with the CPU."""
    outputs, found = {}, {}
    for name, platform in platforms().items():
        compiled = tvm_sphinx.compile(small_network(), platform, records=None, measure=_QUICK)
        for _ in range(20):
            outputs[name] = compiled.run([small_input()])[0]
        found[name] = compiled.describe()[:1500]
    expected = outputs["ours, cpu alone"]
    errors = {
        name: float(np.abs(output - expected).max() / np.abs(expected).max())
        for name, output in outputs.items()
    }
    assert max(errors.values()) < _TOLERANCE, errors
    return {"relative_errors": errors, "reports": found}


CHECKS: tuple[Check, ...] = (
    runtime,
    devices,
    without_xgboost,
    stock_placements,
    lane_placements,
    compile_and_run,
)


def main(path: str, *names: str) -> None:
    install_fake_compiler()
    with open(path, "a", buffering=1) as file:
        for check in CHECKS:
            if names and check.__name__ not in names:
                continue
            begin = time.perf_counter()
            row: dict[str, Any] = {"check": check.__name__}
            try:
                row.update({"ok": True, **check()})
            except Exception as error:
                row.update({"ok": False, "error": f"{type(error).__name__}: {error}"[:1500]})
                row["trace"] = traceback.format_exc()[-1500:]
            row["seconds"] = round(time.perf_counter() - begin, 2)
            file.write(json.dumps(row) + "\n")
            print(row["check"], "ok" if row["ok"] else row["error"], row["seconds"], "s", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
