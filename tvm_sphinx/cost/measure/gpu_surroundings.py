"""What a GPU does in a model between two calls of a kernel, so that each finds the caches so. [TVM]

In a model a kernel runs once in each inference, and many others between. A multiprocessor keeps some
128 KiB of instructions: a kernel that is called again and again has its code at hand, and in a model
none of it. Weights are the farther away the more others were read since; going through other memory
stands for that. What the kernel before has written is still in the second-level cache.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..._tvm import tvm_ffi
from ...platform import Device
from ...platform.gpus import find_gpu
from ...runtime.gpu_compile import compile_cubin, find_nvcc
from ...runtime.gpu_launch import GpuFunction, Launch

# One thread on each multiprocessor goes through 190 KiB of code. What is written goes in turns over
# `NUM_TURNS` stretches of memory, each block 16 KiB.
_SOURCE = """
extern "C" __global__ void __launch_bounds__(1) other_code(float *state, int *turn) {
  float a = state[0], b = state[1], c = state[2], d = state[3];
#pragma unroll
  for (int i = 0; i < 3072; i++) {
    a = a * 0.5f + 1.0f;
    b = b * 0.25f + c;
    c = c * 0.125f + 2.0f;
    d = d * 0.0625f + a;
  }
  if (a + b + c + d == 0.125f) state[0] = a;
  if (blockIdx.x == 0) turn[0] = (turn[0] + 1) % 8;
}

extern "C" __global__ void __launch_bounds__(256) other_data(const int *turn, float *data) {
  unsigned long long block = (unsigned long long)turn[0] * gridDim.x + blockIdx.x;
  for (int i = 0; i < 16; i++) data[block * 4096 + i * 256 + threadIdx.x] = 1.0f;
}
"""
#: Calls after which the memory that is gone through is the same again.
NUM_TURNS = 8
_BLOCK_BYTES = 16 << 10
# Sizes of what is gone through differ by this at least: for each of them it is timed by itself.
_STEP_BYTES = 1 << 20
# Going through more memory than this between two uses of a weight makes it no colder.
_MOST_BYTES = 128 << 20
#: The functions of `Surroundings`.
CODE, DATA = "other_code", "other_data"


@dataclass(frozen=True)
class Surroundings:
    """Kernels to run before each call, and what they take.

    Parameters
    ----------
    image, functions
        Machine code. ``CODE`` takes ``state`` and ``turn``; ``DATA`` takes ``turn`` and ``data_bytes``
        of memory that need hold nothing, and is not to run if there are none.
    """

    image: bytes
    functions: dict[str, GpuFunction]
    state: Any
    turn: Any
    data_bytes: int


def bytes_between(reuse_bytes: int, weight_bytes: int) -> int:
    """Return the bytes to go through before each of `NUM_TURNS` calls, a multiple of 1 MiB.

    Parameters
    ----------
    reuse_bytes
        What a model reads of weights between two uses of one, rounded up to a power of four
        (`tvm_sphinx.frontend.extract.weight_reuse`); the middle of what that stands for is taken.
    weight_bytes
        Size of a kernel's weights, of which each call in turn has a copy.
    """
    rest = min(reuse_bytes // 2, _MOST_BYTES) // NUM_TURNS - weight_bytes
    return max(0, rest) // _STEP_BYTES * _STEP_BYTES


@functools.lru_cache(maxsize=64)
def surroundings(device: Device, between: int) -> Surroundings:
    """Return what runs before each call on a GPU and goes through so many bytes, see `bytes_between`."""
    gpu = find_gpu(device.runtime)
    multiprocessors = gpu.multiprocessors if gpu else 1
    image = compile_cubin(_SOURCE, str(device.target_config["arch"]), find_nvcc())
    blocks = max(1, between // _BLOCK_BYTES)
    functions = {
        CODE: GpuFunction((Launch(CODE, (multiprocessors, 1, 1), (1, 1, 1), 0, (0, 1)),), ()),
        DATA: GpuFunction((Launch(DATA, (blocks, 1, 1), (256, 1, 1), 0, (0, 1)),), ()),
    }
    state, turn = (tvm_ffi.from_dlpack(np.zeros(4, dtype=dtype)) for dtype in ("float32", "int32"))
    return Surroundings(image, functions, state, turn, NUM_TURNS * between)
