"""Compile CUDA source to the machine code of one kind of GPU, with NVIDIA's compiler. [TVM]"""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ..errors import NoCodeError, UnsupportedError, cause_of
from ..kernels.code_cache import cache_key, read_cached, trim_cache, write_cached
from ..platform.machine import usable_cores
from .gpu_calls import generate_code
from .gpu_launch import GpuFunction
from .loading import build_folder

#: Environment variable with the path of nvcc, where it is not on the search path.
NVCC_VARIABLE = "TVM_SPHINX_NVCC"
# As TVM compiles its own sources, but for fast math: operators of half and bfloat16 are TVM's.
_FLAGS = (
    "--cubin",
    "-O3",
    "-std=c++17",
    "-U__CUDA_NO_HALF_OPERATORS__",
    "-U__CUDA_NO_HALF_CONVERSIONS__",
    "-U__CUDA_NO_BFLOAT16_OPERATORS__",
    "-U__CUDA_NO_BFLOAT16_CONVERSIONS__",
    "-U__CUDA_NO_BFLOAT162_OPERATORS__",
    "-U__CUDA_NO_BFLOAT162_CONVERSIONS__",
    "--expt-relaxed-constexpr",
)
# The same kernels are compiled to be timed, and then for each program that they are part of.
_MOST_REMEMBERED = 4096


Compiled = tuple[tuple[bytes, ...], dict[str, tuple[int, GpuFunction]]]


def compile_for_gpus(kernels: Mapping[str, Any], fast_math: bool = False) -> Compiled:
    """Return images of machine code, and for each PrimFunc its image and how to run it.

    One that a library computes by itself has no image, which is told as -1.

    Parameters
    ----------
    kernels
        PrimFuncs by name, each of which carries its CUDA target. Those that are not scheduled are.
    fast_math
        Whether to let the compiler take approximations for the functions of floats.

    Raises
    ------
    NoCodeError
        If TVM refuses a kernel.
    UnsupportedError
        If there is no nvcc, or it does not know a target's architecture.
    """
    if not kernels:
        return (), {}
    nvcc = find_nvcc()
    found: dict[str, tuple[int, GpuFunction]] = {}
    sources: dict[tuple[str, str], int] = {}  # (source, architecture) -> image
    images: list[Future[bytes]] = []
    with ThreadPoolExecutor(max_workers=len(usable_cores())) as pool:
        try:
            for name, function in kernels.items():
                target = function.attrs["target"]
                code = generate_code(function, target)
                if not code.source:
                    found[name] = -1, code.function
                    continue
                key = code.source, str(target.attrs["arch"])
                found[name] = sources.setdefault(key, len(sources)), code.function
                if len(images) < len(sources):  # nvcc works while the next source is made
                    images.append(pool.submit(compile_cubin, *key, nvcc, fast_math))
            made = tuple(image.result() for image in images)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    trim_cache()
    return made, found


def find_nvcc() -> str:
    """Return the path of NVIDIA's compiler.

    Raises
    ------
    UnsupportedError
        If there is none, with the command that installs it.
    """
    named = os.environ.get(NVCC_VARIABLE)
    found = shutil.which(named) if named else shutil.which("nvcc") or _nvcc_of_wheel()
    if found is None and named is None and os.access("/usr/local/cuda/bin/nvcc", os.X_OK):
        found = "/usr/local/cuda/bin/nvcc"
    if found is None:
        where = f"{named!r} of {NVCC_VARIABLE} is none" if named else "none is found"
        raise UnsupportedError(
            f"Expected NVIDIA's compiler nvcc to compile kernels for a GPU; {where}. "
            f"Install it with: pip install 'cuda-toolkit[nvcc,cccl]==13.0.*'"
        )
    return found


def _nvcc_of_wheel() -> str | None:
    """Return the nvcc that NVIDIA's wheels brought, which is not on the search path."""
    spec = importlib.util.find_spec("nvidia")
    for folder in spec.submodule_search_locations or () if spec else ():
        for path in sorted(Path(folder).glob("cu*/bin/nvcc"), reverse=True):
            if os.access(path, os.X_OK):
                return str(path)
    return None


@functools.lru_cache(maxsize=_MOST_REMEMBERED)
def compile_cubin(source: str, arch: str, nvcc: str, fast_math: bool = False) -> bytes:
    """Return the machine code of CUDA source for an architecture such as ``"sm_90"``.

    Raises
    ------
    NoCodeError
        If the compiler refuses the source, with what it says.
    """
    if not re.fullmatch(r"sm_\d+[af]?", arch):
        raise UnsupportedError(f"Expected a GPU architecture such as 'sm_90'; got {arch!r}.")
    command = [nvcc, *_FLAGS, *(["--use_fast_math"] if fast_math else []), f"-arch={arch}"]
    key = cache_key(*_identity_of(nvcc), *command[1:], source)
    cached = read_cached(key)
    if cached is not None:
        return cached
    with build_folder() as folder:
        code, image = Path(folder) / "kernels.cu", Path(folder) / "kernels.cubin"
        code.write_text(source, encoding="utf-8")
        done = subprocess.run(
            [*command, "-o", str(image), str(code)], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            said = cause_of(RuntimeError(done.stderr or done.stdout))
            raise NoCodeError(f"{nvcc!r} cannot compile kernels for {arch}: {said}")
        made = image.read_bytes()
    write_cached(key, made)
    return made


def _identity_of(compiler: str) -> list[str]:
    """Return what another compiler, or another version of it, differs in: its file."""
    try:
        found = os.stat(compiler)
    except OSError:
        return [compiler]
    return [os.path.realpath(compiler), str(found.st_size), str(found.st_mtime_ns)]
