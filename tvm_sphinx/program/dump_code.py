"""The module after each phase, and the generated code, as text files. [TVM]"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .._tvm import tirx, tvm
from ..errors import SphinxError, known_choices
from ..kernels.implement import ImplementKernels
from ..report.files import write_text
from ..runtime.kernels import generate_code

#: What can be written of the code: the placed module, scheduled kernels, LLVM IR, assembly, CUDA or C.
FORMS = ("relax", "tir", "ll", "asm", "source")
# The same under the names that tvmc had.
_OTHER_NAMES = {"relay": "relax", "tirx": "tir"}


def check_forms(forms: Sequence[str]) -> None:
    """Check the names of forms of code.

    Raises
    ------
    SphinxError
        If one is unknown; the message lists the known ones.
    """
    for form in forms:
        if _OTHER_NAMES.get(form, form) not in FORMS:
            raise SphinxError(known_choices("form of code", form, FORMS))


def write_script(folder: str | Path, phase: str, module: Any) -> None:
    """Write a module as TVMScript to ``PHASE.py`` in a folder, with constants left out.

    Raises
    ------
    SphinxError
        If it cannot be written.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SphinxError(f"Cannot make folder {str(folder)!r}: {error.strerror}.") from error
    write_text(Path(folder) / f"{phase}.py", module.script(show_meta=False) + "\n")


def write_code(module: Any, forms: Sequence[str], begin: str | Path) -> list[Path]:
    """Write a placed module in these forms, and return the files, such as ``BEGIN.0.ll``.

    Kernels are written for each target that runs them, numbered in the order of their first kernels.

    Raises
    ------
    SphinxError
        If a file cannot be written.
    """
    written = []

    def write(ending: str, text: str) -> None:
        path = Path(f"{begin}.{ending}")
        write_text(path, text.rstrip() + "\n")
        written.append(path)

    wanted = [_OTHER_NAMES.get(form, form) for form in forms]
    if "relax" in wanted:
        write("relax.py", module.script(show_meta=False))
    if set(wanted) - {"relax"}:
        implement: Any = ImplementKernels()
        scheduled = implement(module)
        for number, (target, functions) in enumerate(_by_target(scheduled)):
            _write_kernels(number, target, functions, wanted, write)
    return written


def _by_target(module: Any) -> list[tuple[Any, dict[Any, Any]]]:
    found: dict[str, tuple[Any, dict[Any, Any]]] = {}
    for var, function in module.functions_items():
        target = function.attrs.get("target") if function.attrs else None
        if isinstance(function, tirx.PrimFunc) and target is not None:
            found.setdefault(str(target), (target, {}))[1][var] = function
    return list(found.values())


def _write_kernels(
    number: int,
    target: Any,
    functions: dict[Any, Any],
    wanted: Sequence[str],
    write: Callable[[str, str], None],
) -> None:
    module = tvm.IRModule(functions)
    if "tir" in wanted:
        write(f"{number}.tir.py", f"# {target}\n{module.script(show_meta=False)}")
    is_llvm = target.kind.name == "llvm"
    forms = [form for form in wanted if form in (("ll", "asm") if is_llvm else ("source",))]
    if not forms:
        return
    built = generate_code({var.name_hint: function for var, function in functions.items()}, target)
    sources = [built] if is_llvm else list(built.imports)
    for form in forms:
        kind = form if is_llvm else ""
        ending = form if is_llvm else target.kind.name
        write(f"{number}.{ending}", "\n".join(str(source.inspect_source(kind)) for source in sources))
