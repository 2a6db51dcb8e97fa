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


def sphinx_pipeline(platform: Any = None, records: str | None = "default", seed: int = 0) -> Any:
    """Return the pass behind ``tvm.compile(mod, target, relax_pipeline="sphinx")``.

    Parameters
    ----------
    platform : Platform or str, optional
        By default the platform of this machine, with the target that `tvm.compile` is given for its CPU
        devices (for a GPU target, that device beside them).
    records
        File of measured times to use and to extend; None keeps them in memory.
    seed
        Seed of the search.
    """
    from .vm_pipeline import ScheduleForVM

    return ScheduleForVM(platform, records=records, seed=seed)
