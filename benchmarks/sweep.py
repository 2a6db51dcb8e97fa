"""Every kernel of every model, scheduled by the rules against unscheduled: the numbers have to agree.

    PYTHONPATH=.:benchmarks python benchmarks/sweep.py --out sweep.jsonl [MODEL ...]

Kernels are told apart by structure, so each is run once however many models have it. Each result is on
record before the next kernel is built: run the same command again to go on after a kill. A kernel that
killed the process is on record as started, and counts as a failure. A kernel whose unscheduled form
would take longer than --cap seconds is on record as skipped. Exits with 1 where a kernel failed.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import models
import numpy as np
import tvm

from tests.kernels.reference import compare
from tvm_sphinx.frontend.extract import Kernel, extract_task_graph
from tvm_sphinx.frontend.lower import lower_to_kernels
from tvm_sphinx.kernels import rule_of, schedule_kernel
from tvm_sphinx.platform.targets import host_target

_FLOPS_PER_S = 3e8  # what unscheduled loops reach at least


def draw_inputs(kernel: Kernel, rng: np.random.Generator) -> list[np.ndarray]:
    """Draw an array for each operand; integers are 0 or 1, so that they are valid indices."""
    arrays = []
    for ty in kernel.argument_types:
        shape, dtype = tuple(int(extent) for extent in ty.shape.values), str(ty.dtype)
        if dtype.startswith("float"):
            arrays.append(rng.standard_normal(shape).astype(dtype))
        else:
            arrays.append(rng.integers(0, 2, shape).astype(dtype))
    return arrays


def run(function: Any, target: Any, arrays: list[np.ndarray]) -> list[np.ndarray]:
    """Build and call a PrimFunc; return all its operands afterwards."""
    named = function.with_attr("global_symbol", "main")
    built = tvm.build(tvm.IRModule({"main": named}), target=target)
    tensors = [tvm.runtime.tensor(array) for array in arrays]
    built["main"](*tensors)
    return [tensor.numpy() for tensor in tensors]


def check(kernel: Kernel, target: Any, cores: list[int]) -> dict[str, Any]:
    """Return the result of one kernel: its state, its rule, and what is wrong with it."""
    arrays = draw_inputs(kernel, np.random.default_rng(1))
    expected, rules = None, {}
    for count in cores:
        scheduled = schedule_kernel(kernel.function, target, count)
        rules[str(count)] = "" if scheduled is None else rule_of(scheduled)
        if scheduled is None:
            continue
        tvm.get_global_func("runtime.config_threadpool")(1, count)
        got = run(scheduled, target, arrays)
        if expected is None:
            expected = run(kernel.function, target, arrays)
        try:
            for a, b in zip(got, expected, strict=True):
                compare(a, b)
        except AssertionError as error:
            lines = [line for line in str(error).splitlines() if line.strip()]
            return {"state": "wrong", "rule": rules, "cores": count, "why": " ".join(lines[:6])}
    return {"state": "equal", "rule": rules}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="*", default=models.names())
    parser.add_argument("--out", type=Path, default=Path("sweep.jsonl"))
    parser.add_argument("--cores", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--cap", type=float, default=60.0, help="seconds of an unscheduled kernel")
    options = parser.parse_args()
    results: dict[str, dict[str, Any]] = {}
    if options.out.exists():
        for line in options.out.read_text().splitlines():
            entry = json.loads(line)
            results[entry["kernel"]] = entry
    target = tvm.target.Target(host_target())
    with options.out.open("a") as out:

        def write(entry: dict[str, Any]) -> None:
            results[entry["kernel"]] = entry
            print(json.dumps(entry), file=out, flush=True)
            os.fsync(out.fileno())

        done_models = {entry["kernel"] for entry in results.values() if entry["state"] == "model"}
        for name in options.model:
            if f"model {name}" in done_models:
                continue
            module = models.load(name).relax()
            extraction = extract_task_graph(lower_to_kernels(module, target, targets=[target]))
            for kernel in extraction.kernels.values():
                if kernel.is_external or kernel.id in results:
                    continue
                task = next(task for task in extraction.graph.tasks if task.kernel == kernel.id)
                entry = {"kernel": kernel.id, "model": name, "kinds": "+".join(task.op_kinds)}
                if task.flops > options.cap * _FLOPS_PER_S:
                    write({**entry, "state": "skipped", "flops": task.flops})
                    continue
                write({**entry, "state": "started"})
                try:
                    write({**entry, **check(kernel, target, options.cores)})
                except Exception as error:  # a kernel that does not build is a result too
                    write({**entry, "state": "error", "why": str(error).splitlines()[-1]})
            write({"kernel": f"model {name}", "state": "model", "kernels": len(extraction.kernels)})
            print(f"{name}: {len(extraction.kernels)} kernels", flush=True)
    kernels = [entry for entry in results.values() if entry["state"] != "model"]
    failed = [entry for entry in kernels if entry["state"] in ("wrong", "error", "started")]
    default = [entry for entry in kernels if "" in entry.get("rule", {}).values()]
    skipped = [entry for entry in kernels if entry["state"] == "skipped"]
    for title, entries in (("FAILED", failed), ("no rule", default), ("skipped", skipped)):
        for entry in entries:
            print(title, json.dumps(entry))
    print(
        f"{len(kernels)} kernels: {len(failed)} failed, {len(skipped)} skipped, {len(default)} no rule"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
