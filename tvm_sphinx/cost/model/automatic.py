"""The model that a machine makes of its records by itself, as soon as these suffice. [TVM]"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Sequence
from pathlib import Path

from ..._tvm import tvm
from ...errors import ArtifactError, SphinxError
from ...notice import warn
from ...platform import Device
from ...platform.device import one_of_each_class
from ..measure.kernel_timing import MeasureConfig
from ..records.classes import class_of
from ..records.kernel_archive import KernelArchive
from ..records.store import RecordStore
from .guide import Guide, Source
from .model_file import (
    SHIPPED,
    CostModel,
    find_cost_model,
    fingerprint_of,
    load_cost_model,
    save_cost_model,
)
from .predictor import KernelPredictor
from .profile import PROBE
from .training import device_profile, fit_model, training_set

#: Times on record, in all and of each class of devices, that a model is made of: with 200 that it
#: learned here it is less wrong on networks that it never saw than one of another processor on 8 of 9.
FEWEST_TIMES, FEWEST_OF_CLASS = 200, 40
# Of more than so many times some are drawn, so that describing and learning them takes a few seconds.
_MOST_TIMES = 500
_FOLDS = 3
# A model is made anew once so many times as many times are on record as when it was made.
_GROWTH = 1.5


def find_guide(
    model: str | Path, devices: Sequence[Device], records: RecordStore, config: MeasureConfig | None
) -> Guide:
    """Return what guides the measuring on devices, by the model that `find_model` returns.

    If that is of a file, or of ``tvm-sphinx train``, only its own predictions are used; else what was
    predicted before stays.
    """

    def source() -> Source:
        found, label = find_model(model, devices, records, config)
        predictor = KernelPredictor(found, records, config)
        return Source(found.training_fingerprint, label, predictor)

    path = find_cost_model() if model == "default" else Path(model)
    return Guide(records, source, only=None if path == SHIPPED else fingerprint_of(path))


def find_model(
    model: str | Path,
    devices: Sequence[Device],
    records: RecordStore,
    config: MeasureConfig | None = None,
    probe_s: float = math.inf,
) -> tuple[CostModel, str]:
    """Return what predicts times on devices, and what people are told of it.

    That of a file. With ``"default"`` the one that ``tvm-sphinx train`` made of this machine, else one
    that is made here of what is on record, if that suffices (`automatic_model`), else the shipped one.

    Raises
    ------
    ArtifactError
        If a file is damaged, or of another version.
    """
    path = find_cost_model() if model == "default" else Path(model)
    made = None
    if path == SHIPPED:
        made = automatic_model(devices, records, config or MeasureConfig(), probe_s)
        name = "the model that is shipped" if made is None else "a model of what is on record"
    else:
        name = "the model of 'tvm-sphinx train'" if model == "default" else f"the model {str(model)!r}"
    found = made or load_cost_model(path, str(tvm.__version__))
    return found, f"{name}, learned from {found.num_rows} times"


def automatic_path(records: Path, devices: Sequence[Device]) -> Path:
    """Return where the model of devices is kept, beside the records that it is made of."""
    names = sorted({str(class_of(device)) for device in devices})
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()[:12]
    return records.with_name(f"{records.stem}.model-{digest}.json")


def automatic_model(
    devices: Sequence[Device],
    records: RecordStore,
    config: MeasureConfig,
    probe_s: float = math.inf,
) -> CostModel | None:
    """Return the model of what is on record of CPU devices, None if that does not suffice.

    It is made of `_MOST_TIMES` times at most, and kept; one that is damaged, or older than what is on
    record by much, is made anew. Equal records give equal models.
    """
    cpus = tuple(one_of_each_class(device for device in devices if device.is_cpu))
    archive = KernelArchive.beside(records)
    counts = _num_times(cpus, records, archive)
    if not counts or sum(counts) < FEWEST_TIMES or min(counts) < FEWEST_OF_CLASS:
        return None
    path = None if records.path is None else automatic_path(records.path, cpus)
    if path is not None and path.is_file():
        try:
            kept = load_cost_model(path, str(tvm.__version__))
            if min(_MOST_TIMES, sum(counts)) < _GROWTH * kept.num_rows:
                return kept
        except ArtifactError:
            pass  # made anew, from the same records
    end_s = time.monotonic() + probe_s
    try:
        profiles = {one.cost_class: device_profile(one, records, config, end_s) for one in cpus}
        made = fit_model(training_set(cpus, records, archive, profiles, _MOST_TIMES), 0, _FOLDS)
    except SphinxError as error:
        warn(f"No model is made of what is on record: {error}")
        return None
    if path is not None:
        try:
            save_cost_model(made, path)
        except ArtifactError as error:
            warn(str(error))
    return made


def _num_times(devices: Sequence[Device], records: RecordStore, archive: KernelArchive) -> list[int]:
    """Return how many kernels in the archive have a time on each device."""
    version, counts = str(tvm.__version__), [0] * len(devices)
    classes = [str(class_of(device)) for device in devices]
    for kept in archive:
        if kept.group == PROBE or kept.tvm != version:
            continue
        for place, name in enumerate(classes):
            record = records.get(kept.kernel, name, version)
            counts[place] += record is not None and bool(record.samples_ns)
    return counts
