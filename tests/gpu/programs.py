"""Programs for the fake GPU: each is right, or has one fault planted in it.

``python -m tests.gpu.programs NAME fault`` runs one in a process of its own, since a fault ends the use
of a GPU, and prints what came of it as JSON. Without a fault, a program must also be right on a card.
"""

from __future__ import annotations

import ctypes
import json
import math
import mmap
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from tests.gpu import fake
from tests.gpu.driver_api import Cuda, CudaError

SOURCE = """
extern "C" __global__ void __launch_bounds__(32) add_one(float* to, float* from) {
  to[threadIdx.x] = from[threadIdx.x] + 1.0f;
}
extern "C" __global__ void __launch_bounds__(32) add(float* to, float* a, float* b) {
  to[threadIdx.x] = a[threadIdx.x] + b[threadIdx.x];
}
extern "C" __global__ void __launch_bounds__(1) append(float* order, unsigned* count, float name) {
  order[*count] = name;
  *count = *count + 1u;
}
extern "C" __global__ void __launch_bounds__(64) reverse(float* to, float* from) {
  __shared__ float all[64];
  all[threadIdx.x] = from[threadIdx.x];
  __syncthreads();
  to[threadIdx.x] = all[63 - threadIdx.x];
}
extern "C" __global__ void __launch_bounds__(64) sum(float* to, float* from) {
  __shared__ float parts[2];
  float value = from[threadIdx.x];
  for (int by = 16; by > 0; by /= 2) value += __shfl_down_sync(0xffffffffu, value, by);
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = value;
  __syncthreads();
  to[threadIdx.x] = parts[0] + parts[1];
}
extern "C" __global__ void __launch_bounds__(64) part_ways(float* to) {
  if (threadIdx.x == 0) __syncthreads(); else __syncwarp();
  to[threadIdx.x] = 1.0f;
}
"""
N = 32
Program = Callable[["Bench", bool], None]
PROGRAMS: dict[str, Program] = {}


def program(function: Program) -> Program:
    PROGRAMS[function.__name__] = function
    return function


class Bench:
    """A GPU with the kernels loaded, two streams, and memory with known contents."""

    def __init__(self, cuda: Cuda, module: int) -> None:
        self.cuda, self.module = cuda, module
        self.first, self.second = cuda.stream(), cuda.stream()
        self.ones = cuda.memory(2 * N)
        cuda.call("MemsetD32_v2", self.ones, 0x3F800000, 2 * N)
        cuda.call("CtxSynchronize")

    def kernel(self, name: str) -> int:
        return self.cuda.function(self.module, name)

    def add_one(self, stream: int, to: int, source: int) -> None:
        self.cuda.launch(self.kernel("add_one"), stream, to, source)

    def copy(self, to: int, source: int, stream: int) -> None:
        self.cuda.call("MemcpyAsync", to, source, 4 * N, stream)

    def filled(self) -> int:
        """Return memory that holds ones, so that reading it too early is a matter of order alone."""
        memory = self.cuda.memory(N)
        self.cuda.call("MemcpyDtoD_v2", memory, self.ones, 4 * N)
        self.cuda.call("CtxSynchronize")
        return memory

    def order(self, before: int, after: int) -> None:
        """Let one stream wait for the other by an event."""
        event = self.cuda.event()
        self.cuda.call("EventRecord", event, before)
        self.cuda.call("StreamWaitEvent", after, event, 0)

    def check(self, address: int, *expected: float) -> None:
        values = self.cuda.read(address, len(expected) if len(expected) > 1 else N)
        wanted = list(expected) if len(expected) > 1 else [expected[0]] * N
        assert values == wanted, (values, wanted)


def host_memory() -> Any:
    """Return a page of pageable memory, N ones at its front."""
    memory = (ctypes.c_float * 1024).from_buffer(mmap.mmap(-1, 4096))
    memory[:N] = [1.0] * N
    return memory


@program
def kernel_on_host_memory(bench: Bench, fault: bool) -> None:
    to, pageable = bench.cuda.memory(N), host_memory()
    pinned = bench.cuda.pinned([1.0] * N)
    bench.add_one(bench.first, to, ctypes.addressof(pageable if fault else pinned))
    bench.check(to, 2.0)


@program
def host_on_device_memory(bench: Bench, fault: bool) -> None:
    if fault:
        ctypes.c_float.from_address(bench.ones).value = 1.0


@program
def read_before_write(bench: Bench, fault: bool) -> None:
    to, source = bench.cuda.memory(N), bench.cuda.memory(N)
    if not fault:
        bench.copy(source, bench.ones, bench.first)
    bench.add_one(bench.first, to, source)
    bench.check(to, 2.0)


@program
def read_past_the_end(bench: Bench, fault: bool) -> None:
    to, source = bench.cuda.memory(N), bench.cuda.memory(N)
    bench.copy(source, bench.ones, bench.first)
    bench.add_one(bench.first, to, source)
    bench.add_one(bench.first, to, source + (4 if fault else 0))
    bench.check(to, 2.0)


@program
def use_after_free(bench: Bench, fault: bool) -> None:
    to, source = bench.cuda.memory(N), bench.cuda.memory(N)
    bench.copy(source, bench.ones, bench.first)
    if fault:
        bench.cuda.call("MemFree_v2", source)
    bench.add_one(bench.first, to, source)
    bench.check(to, 2.0)


@program
def event_between_streams(bench: Bench, fault: bool) -> None:
    half, to = bench.filled(), bench.filled()
    bench.add_one(bench.first, half, bench.ones)
    if not fault:
        bench.order(bench.first, bench.second)
    bench.add_one(bench.second, to, half)
    bench.check(to, 3.0)


@program
def write_after_read(bench: Bench, fault: bool) -> None:
    """Two streams read, one of them writes what the other has read."""
    source, left, right = (bench.cuda.memory(N) for _ in range(3))
    bench.copy(source, bench.ones, bench.first)
    bench.order(bench.first, bench.second)
    bench.add_one(bench.first, left, source)
    bench.add_one(bench.second, right, source)
    if not fault:
        bench.order(bench.second, bench.first)
    bench.add_one(bench.first, source, left)
    bench.check(right, 2.0)
    bench.check(source, 3.0)


@program
def event_of_an_earlier_record(bench: Bench, fault: bool) -> None:
    half, to = bench.filled(), bench.filled()
    event = bench.cuda.event()
    bench.copy(half, bench.ones, bench.first)
    bench.cuda.call("EventRecord", event, bench.first)
    if fault:
        bench.cuda.call("StreamWaitEvent", bench.second, event, 0)
    bench.add_one(bench.first, half, bench.ones)
    bench.cuda.call("EventRecord", event, bench.first)
    if not fault:
        bench.cuda.call("StreamWaitEvent", bench.second, event, 0)
    bench.add_one(bench.second, to, half)
    bench.check(to, 3.0)


@program
def host_waits_between_streams(bench: Bench, fault: bool) -> None:
    half, to = bench.filled(), bench.filled()
    event = bench.cuda.event()
    bench.add_one(bench.first, half, bench.ones)
    bench.cuda.call("EventRecord", event, bench.first)
    if not fault:
        bench.cuda.call("EventSynchronize", event)
    bench.add_one(bench.second, to, half)
    bench.check(to, 3.0)


@program
def flag_between_streams(bench: Bench, fault: bool) -> None:
    half, to, flag = bench.filled(), bench.filled(), bench.cuda.memory(1)
    bench.cuda.call("MemsetD32_v2", flag, 0, 1)
    bench.cuda.call("CtxSynchronize")
    if not fault:
        bench.cuda.call("StreamWaitValue32_v2", bench.second, flag, 1, 0)
    bench.add_one(bench.second, to, half)
    bench.add_one(bench.first, half, bench.ones)
    bench.cuda.call("StreamWriteValue32_v2", bench.first, flag, 1, 0)
    bench.check(to, 3.0)


@program
def gate_of_the_host(bench: Bench, fault: bool) -> None:
    """The host opens a gate that the GPU waits at, and polls a flag that the GPU raises."""
    gate, done = bench.cuda.flag(), bench.cuda.flag()
    inbox, outbox, to = bench.cuda.pinned([0.0] * N), bench.cuda.pinned([0.0] * N), bench.cuda.memory(N)
    bench.cuda.call("StreamWaitValue32_v2", bench.first, ctypes.addressof(gate), 1, 0)
    bench.copy(to, ctypes.addressof(inbox), bench.first)
    bench.add_one(bench.first, to, to)
    bench.copy(ctypes.addressof(outbox), to, bench.first)
    bench.cuda.call("StreamWriteValue32_v2", bench.first, ctypes.addressof(done), 1, 0)
    assert bench.cuda.status("StreamQuery", bench.first) == 600
    inbox[:] = [4.0] * N
    if not fault:
        gate.value = 1
        while done.value != 1:
            time.sleep(0)
        assert list(outbox) == [5.0] * N
        bench.add_one(bench.second, to, to)  # what the flag says is done orders the other stream
    bench.cuda.call("StreamSynchronize", bench.first)


@program
def read_before_waiting(bench: Bench, fault: bool) -> None:
    """The host reads what a copy has not yet brought, and finds the NaN that lies there meanwhile."""
    result, to, seen = bench.cuda.pinned([1.0]), bench.cuda.memory(1), 0
    bench.cuda.call("MemsetD32_v2", to, 0x3F800000, 1)
    bench.cuda.call("CtxSynchronize")  # no stream of ours waits for the legacy stream
    for _ in range(200):
        bench.cuda.call("MemcpyAsync", ctypes.addressof(result), to, 4, bench.first)
        if fault:
            while bench.cuda.status("StreamQuery", bench.first) == 600:
                seen += math.isnan(result[0])
        bench.cuda.call("StreamSynchronize", bench.first)
        seen += math.isnan(result[0])
    assert (seen > 0) == fault, seen
    if fault:
        raise CudaError("NaN", 1)


@program
def legacy_stream(bench: Bench, fault: bool) -> None:
    """A blocking stream and the legacy stream wait for each other; others do not."""
    half, to, back = (bench.filled() for _ in range(3))
    stream = bench.cuda.stream(blocking=not fault)
    bench.add_one(stream, half, bench.ones)
    bench.add_one(0, to, half)
    bench.add_one(stream, back, to)
    bench.check(back, 4.0)


@program
def edge_of_a_graph(bench: Bench, fault: bool) -> None:
    half, other, to = (bench.filled() for _ in range(3))
    graph = bench.cuda.made("GraphCreate", 0)
    left = bench.cuda.kernel_node(graph, [], bench.kernel("add_one"), half, bench.ones)
    right = bench.cuda.kernel_node(graph, [], bench.kernel("add_one"), other, bench.ones)
    before = [left] if fault else [left, right]
    bench.cuda.kernel_node(graph, before, bench.kernel("add"), to, half, other)
    ready = bench.cuda.instantiate(graph)
    for _ in range(3):
        bench.cuda.call("GraphLaunch", ready, bench.first)
    bench.check(to, 4.0)


@program
def captured_fork(bench: Bench, fault: bool) -> None:
    """A second stream joins the capture; the fault takes its result without waiting for it."""
    half, other, to = (bench.filled() for _ in range(3))
    bench.cuda.call("StreamBeginCapture_v2", bench.first, 1)
    bench.order(bench.first, bench.second)
    bench.add_one(bench.first, half, bench.ones)
    bench.add_one(bench.second, other, bench.ones)
    if not fault:
        bench.order(bench.second, bench.first)
    bench.cuda.launch(bench.kernel("add"), bench.first, to, half, other)
    if fault:
        bench.order(bench.second, bench.first)
    graph = bench.cuda.made_by_capture(bench.first)
    ready = bench.cuda.instantiate(graph)
    for _ in range(3):
        bench.cuda.call("GraphLaunch", ready, bench.first)
    bench.check(to, 4.0)


@program
def fork_that_joins(bench: Bench, fault: bool) -> None:
    other = bench.cuda.memory(N)
    bench.cuda.call("StreamBeginCapture_v2", bench.first, 1)
    bench.order(bench.first, bench.second)
    bench.add_one(bench.second, other, bench.ones)
    if not fault:
        bench.order(bench.second, bench.first)
    bench.cuda.made_by_capture(bench.first)


@program
def graph_on_two_streams(bench: Bench, fault: bool) -> None:
    """Launches of one graph take turns; two graphs of the same memory do not."""
    counter = bench.cuda.memory(N)
    bench.copy(counter, bench.ones, bench.first)
    bench.cuda.call("CtxSynchronize")
    graph = bench.cuda.made("GraphCreate", 0)
    bench.cuda.kernel_node(graph, [], bench.kernel("add_one"), counter, counter)
    ready = [bench.cuda.instantiate(graph) for _ in range(2)]
    for i in range(6):
        bench.cuda.call("GraphLaunch", ready[i % 2 if fault else 0], (bench.first, bench.second)[i % 2])
    bench.check(counter, 7.0)


@program
def pageable_copy_in_capture(bench: Bench, fault: bool) -> None:
    to, pageable, pinned = bench.cuda.memory(N), host_memory(), bench.cuda.pinned([1.0] * N)
    bench.cuda.call("StreamBeginCapture_v2", bench.first, 1)
    bench.copy(to, ctypes.addressof(pageable if fault else pinned), bench.first)
    ready = bench.cuda.instantiate(bench.cuda.made_by_capture(bench.first))
    bench.cuda.call("GraphLaunch", ready, bench.first)
    bench.check(to, 1.0)


@program
def allocation_in_capture(bench: Bench, fault: bool) -> None:
    bench.cuda.call("StreamBeginCapture_v2", bench.first, 0 if fault else 2)
    bench.cuda.memory(N)
    bench.cuda.made_by_capture(bench.first)


@program
def use_after_fork(bench: Bench, fault: bool) -> None:
    child = os.fork() if fault else 0
    if child:
        raise CudaError("in the child", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    status = bench.cuda.status("StreamSynchronize", bench.first)
    if fault:
        os._exit(status)


@program
def out_of_memory(bench: Bench, fault: bool) -> None:
    """With 1 MiB per device; memory that was given back can be had again."""
    half = bench.cuda.made("MemAlloc_v2", 600 << 10)
    if not fault:
        bench.cuda.call("MemFree_v2", half)
    bench.cuda.made("MemAlloc_v2", 600 << 10)


@program
def error_that_stays(bench: Bench, fault: bool) -> None:
    to, pageable = bench.cuda.memory(N), host_memory()
    if fault:
        bench.add_one(bench.first, to, ctypes.addressof(pageable))
        bench.cuda.status("StreamSynchronize", bench.first)
    codes = {
        bench.cuda.status("StreamSynchronize", bench.second),
        bench.cuda.status("EventCreate", ctypes.byref(ctypes.c_uint64()), 0),
        bench.cuda.status("MemAlloc_v2", ctypes.byref(ctypes.c_uint64()), 64),
    }
    assert len(codes) == 1
    if codes != {0}:
        raise CudaError("everything", codes.pop())


@program
def memory_of_a_peer(bench: Bench, fault: bool) -> None:
    """A copy reaches every device; a kernel reaches another's memory once that was allowed."""
    here = bench.cuda.memory(N)
    bench.cuda.use(1)
    there = bench.cuda.memory(N)
    bench.copy(there, bench.ones, 0)
    bench.cuda.call("CtxSynchronize")
    bench.cuda.use(0)
    if not fault:
        bench.cuda.call("CtxEnablePeerAccess", bench.cuda.contexts[1], 0)
    bench.add_one(bench.first, here, there)
    bench.check(here, 2.0)


@program
def registered_memory(bench: Bench, fault: bool) -> None:
    """Memory of the host's own that the GPU may use, at the same address, while it is registered."""
    to, weights = bench.cuda.memory(N), host_memory()
    address, size = ctypes.addressof(weights), ctypes.sizeof(weights)
    bench.cuda.call("MemHostRegister_v2", address, size, 0)
    weights[0] = 1.0
    bench.add_one(bench.first, to, address)
    bench.check(to, 2.0)
    bench.copy(address, to, bench.first)
    bench.cuda.call("StreamSynchronize", bench.first)
    assert list(weights[:N]) == [2.0] * N
    if fault:
        bench.cuda.call("MemHostUnregister", address)
        assert list(weights[:N]) == [2.0] * N
    bench.add_one(bench.first, to, address)
    bench.check(to, 3.0)


@program
def barriers(bench: Bench, fault: bool) -> None:
    source, to = bench.cuda.pinned(list(map(float, range(64)))), bench.cuda.memory(64)
    bench.cuda.launch(
        bench.kernel("part_ways" if fault else "reverse"),
        bench.first,
        *((to,) if fault else (to, ctypes.addressof(source))),
        block=64,
    )
    bench.check(to, *(63.0 - i for i in range(64)))
    bench.cuda.launch(bench.kernel("sum"), bench.first, to, ctypes.addressof(source), block=64)
    bench.check(to, *([2016.0] * 64))


@program
def host_function(bench: Bench, fault: bool) -> None:
    """A function of the host runs in its place in the stream."""
    kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
    half, pinned, seen = bench.filled(), bench.cuda.pinned([0.0] * N), []
    call = kind(lambda _: seen.append(pinned[0]))
    bench.add_one(bench.first, half, bench.ones)
    if fault:  # before the host can know, by that function, how far the stream is
        bench.add_one(bench.second, half, half)
    bench.copy(ctypes.addressof(pinned), half, bench.first)
    bench.cuda.call("LaunchHostFunc", bench.first, call, None)
    if not fault:
        bench.order(bench.first, bench.second)
        bench.add_one(bench.second, half, half)
    bench.cuda.call("CtxSynchronize")
    assert seen == [2.0]


def orders_of_replay(seed_independent: Bench) -> list[float]:
    """Return in which order a graph of four nodes without edges was replayed."""
    cuda = seed_independent.cuda
    order, count = cuda.memory(N), cuda.memory(1)
    cuda.call("MemsetD32_v2", count, 0, 1)
    graph = cuda.made("GraphCreate", 0)
    for name in range(4):
        arguments = (order, count, ctypes.c_float(name))
        cuda.kernel_node(graph, [], seed_independent.kernel("append"), *arguments, block=1)
    cuda.call("GraphLaunch", cuda.instantiate(graph), seed_independent.first)
    return cuda.read(order, 4)


def main(name: str, fault: bool) -> None:
    library = fake.load(fake.build(sanitize="FAKE_CUDA_SANITIZED" in os.environ))
    cuda = Cuda(library)
    result: dict[str, Any] = {"code": 0, "order": None}
    bench = Bench(cuda, cuda.module(fake.compile_kernels(SOURCE)))
    try:
        if name == "orders_of_replay":
            result["order"] = orders_of_replay(bench)
        else:
            for chosen in PROGRAMS if name == "all" else [name]:
                PROGRAMS[chosen](bench, fault)
    except CudaError as error:
        result["code"] = error.code
    print(json.dumps({**result, "reports": fake.reports(library)}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2] == "fault")
