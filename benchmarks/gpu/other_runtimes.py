"""What else runs a model: ONNX Runtime on the CPU, torch on the GPU, eager and in a CUDA graph."""

from __future__ import annotations

import functools
from collections.abc import Callable
from functools import partial
from typing import Any

from timing import Row, alone, quantiles, timed

#: What is timed, and a function that times it.
Timings = list[tuple[str, Callable[[], Row]]]


def prepare_others(model: Any) -> Timings:
    """Return how to time ONNX Runtime on the CPU, and torch on the GPU: eager, in a graph, with TF32.

    What is made ready does not touch the GPU; what cannot be made ready fails when it is timed.
    """
    timings: Timings = [("onnxruntime, cpu", _or_fail(onnxruntime_on_cpu, model))]
    if model.torch_module is None:
        return timings
    import torch

    if not torch.cuda.is_available():
        return timings
    on_gpu = functools.cache(lambda: TorchOnGpu(model))
    for tf32 in (False, True):
        suffix = ", tf32" if tf32 else ""
        for kind in ("eager", "cuda graph"):
            timings.append((f"torch {kind}, gpu{suffix}", partial(_time, on_gpu, kind, tf32)))
    return timings


def _time(on_gpu: Callable[[], TorchOnGpu], kind: str, tf32: bool) -> Row:
    return on_gpu().time(kind, tf32)


def _or_fail(prepare: Callable[[Any], Callable[[], Row]], model: Any) -> Callable[[], Row]:
    """Return what ``prepare`` does, or a function that fails as it did."""
    try:
        return prepare(model)
    except Exception as error:
        failure = error

        def fail() -> Row:
            raise failure

        return fail


def onnxruntime_on_cpu(model: Any) -> Callable[[], Row]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # Its threads would else work on between calls, beside what others time.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(model.onnx(), options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    feed = dict(zip(names, model.numpy_inputs(), strict=True))
    return lambda: timed(lambda: session.run(None, feed))


class TorchOnGpu:
    """A torch network on the GPU, its inputs and outputs in pinned memory."""

    def __init__(self, model: Any) -> None:
        import torch

        self.torch = torch
        self.network = model.torch_module.to("cuda").eval()
        self.host = [tensor.pin_memory() for tensor in model.torch_inputs()]
        self.inputs = [tensor.to("cuda") for tensor in self.host]

    def time(self, kind: str, tf32: bool) -> Row:
        """Time the network, ``"eager"`` or in a ``"cuda graph"``."""
        backends = self.torch.backends
        backends.cudnn.allow_tf32 = backends.cuda.matmul.allow_tf32 = tf32
        backends.cudnn.benchmark = True
        with self.torch.inference_mode():
            return timed(self.eager) if kind == "eager" else self.time_graph()

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
