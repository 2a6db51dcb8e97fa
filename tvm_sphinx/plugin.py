"""The Relax pipeline ``"sphinx"``: TVM loads this module by the entry point ``tvm.backends``.

It is imported in every process that imports TVM, so it stays light: the rest comes with the first run.
"""

from __future__ import annotations

from typing import Any

PIPELINE = "sphinx"


def register() -> None:
    """Register the pipeline with TVM; a second call does nothing."""
    from tvm import relax
    from tvm.relax.pipeline import PIPELINE_MAP

    if PIPELINE not in PIPELINE_MAP:
        relax.register_pipeline(PIPELINE)(sphinx_pipeline)


def sphinx_pipeline(platform: Any = None, **options: Any) -> Any:
    """Return the pass behind ``tvm.compile(mod, target, relax_pipeline="sphinx")``.

    ``relax.get_pipeline("sphinx", platform="unlike-cpus", pins=["conv2d=native"])`` gives it options.

    Parameters
    ----------
    platform : Platform or str, optional
        By default the platform of this machine, with the target that `tvm.compile` is given for its CPU
        devices (for a GPU target, that device beside them).
    options
        Those of `tvm_sphinx.compile`, see `tvm_sphinx.program.options.CompileOptions`. A pass returns a
        module: what concerns the program that `compile` makes of one (``with_reference``, ``verify``,
        ``input_shapes``) changes nothing, and what would write it (``output``, ``variants``) or change
        what it takes (``fixed_inputs``) is refused.

    Raises
    ------
    SphinxError
        If an option is unknown or out of range.
    """
    from .vm_pipeline import ScheduleForVM

    return ScheduleForVM(platform, **options)
