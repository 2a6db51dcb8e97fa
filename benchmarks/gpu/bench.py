"""Latency of models at batch 1: ours on CPU and GPU, on one of them; torch and ONNX Runtime.

    python benchmarks/gpu/bench.py --out OUT --work WORK --seconds 400 --models bilstm googlenet

One process per model and stage, so that a crash costs one; one JSON line in OUT/bench.jsonl per
result, written when it is known. Torch and ONNX Runtime come first, several models at once, of which one
at a time is timed; then ours, one model after another, as they measure while they compile. Records of
kernels, with which machines without this GPU can schedule for it, go to WORK/records, what the processes
say to WORK/logs. Times are of a call from host arrays to host arrays.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

MODELS = (
    "googlenet bilstm nasnet inception_v3 lxmert clip bert_base resnet50 mobilenet_v2 vit_b16".split()
)
Row = dict[str, Any]


class Results:
    """Appends rows to a file, each when it is known."""

    def __init__(self, path: Path, model: str) -> None:
        self.path, self.model = path, model

    def add(self, what: str, function: Callable[[], Row]) -> None:
        """Call a function and write the row that it returns, or its error."""
        begin = time.perf_counter()
        row: Row = {"model": self.model, "what": what}
        try:
            row.update({"ok": True, **function()})
        except Exception as error:
            row.update({"ok": False, "error": f"{type(error).__name__}: {error}"[:800]})
            row["trace"] = traceback.format_exc()[-1200:]
        row["seconds"] = round(time.perf_counter() - begin, 1)
        self.write(row)
        print({key: value for key, value in row.items() if key != "trace"}, flush=True)

    def write(self, row: Row) -> None:
        """Append a row."""
        with open(self.path, "a") as file:
            file.write(json.dumps(row) + "\n")


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Keep other processes of this benchmark from timing at the same time."""
    with open(Path(tempfile.gettempdir()) / "tvm-sphinx-bench.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def timed(call: Callable[[], Any], seconds: float = 0.7, most: int = 500) -> Row:
    """Return the median, and the 10th and 90th percentile, of calls after five, in us."""
    with alone():
        for _ in range(5):
            call()
        samples: list[float] = []
        end = time.perf_counter() + seconds
        while len(samples) < 5 or (len(samples) < most and time.perf_counter() < end):
            begin = time.perf_counter()
            call()
            samples.append(time.perf_counter() - begin)
    return quantiles(samples)


def quantiles(seconds: Sequence[float]) -> Row:
    low, middle, high = np.percentile(np.array(seconds) * 1e6, [10, 50, 90]).round(2).tolist()
    return {"median_us": middle, "p10_us": low, "p90_us": high, "n": len(seconds)}


def peers(model: Any, results: Results) -> None:
    """Time ONNX Runtime on the CPU; torch on the GPU, eager and in a graph, with TF32 off and on."""
    results.add("onnxruntime, cpu", lambda: onnxruntime_on_cpu(model))
    if model.torch_module is None:
        return
    import torch

    if not torch.cuda.is_available():
        return
    with torch.inference_mode():
        on_gpu = TorchOnGpu(model)
        for tf32 in (False, True):
            torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
            torch.backends.cudnn.benchmark = True
            suffix = ", tf32" if tf32 else ""
            results.add(f"torch eager, gpu{suffix}", lambda: timed(on_gpu.eager))
            results.add(f"torch cuda graph, gpu{suffix}", on_gpu.time_graph)


def onnxruntime_on_cpu(model: Any) -> Row:
    import onnxruntime

    session = onnxruntime.InferenceSession(model.onnx(), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    feed = dict(zip(names, model.numpy_inputs(), strict=True))
    return timed(lambda: session.run(None, feed))


class TorchOnGpu:
    """A torch network on the GPU, its inputs and outputs in pinned memory."""

    def __init__(self, model: Any) -> None:
        import torch

        self.torch = torch
        self.network = model.torch_module.to("cuda").eval()
        self.host = [tensor.pin_memory() for tensor in model.torch_inputs()]
        self.inputs = [tensor.to("cuda") for tensor in self.host]

    def outputs(self) -> list[Any]:
        """Run the network; return its outputs, on the GPU."""
        result = self.network(*self.inputs)
        values = [result] if self.torch.is_tensor(result) else list(result)
        return [value for value in values if self.torch.is_tensor(value)]

    def bring_inputs(self) -> None:
        """Issue the copies of the inputs."""
        for to, source in zip(self.inputs, self.host, strict=True):
            to.copy_(source, non_blocking=True)

    def eager(self) -> list[Any]:
        """Return the outputs on the host."""
        self.bring_inputs()
        return [value.cpu() for value in self.outputs()]

    def time_graph(self) -> Row:
        """Return the time of a call, and of the graph on the GPU alone."""
        cuda = self.torch.cuda
        stream = cuda.Stream()
        stream.wait_stream(cuda.current_stream())
        with cuda.stream(stream):
            for _ in range(3):
                self.outputs()
        cuda.current_stream().wait_stream(stream)
        graph = cuda.CUDAGraph()
        with cuda.graph(graph):
            kept = self.outputs()
        back = [self.torch.empty(value.shape, dtype=value.dtype, pin_memory=True) for value in kept]

        def call() -> None:
            self.bring_inputs()
            graph.replay()
            for to, source in zip(back, kept, strict=True):
                to.copy_(source, non_blocking=True)
            cuda.synchronize()

        row = timed(call)
        begin, end = (cuda.Event(enable_timing=True) for _ in range(2))
        times = []
        with alone():
            for _ in range(50):
                begin.record()
                graph.replay()
                end.record()
                cuda.synchronize()
                times.append(begin.elapsed_time(end) * 1e-3)
        return {**row, "on_gpu": quantiles(times)}


def ours(model: Any, results: Results, work: Path) -> None:
    """Compile for each platform, and time what comes of it beside what was predicted."""
    from platforms import install_fake_compiler, platforms

    install_fake_compiler()
    module, expected = model.relax(), torch_outputs(model)
    for what, (platform, algorithm) in platforms().items():
        results.add(what, lambda: compile_and_time(module, model, platform, algorithm, expected, work))  # noqa: B023


def compile_and_time(
    module: Any, model: Any, platform: Any, algorithm: str, expected: list[np.ndarray], work: Path
) -> Row:
    import tvm_sphinx
    from tvm_sphinx.cost.measure.kernel_timing import MeasureConfig

    begin = time.perf_counter()
    compiled = tvm_sphinx.compile(
        module,
        platform,
        algorithm=algorithm,
        records=work / "records",
        measure=MeasureConfig(sample_ms=1.0),
    )
    row: Row = {"compile_s": round(time.perf_counter() - begin, 1), "note": compiled.note}
    row["stages_s"] = {stage: round(seconds, 1) for stage, seconds in compiled.stages_s.items()}
    if compiled.report is not None:
        report = compiled.report
        row["predicted_us"] = report.makespan_ns / 1e3
        row["predicted_single_us"] = report.best_single_device_ns / 1e3
        row["lower_bound_us"] = report.lower_bound_ns / 1e3
        row["devices"] = {device.name: [device.tasks, device.busy_ns] for device in report.devices}
    inputs = model.numpy_inputs()
    outputs = compiled.run(inputs)
    if expected:
        row["error_to_torch"] = max(map(relative_error, outputs, expected))
    return {**row, **timed(lambda: compiled.run(inputs))}


def torch_outputs(model: Any) -> list[np.ndarray]:
    """Return what torch computes on the CPU; nothing where there is no torch module."""
    if model.torch_module is None:
        return []
    import torch

    with torch.inference_mode():
        result = model.torch_module(*model.torch_inputs())
    return [value.numpy() for value in ([result] if torch.is_tensor(result) else result)]


def relative_error(output: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(output - expected).max() / max(1e-30, np.abs(expected).max()))


def small_model() -> Any:
    """Return the small network in the form of the zoo's, for a run that has to be quick."""
    import models
    from small_network import small_input, small_network

    class Small(models.Model):
        def relax(self) -> Any:
            return small_network()

        def onnx(self) -> bytes:
            raise ValueError("the small network is made in Relax")

    return Small("small", {"x": small_input()})


def child(args: argparse.Namespace) -> None:
    """Run one stage of one model."""
    import models

    model = small_model() if args.child == "small" else models.load(args.child)
    results = Results(args.out / "bench.jsonl", args.child)
    if args.stage == "peers":
        peers(model, results)
    else:
        ours(model, results, args.work)


def run_child(args: argparse.Namespace, name: str, stage: str, until: float) -> None:
    """Run a stage in a process of its own until then; say how it ended if not well."""
    left = until - time.time()
    if left < 15:
        print(f"no time is left for {name}, {stage}", flush=True)
        return
    options = ["--child", name, "--stage", stage, "--out", str(args.out), "--work", str(args.work)]
    with open(args.work / "logs" / f"{name}_{stage}.txt", "w") as log:
        process = subprocess.Popen([sys.executable, __file__, *options], stdout=log, stderr=log)
        try:
            status: int | str = process.wait(left)
        except subprocess.TimeoutExpired:
            process.kill()
            status = "out of time"
    if status:
        print(f"{name}, {stage}: ended with {status}", flush=True)
        row = {"model": name, "what": stage, "ok": False, "error": f"ended with {status}"}
        Results(args.out / "bench.jsonl", name).write(row)


def print_table(path: Path) -> None:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        value = f"{row['median_us']:.1f} us" if "median_us" in row else row.get("error", "")[:80]
        predicted = f"   predicted {row['predicted_us']:.1f}" if "predicted_us" in row else ""
        print(f"{row['model']:14} {row['what']:28} {value}{predicted}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--models", nargs="*", default=MODELS)
    parser.add_argument("--jobs", type=int, default=5, help="models whose peers run at once")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--stage", default="peers", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args)
        return
    (args.work / "logs").mkdir(parents=True, exist_ok=True)
    (args.out / "bench.jsonl").touch()
    begin = time.time()
    end = begin + args.seconds
    with ThreadPoolExecutor(args.jobs) as pool:
        until = begin + args.seconds / 3
        list(pool.map(lambda name: run_child(args, name, "peers", until), args.models))
    for name in args.models:
        run_child(args, name, "ours", end)
    print_table(args.out / "bench.jsonl")


if __name__ == "__main__":
    main()
