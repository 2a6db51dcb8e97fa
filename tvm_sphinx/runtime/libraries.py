"""Libraries of NVIDIA's that kernels of a GPU may call, and where they lie. Knows no TVM.

A library is looked for where a wheel of NVIDIA's or torch has brought it, and then on the loader's path,
which names of `LIBRARY_VARIABLE` come before. It is opened by the lanes, see ``gpu_library.h``.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import UnsupportedError, known_choices

#: Environment variable with a folder of libraries that are taken before any others.
LIBRARY_VARIABLE = "TVM_SPHINX_CUDA_LIBRARIES"
# Of CUDA, newest first; cuBLAS has the same.
_MAJORS = (13, 12)


@dataclass(frozen=True)
class Library:
    """A library: the name of its file without a version, the function that tells that, and its wheels.

    Parameters
    ----------
    title
        As people know it.
    file
        Such as ``"libcublasLt.so"``; its major version follows.
    version
        Function without arguments that returns ``major * 10000 + minor * 100 + patch``.
    wheels
        What pip installs, by major version.
    """

    title: str
    file: str
    version: str
    wheels: dict[int, str]


#: By name. Another library, such as cuDNN for convolutions, is one more entry, and a source of the
#: kernels that it can run (`tvm_sphinx.cost.choose.library_candidates`).
LIBRARIES = {
    "cublaslt": Library(
        "cuBLASLt",
        "libcublasLt.so",
        "cublasLtGetVersion",
        {13: "'nvidia-cublas==13.*'", 12: "nvidia-cublas-cu12"},
    )
}
#: What may be asked for: the library, and the type that float32 is computed in.
LIBRARY_CHOICES = {"cublaslt": ("cublaslt", "float32"), "cublaslt-tf32": ("cublaslt", "tf32")}


@dataclass(frozen=True)
class FoundLibrary:
    """A library on this machine: its file, and its version."""

    path: str
    version: tuple[int, int, int]

    @property
    def major(self) -> int:
        """Programs that were planned with another one cannot use it."""
        return self.version[0]


def check_libraries(names: Sequence[str]) -> None:
    """Check that libraries are known by these names.

    Raises
    ------
    UnsupportedError
        If one is not.
    """
    for name in names:
        if name not in LIBRARY_CHOICES:
            raise UnsupportedError(known_choices("library", name, LIBRARY_CHOICES))


def find_library(name: str, major: int | None = None) -> FoundLibrary:
    """Return a library of this machine: of a major version, or the newest that its driver can run.

    Raises
    ------
    UnsupportedError
        If there is none, with the command that installs it.
    """
    library = LIBRARIES[name]
    newest = _driver_major()
    wanted = [one for one in _MAJORS if one <= newest] if major is None else [major]
    for one in wanted:
        for path in _candidates(f"{library.file}.{one}"):
            version = _version(path, library.version)
            if version is not None and version[0] == one:
                return FoundLibrary(path, version)
    one = wanted[0] if wanted else _MAJORS[-1]
    wheel = library.wheels.get(one, library.wheels[_MAJORS[0]])
    raise UnsupportedError(
        f"Expected {library.title} {one} on this machine; none is found. Install it with: "
        f"pip install {wheel}"
    )


def _candidates(file: str) -> Iterator[str]:
    """Yield where a file may lie, as the loader takes it: the last is up to its own path."""
    named = os.environ.get(LIBRARY_VARIABLE)
    folders = [Path(named)] if named else []
    roots = [Path(sysconfig.get_paths()["purelib"])]
    for package in ("nvidia", "torch"):
        spec = importlib.util.find_spec(package)
        places = spec.submodule_search_locations or () if spec else ()
        roots += [Path(place).parent for place in places]
    for root in dict.fromkeys(roots):
        folders += [root / "nvidia" / "cublas" / "lib", *sorted((root / "nvidia").glob("cu*/lib"))]
        folders.append(root / "torch" / "lib")
    for folder in folders:
        if (folder / file).is_file():
            yield str(folder / file)
    yield file


@functools.lru_cache(maxsize=64)
def _version(path: str, function: str) -> tuple[int, int, int] | None:
    """Return the version that a library says it is of; None if it cannot be opened."""
    try:
        ask = getattr(ctypes.CDLL(path), function)
    except (OSError, AttributeError):
        return None
    ask.restype = ctypes.c_size_t
    number = int(ask())
    return number // 10000, number // 100 % 100, number % 100


def _driver_major() -> int:
    """Return the major version of CUDA that the driver knows; the newest without a driver."""
    number = ctypes.c_int()
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return _MAJORS[0]
    return number.value // 1000 if driver.cuDriverGetVersion(ctypes.byref(number)) == 0 else _MAJORS[0]
