"""Random programs over a CPU and GPUs, compared with one device, and runs that take no more memory.

    python -m tests.gpu.proof --programs 2000 --runs 10000 --jobs 2

Each program is a random module, every second one of them over images, in a random placement over one
core and one or two fake GPUs of one to three streams, with and without graphs, all lanes and commands
late at random; its results are those of the build for the core alone, and the fake GPU has nothing to
say. Others run again and again, and what they hold of the host's, the pinned and each GPU's memory stays
the same. Prints what was done as JSON, and ends with 1 if anything failed, with the numbers of the
programs that did: ``--only NUMBER`` runs one again.
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.gpu import fake
from tests.processes import module_command

# Programs of one module follow each other in one process, which compiles its kernels once.
_PLACEMENTS, _PER_PROCESS = 4, 40
_TRIALS = 3
_DELAY_NS = 300_000
# Of the host's memory, what its allocator may take more without anything being lost.
_HOST_SLACK_KIB = 8 << 10
_ROUNDS_OF_MEMORY = 4


def check_program(number: int) -> int:
    """Run the random program of a number, compare it with the core alone; return how often it ran."""
    from tests.gpu.modules import assert_agree, image, platform
    from tests.runtime.modules import random_inputs
    from tvm_sphinx.runtime.executable import ConcurrentExecutable

    module, expected = _on_core(number // _PLACEMENTS)
    where = platform(1 + number % 2, 1 + number // 2 % 3)
    made = image(module, where, seed=number)
    executable = ConcurrentExecutable(made, use_graphs=number % 5 > 0)
    executable.delay_lanes(number, _DELAY_NS)
    for trial in range(_TRIALS):
        inputs = random_inputs(expected, trial)
        assert_agree(executable.run(inputs), expected.run(inputs))
    return _TRIALS


@functools.lru_cache(maxsize=1)
def _on_core(seed: int) -> tuple[Any, Any]:
    from tests.gpu.modules import on_cpu
    from tests.image_nets import random_image_module
    from tests.runtime.modules import random_module

    module = random_image_module(seed) if seed % 2 else random_module(seed, 14)
    return module, on_cpu(module)


def held(driver: Any) -> list[int]:
    """Return the bytes in use of the pinned memory, where it can be told, and of each GPU's."""
    found = [driver.fake_cuda_pinned_bytes()] if hasattr(driver, "fake_cuda_pinned_bytes") else []
    count = ctypes.c_int()
    assert driver.cuDeviceGetCount(ctypes.byref(count)) == 0
    context, free, total = ctypes.c_void_p(), ctypes.c_size_t(), ctypes.c_size_t()
    for device in range(count.value):
        assert driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device) == 0
        assert driver.cuCtxSetCurrent(context) == 0
        assert driver.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total)) == 0
        found.append(total.value - free.value)
    return found


def check_memory(driver: Any, runs: int) -> dict[str, Any]:
    """Run a program so often; return what is held of each memory before and after.

    Raises
    ------
    AssertionError
        If that is more, or the results are others.
    """
    import numpy as np

    from tests.gpu.modules import image, platform
    from tests.runtime.modules import flat, random_inputs, random_module
    from tvm_sphinx.runtime.executable import ConcurrentExecutable

    executable = ConcurrentExecutable(image(random_module(3, 12), platform(2, 2), seed=1))
    inputs = random_inputs(executable)
    expected = flat(executable.run(inputs))
    before, host = held(driver), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(runs):
        for result, want in zip(flat(executable.run(inputs)), expected, strict=True):
            np.testing.assert_array_equal(result, want)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - host
    assert held(driver) == before
    assert grown < _HOST_SLACK_KIB
    return {"runs": runs, "pinned_and_gpu_bytes": before, "host_grown_kib": grown}


def _run_in_process(numbers: range, runs: int) -> None:
    """Run programs, or so many runs, in this process, and print a line for each."""
    driver = fake.load()
    if runs:
        print(json.dumps({"memory": check_memory(driver, runs)}), flush=True)
    for number in numbers:
        said: dict[str, Any] = {"program": number}
        try:
            said["runs"] = check_program(number)
        except Exception as error:
            said["error"] = f"{type(error).__name__}: {error}"[:500]
        if found := fake.reports(driver):
            said["error"] = f"{said.get('error', '')} {found[0]}".strip()
        print(json.dumps(said), flush=True)
        if "error" in said:
            break  # its GPU may be of no use any more


def _child(seed: int, *options: str, seconds: float) -> Iterator[dict[str, Any]]:
    """Yield what a process says of its programs; it is ended after so many seconds."""
    command = module_command("tests.gpu.proof", "--child", *options)
    environment = {**os.environ, "FAKE_CUDA_SEED": str(1 + seed), "TVM_FFI_DISABLE_TORCH_C_DLPACK": "1"}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        output, errors = process.communicate(timeout=max(1.0, seconds))
    except subprocess.TimeoutExpired:
        process.kill()
        output, errors = process.communicate()
    yield from map(json.loads, output.splitlines())
    if process.returncode not in (0, -9):
        yield {"program": -1, "error": f"ended with {process.returncode}: {errors[-1500:]}"}


def _batch(first: int, last: int, end: float) -> list[dict[str, Any]]:
    """Run programs in processes, a new one after each that fails."""
    rows: list[dict[str, Any]] = []
    while first < last and time.monotonic() < end:
        new = list(_child(first, "--range", f"{first}:{last}", seconds=end - time.monotonic()))
        rows += new
        if not new or "error" not in new[-1]:
            break
        first = max(first, *(row["program"] for row in new)) + 1
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--programs", type=int, default=2000)
    parser.add_argument("--runs", type=int, default=10_000, help="of programs whose memory is looked at")
    parser.add_argument("--first", type=int, default=0, help="number of the first program")
    parser.add_argument("--only", type=int, help="run one program, by its number")
    parser.add_argument("--seconds", type=float, default=86_400, help="begin nothing after these")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--range", help=argparse.SUPPRESS)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        numbers = range(*map(int, args.range.split(":"))) if args.range else range(0)
        _run_in_process(numbers, args.runs if not args.range else 0)
        return 0
    fake.build()
    begin = time.monotonic()
    only = args.only is not None
    first, last = (args.only, args.only + 1) if only else (args.first, args.first + args.programs)
    end = begin + args.seconds
    each = str(args.runs // _ROUNDS_OF_MEMORY)

    def run_often(part: int) -> list[dict[str, Any]]:
        return list(_child(part, "--runs", each, seconds=end - time.monotonic()))

    def run_random(at: int) -> list[dict[str, Any]]:
        return _batch(at, min(last, at + _PER_PROCESS), end)

    with ThreadPoolExecutor(args.jobs) as pool:
        memory = pool.map(run_often, range(_ROUNDS_OF_MEMORY if args.runs and not only else 0))
        batches = pool.map(run_random, range(first, last, _PER_PROCESS))
        rows = [row for rows in (*memory, *batches) for row in rows]
    done = [row for row in rows if "runs" in row and "error" not in row]
    failed = [row for row in rows if "error" in row]
    kept = [row["memory"] for row in rows if "memory" in row]
    said = {
        "programs": len(done),
        "modules": len({row["program"] // _PLACEMENTS for row in done}),
        "runs_compared": sum(row["runs"] for row in done),
        "runs_in_flat_memory": sum(row["runs"] for row in kept),
        "memory": kept[:1],
        "failed": failed[:10],
        "seconds": round(time.monotonic() - begin),
    }
    print(json.dumps(said, indent=1))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
