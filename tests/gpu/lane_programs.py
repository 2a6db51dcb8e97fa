"""Programs of the lanes that end the use of a GPU, each to be run in a process of its own.

``python -m tests.gpu.lane_programs NAME`` prints the type and text of the error that it ended with, and
what the fake GPU has found, as JSON. ``TVM_SPHINX_GPU=real`` takes this machine's card.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.gpu import fake
from tests.processes import module_command

_PROGRAMS: dict[str, Callable[..., None]] = {}


def program(function: Callable[..., None]) -> Callable[..., None]:
    _PROGRAMS[function.__name__] = function
    return function


def _open() -> Any:
    """Return an executable over a CPU and a GPU, and inputs for it."""
    from tests.gpu.modules import image, platform
    from tests.runtime.modules import random_inputs, random_module
    from tvm_sphinx.runtime.executable import ConcurrentExecutable

    executable = ConcurrentExecutable(image(random_module(3, 12), platform(1, 2), seed=1))
    return executable, random_inputs(executable)


@program
def fork() -> None:
    """A child runs the program of its parent, and the parent goes on."""
    executable, inputs = _open()
    executable.run(inputs)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        text = "none"
        try:
            executable.run(inputs)
        except Exception as error:
            text = json.dumps([type(error).__name__, str(error)])
        os.write(writer, text.encode())
        os._exit(0)
    os.waitpid(child, 0)
    executable.run(inputs)
    name, text = json.loads(os.read(reader, 1 << 16))
    raise getattr(__import__("tvm_sphinx.errors").errors, name)(text)


@program
def fault() -> None:
    """A kernel reads far outside of its operands."""
    _gather(1 << 40)


@program
def fault_then_run() -> None:
    """A program is run again after an error that its GPU keeps."""
    from tvm_sphinx.errors import GpuError

    executable, inputs = _gather_executable(1 << 40)
    try:
        executable.run(inputs)
    except GpuError:
        executable.run(inputs)


def _gather(index: int) -> None:
    executable, inputs = _gather_executable(index)
    executable.run(inputs)


def _gather_executable(index: int) -> Any:
    import numpy as np
    from tvm import relax, te

    from tests.gpu.modules import image, platform
    from tvm_sphinx.runtime.executable import ConcurrentExecutable

    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType([4], "float32"))
    i = relax.Var("i", relax.TensorType([4], "int64"))
    with builder.function("main", [x, i]):
        with builder.dataflow():
            # Not the operator `take`, whose indices are bounded.
            taken = builder.emit_te(
                lambda x, i: te.compute((4,), lambda k: x[i[k]], name="gather"), x, i
            )
            output = builder.emit_output(relax.op.nn.relu(taken))
        builder.emit_func_output(output)
    made = image(builder.finalize(), platform(), device=1)
    inputs = [np.zeros(4, "float32"), np.full(4, index, "int64")]
    return ConcurrentExecutable(made), inputs


@program
def without_events() -> None:
    """Streams do not wait for one another."""
    from tvm_sphinx.runtime import encode
    from tvm_sphinx.runtime.gpu_plan import make_feeds

    def careless(plan: Any) -> Any:
        return tuple(
            replace(
                feed,
                segments=tuple(
                    replace(segment, ops=tuple(op for op in segment.ops if op.kind != "wait"))
                    for segment in feed.segments
                ),
            )
            for feed in make_feeds(plan)
        )

    encode.make_feeds = careless
    executable, inputs = _open()
    for _ in range(5):
        executable.run(inputs)


@program
def library() -> None:
    """A network of products runs, by a library that may be faulty."""
    from tests.gpu.modules import platform
    from tests.gpu.test_libraries import num_tasks, placed, two_products
    from tests.runtime.modules import random_inputs
    from tvm_sphinx.runtime.executable import ConcurrentExecutable

    module, where = two_products(), platform(1, 2)
    made = placed(module, where, [1] * num_tasks(module, where))
    for use_graphs in (True, False):
        executable = ConcurrentExecutable(made, use_graphs=use_graphs)
        for _ in range(5):
            executable.run(random_inputs(executable))


@program
def shared_workspace() -> None:
    """Products of two streams work in the same memory."""
    from tests.gpu.modules import platform
    from tests.gpu.test_libraries import placed, two_products
    from tests.runtime.modules import random_inputs
    from tvm_sphinx.runtime import gpu_encode
    from tvm_sphinx.runtime.executable import ConcurrentExecutable

    launches, workspaces = gpu_encode._Encoder._launches, []

    def careless(*args: Any) -> list[list[int]]:
        found = launches(*args)
        for words in found:
            workspaces.append(words[8])  # behind kind, step, stream, product, count, A, B and D
            words[8] = workspaces[0]
        return found

    gpu_encode._Encoder._launches = careless  # type: ignore[method-assign]  # the fault
    executable = ConcurrentExecutable(placed(two_products(), platform(1, 2), [1, 2]))
    for _ in range(5):
        executable.run(random_inputs(executable))


@program
def vet_library() -> None:
    """A library that may be faulty is vetted."""
    from tests.gpu.modules import platform
    from tests.gpu.test_libraries import MODEL, implementation, kernel, rule
    from tvm_sphinx.cost.choose.check_on_gpu import gpu_fault
    from tvm_sphinx.cost.choose.library_candidates import LibraryKernels
    from tvm_sphinx.errors import GpuError

    one = kernel(*MODEL)
    candidate, *_ = LibraryKernels(["cublaslt"])(one, platform().devices[-1])
    fault = gpu_fault(implementation(one, candidate), rule(one))
    if fault:
        raise GpuError(fault)


@program
def no_driver() -> None:
    """A program for a GPU is opened on a machine without a driver."""
    from tests.gpu.modules import image, platform
    from tests.runtime.modules import random_module
    from tvm_sphinx.platform import Device, Platform
    from tvm_sphinx.runtime.executable import ConcurrentExecutable

    target = json.dumps({"kind": "cuda", "arch": "sm_90", "max_num_threads": 1024})
    where = Platform((platform(0).devices[0], Device("gpu", target, "cuda:0")))
    ConcurrentExecutable(image(random_module(2, 6), where, device=1))


@program
def old_driver() -> None:
    """A program is opened on a driver of a CUDA that is too old."""
    os.environ["FAKE_CUDA_VERSION"] = "11040"
    _open()


@program
def two_processes() -> None:
    """A second process opens a program on a GPU that takes one; the first goes on."""
    import subprocess
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        os.environ["FAKE_CUDA_EXCLUSIVE"] = f"{folder}/lock"
        executable, inputs = _open()
        executable.run(inputs)
        command = module_command("tests.gpu.lane_programs", "opens")
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        executable.run(inputs)
    said = json.loads(done.stdout.splitlines()[-1])
    raise getattr(__import__("tvm_sphinx.errors").errors, said["type"])(said["error"])


@program
def opens() -> None:
    """A program is opened and run."""
    executable, inputs = _open()
    executable.run(inputs)


@program
def too_little_memory() -> None:
    """A program is opened on a GPU that has less memory than its weights take."""
    import numpy as np
    from tvm import relax

    from tests.gpu.modules import image, platform
    from tvm_sphinx.runtime.executable import ConcurrentExecutable

    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType([1, 2048], "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            weight = relax.const(np.ones((2048, 512), "float32"))
            output = builder.emit_output(relax.op.matmul(x, weight))
        builder.emit_func_output(output)
    ConcurrentExecutable(image(builder.finalize(), platform(), device=1))


@program
def load(folder: str) -> None:
    """A saved program is loaded and run."""
    import numpy as np

    from tests.runtime.modules import flat
    from tvm_sphinx.runtime.executable import ConcurrentExecutable

    executable = ConcurrentExecutable.load(Path(folder) / "model.sphinx")
    with np.load(Path(folder) / "inputs.npz") as inputs:
        results = flat(executable.run(list(inputs.values())))
    np.savez(Path(folder) / "outputs.npz", *results)


def main(name: str, *arguments: str) -> None:
    driver = None
    if name == "too_little_memory":
        os.environ["FAKE_CUDA_MEMORY"] = str(2 << 20)
    if name == "no_driver":
        os.environ["TVM_SPHINX_NVCC"] = str(Path(fake.__file__).parent / "nvcc")
    elif os.environ.get("TVM_SPHINX_GPU") != "real":
        driver = fake.load()
    said: dict[str, Any] = {"type": None, "error": ""}
    try:
        _PROGRAMS[name](*arguments)
    except Exception as error:
        said = {"type": type(error).__name__, "error": str(error)}
    said["reports"] = [] if driver is None else fake.reports(driver)
    print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
