"""Latency of the default kernel rules beside ONNX Runtime: same model, threads and machine, in turn.

    python benchmarks/kernels.py --cores 1 googlenet resnet50

Prints one line per model and writes JSON. Ratios are ours / ONNX Runtime, the median over rounds of
runs in turn; `error` is the largest difference relative to the largest value.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import models
import numpy as np
import onnxruntime
import tvm
from tvm import relax
from tvm.target.codegen import llvm_get_system_cpu

from tvm_sphinx.kernels import ScheduleKernels, prepare_layouts

_T = relax.transform
_IMPORT = [_T.DecomposeOpsForInference(), _T.CanonicalizeBindings(), _T.FoldConstant()]
_FUSE = [
    _T.LegalizeOps(),
    _T.AnnotateTIROpPattern(),
    _T.FoldConstant(),
    _T.FuseOps(),
    _T.FuseTIR(),
    _T.DeadCodeElimination(),
]
_LOWER = [
    _T.RewriteDataflowReshape(),
    _T.ToNonDataflow(),
    _T.RemovePurityChecking(),
    _T.CallTIRRewrite(),
    _T.StaticPlanBlockMemory(),
    _T.LowerAllocTensor(),
    _T.KillAfterLastUse(),
    _T.LowerRuntimeBuiltin(),
    _T.ComputePrimValue(),
    _T.VMShapeLower(),
    _T.AttachGlobalSymbol(),
]


def build(mod: tvm.IRModule, target: tvm.target.Target, cores: int) -> tuple[Any, float]:
    """Return a virtual machine for the module, and the seconds from packing to machine code."""
    with tvm.transform.PassContext(opt_level=3), target:
        mod = tvm.transform.Sequential([_T.FoldBatchnormToConv2D(), *_IMPORT])(mod)
        start = time.perf_counter()
        mod = tvm.transform.Sequential(_FUSE)(prepare_layouts(mod, [target]))
        mod = ScheduleKernels(target, cores)(mod)
        pipeline = tvm.transform.Sequential(_LOWER)
        built = relax.build(mod, target, relax_pipeline=pipeline)
    return relax.VirtualMachine(built, tvm.cpu()), time.perf_counter() - start


def arrays(value: Any) -> list[np.ndarray]:
    return [value.numpy()] if hasattr(value, "numpy") else [a for part in value for a in arrays(part)]


def seconds(call: Callable[[], Any]) -> float:
    """Return the mean time of one call over about a fifth of a second."""
    start = time.perf_counter()
    call()
    repeat = max(1, int(0.2 / max(1e-6, time.perf_counter() - start)))
    start = time.perf_counter()
    for _ in range(repeat):
        call()
    return (time.perf_counter() - start) / repeat


def compare(name: str, target: tvm.target.Target, cores: int, rounds: int) -> dict[str, Any]:
    model = models.load(name)
    machine, build_s = build(model.relax(), target, cores)
    inputs = [tvm.runtime.tensor(array) for array in model.numpy_inputs()]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cores
    session = onnxruntime.InferenceSession(model.onnx(), options, providers=["CPUExecutionProvider"])
    feed = {entry.name: model.inputs[entry.name] for entry in session.get_inputs()}
    expected = session.run(None, feed)
    got = arrays(machine["main"](*inputs))
    error = max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(got, expected, strict=True))
    ours, peer = [], []
    for _ in range(rounds):
        ours.append(seconds(lambda: machine["main"](*inputs)))
        peer.append(seconds(lambda: session.run(None, feed)))
    ratios = sorted(a / b for a, b in zip(ours, peer, strict=True))
    return {
        "model": name,
        "ours_ms": statistics.median(ours) * 1e3,
        "onnxruntime_ms": statistics.median(peer) * 1e3,
        "ratio": statistics.median(ratios),
        "ratio_range": [ratios[0], ratios[-1]],
        "error": error,
        "build_s": build_s,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="*", default=["googlenet", "resnet18", "squeezenet"])
    parser.add_argument("--cores", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    tvm.get_global_func("runtime.config_threadpool")(1, options.cores)
    target = tvm.target.Target({"kind": "llvm", "mcpu": llvm_get_system_cpu()})
    print(f"{target} cores {options.cores} load {os.getloadavg()[0]:.1f} seed {models.SEED}")
    rows = []
    for name in options.model:
        row = compare(name, target, options.cores, options.rounds)
        rows.append(row)
        low, high = row["ratio_range"]
        print(
            f"{name:18} ours {row['ours_ms']:8.2f} ms  onnxruntime {row['onnxruntime_ms']:8.2f} ms  "
            f"ratio {row['ratio']:.2f} ({low:.2f}-{high:.2f})  error {row['error']:.0e}  "
            f"build {row['build_s']:.1f} s",
            flush=True,
        )
    mean = math.exp(statistics.fmean(math.log(row["ratio"]) for row in rows))
    print(f"geometric mean of the ratios {mean:.3f} over {len(rows)} models")
    if options.json is not None:
        options.json.write_text(json.dumps({"cores": options.cores, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
