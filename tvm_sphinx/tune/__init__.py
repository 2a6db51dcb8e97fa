"""Tune kernels with TVM's MetaSchedule, and find what was tuned again. [TVM]

`tune_model` searches; `store.TuningStore` keeps what it measures in MetaSchedule's own JSON files;
`apply.TunedKernels` gives `tvm_sphinx.compile` the fastest schedules on record.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..platform import Platform
from ..progress import Progress

if TYPE_CHECKING:
    from .session import TuneConfig, TuneProgress, TuneResult


def tune_model(
    model: Any,
    platform: Platform,
    config: TuneConfig,
    *,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    fixed_inputs: Mapping[str, Any] | None = None,
    function: str | None = None,
    records: str | Path | None = "default",
    tasks: Sequence[str] | int | None = None,
    progress: Progress | None = None,
    on_batch: TuneProgress | None = None,
) -> TuneResult:
    """Tune the kernels of a model; see `tvm_sphinx.tune.session.tune_kernels`.

    Parameters
    ----------
    model, input_shapes, fixed_inputs, function
        As in `tvm_sphinx.compile`.
    records
        As in `tvm_sphinx.compile`; tuning records go into ``tuning/`` beside the measured times.

    Raises
    ------
    SphinxError
        With one sentence; what was measured before is on disk.
    """
    from ..cost.records.store import RecordStore, record_path
    from ..frontend.schedulable import load_schedulable
    from .paths import tuning_root
    from .session import tune_kernels

    found = load_schedulable(
        model, platform, input_shapes=input_shapes, fixed_inputs=fixed_inputs, function=function
    )
    path = record_path(records)
    return tune_kernels(
        found.extraction,
        platform,
        None if path is None else tuning_root(path),
        RecordStore(path),
        config,
        tasks=tasks,
        progress=progress,
        on_batch=on_batch,
    )
