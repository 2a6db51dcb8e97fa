"""A fake GPU: see README.md. Nothing here imports TVM before `install` does."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

_HERE = Path(__file__).resolve().parent
_C_FLAGS = "-std=c11 -O2 -g -Wall -Wextra -Wconversion -Werror -fvisibility=hidden -pthread".split()
_SANITIZE = (
    "-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer".split()
)
_KERNEL_FLAGS = (
    "-std=c++17 -O1 -fPIC -fsanitize=thread --param tsan-instrument-func-entry-exit=0".split()
)
_KERNEL = re.compile(
    r'^extern "C" __global__ void (?:__launch_bounds__\([^)]*\) )?(\w+)\(.*\) \{$', re.M
)
_MEETS = re.compile(r"__syncthreads|__shfl|__syncwarp|bar\.sync")
_DYNAMIC_SHARED = re.compile(
    r"extern (?:alignas\(\d+\) )?__shared__ (?:alignas\(\d+\) )?(\w+) (\w+)\[\];"
)


def why_unavailable() -> str | None:
    """Return what this machine lacks to build the fake GPU; None if nothing."""
    missing = [name for name in ("gcc", "g++") if shutil.which(name) is None]
    return f"the fake GPU needs {' and '.join(missing)}" if missing else None


@functools.cache
def build(sanitize: bool = False) -> Path:
    """Return the folder of the built fake, which is kept from one session to the next.

    Parameters
    ----------
    sanitize
        Build with the address and undefined-behaviour sanitizers; the program under test then has to
        be started with libasan preloaded.
    """
    key = [" ".join(_C_FLAGS), str(sanitize)]
    sources = sorted(path for ending in ("c", "cu", "h", "map") for path in _HERE.glob(f"*.{ending}"))
    folder = _cached("built", [*key, *(source.read_text() for source in sources)])
    if folder.exists():
        return folder
    with tempfile.TemporaryDirectory(dir=folder.parent) as made:
        _build_in(Path(made), [*_C_FLAGS, *(_SANITIZE if sanitize else ())])
        _publish(Path(made), folder)
    return folder


def _build_in(made: Path, flags: list[str]) -> None:
    gpu, driver = (sorted(map(str, _HERE.glob(f"{kind}*.c"))) for kind in ("gpu", "driver"))
    shared = [*flags, "-fPIC", "-shared"]
    libcuda, libcudart = str(made / "libcuda.so.1"), str(made / "libcudart.so.13")
    named = "-Wl,-soname,libcuda.so.1"
    _run(
        ["gcc", *flags, "-fvisibility=default", "-rdynamic", *gpu, "-o", str(made / "fake_gpu"), "-ldl"]
    )
    _run(["gcc", *shared, named, *driver, "-o", libcuda, "-ldl"])
    named = f"-Wl,-soname,libcudart.so.13,--version-script={_HERE / 'cudart.map'}"
    _run(["gcc", *shared, named, str(_HERE / "cudart.c"), "-o", libcudart, libcuda])
    (made / "cublaslt.image").write_bytes(compile_kernels((_HERE / "cublaslt.cu").read_text()))
    library, code = str(made / "libcublasLt.so.13"), str(_HERE / "cublaslt.c")
    _run(["gcc", *shared, "-Wl,-soname,libcublasLt.so.13", code, "-o", library, libcuda, "-ldl"])


def load(folder: Path | None = None) -> Any:
    """Load the fake driver and runtime into this process, in place of real ones; return the driver.

    Call it before TVM is imported: TVM's CUDA runtime then finds them by their names. The product finds
    them, too, with ``dlopen("libcuda.so.1")``, and the nvcc beside this file in the place of NVIDIA's.
    """
    folder = build() if folder is None else folder
    os.environ["TVM_SPHINX_NVCC"] = str(_HERE / "nvcc")
    os.environ["TVM_SPHINX_CUDA_LIBRARIES"] = str(folder)
    os.environ["TVM_SPHINX_CODE"] = ""  # what is kept below knows the fake, too
    driver = ctypes.CDLL(str(folder / "libcuda.so.1"), mode=ctypes.RTLD_GLOBAL)
    ctypes.CDLL(str(folder / "libcudart.so.13"), mode=ctypes.RTLD_GLOBAL)
    driver.fake_cuda_report.restype = ctypes.c_char_p
    for count in ("launches", "graph_launches", "copies", "pinned_bytes"):
        getattr(driver, f"fake_cuda_{count}").restype = ctypes.c_uint64
    return driver


def reports(driver: Any) -> list[str]:
    """Return what the fake has found wrong in this process so far, one sentence each."""
    return [driver.fake_cuda_report(i).decode() for i in range(driver.fake_cuda_num_reports())]


def install() -> None:
    """Let TVM compile its CUDA kernels for the fake."""
    import tvm_ffi

    @tvm_ffi.register_global_func("tvm_callback_cuda_compile", override=True)
    def compile_for_fake(source: str, *unused: object) -> bytes:
        return compile_kernels(source)


def compile_kernels(source: str, flags: Sequence[str] = ()) -> bytes:
    """Return CUDA C++ source compiled for the fake GPU: what stands in the place of a cubin.

    Each kernel is compiled by itself and kept: another placement of the same model has most of them.

    Raises
    ------
    RuntimeError
        With the compiler's message.
    """
    units = _units(source)
    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(lambda unit: _compile_unit(unit, flags), units))
    library = _cached("kernels", [*map(str, objects)], ".so")
    if not library.exists():
        with tempfile.TemporaryDirectory(dir=library.parent) as made:
            built = Path(made) / "k.so"
            # What -fsanitize=thread calls is in the fake GPU; no sanitizer's library is wanted.
            _run(["g++", "-shared", *map(str, objects), "-o", str(built)])
            _publish(built, library)
    return library.read_bytes()


def _compile_unit(unit: str, flags: Sequence[str]) -> Path:
    header = (_HERE / "kernel.h").read_text()
    kept = _cached("kernels", [unit, header, *_KERNEL_FLAGS, *flags], ".o")
    if not kept.exists():
        with tempfile.TemporaryDirectory(dir=kept.parent) as made:
            code, built = Path(made) / "k.cpp", Path(made) / "k.o"
            code.write_text(unit)
            _run(["g++", "-w", *_KERNEL_FLAGS, *flags, f"-I{_HERE}", "-c", str(code), "-o", str(built)])
            _publish(built, kept)
    return kept


def _units(source: str) -> list[str]:
    """Return CUDA C++ as C++ for kernel.h, one text per kernel."""
    source = re.sub(r"#include [<\"](?:cuda|mma|nv|crt|math_constants).*[>\"]", "", source)
    # alignas stands before static, and behind __shared__
    source = re.sub(r"(?<!extern )__shared__ (alignas\(\d+\))", r"\1 __shared__", source)
    source = _DYNAMIC_SHARED.sub(r"alignas(1024) static \1 \2[232448 / sizeof(\1)];", source)
    found = list(_KERNEL.finditer(source))
    starts = [match.start() for match in found]
    before = source[: min(starts, default=0)]
    units = []
    for match, end in zip(found, [*starts[1:], len(source)], strict=True):
        body = source[match.start() : end]
        meets = int(bool(_MEETS.search(before + body)))
        units.append(f'#include "kernel.h"\n{before}\n{body}\nFAKE_KERNEL({match[1]}, {meets})\n')
    return units


def _cached(kind: str, contents: Sequence[str], suffix: str = "") -> Path:
    root = os.environ.get("FAKE_CUDA_CACHE") or f"{tempfile.gettempdir()}/fake-cuda-{os.getuid()}"
    digest = hashlib.sha256("\0".join(contents).encode()).hexdigest()[:24]
    path = Path(root) / kind / f"{digest}{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _publish(made: Path, path: Path) -> None:
    """Give what was made its name in one step; another process may have been faster."""
    try:
        made.rename(path)
    except OSError:
        if not path.exists():
            raise
    if not made.exists() and path.is_dir():
        made.mkdir()  # what the temporary folder's owner is going to remove


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:1])} failed: {done.stderr[:8000]}")
