"""The tuned schedules on record, for `compile` to choose from. [TVM]"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from ..cost.choose.candidates import Candidate, CandidateSource
from ..cost.choose.costing import Costing
from ..cost.records.classes import class_of
from ..cost.records.models import note_model
from ..cost.records.store import RecordStore, record_path
from ..frontend.extract import Kernel
from ..platform import Device, Platform
from ..platform.device import CostClass
from .paths import tuning_root
from .space import scheduled_function, workload_module
from .store import TuningStore, class_folder

# The fastest of a search is often the luckiest, so the next ones get a chance too.
_BEST = 2


def open_records(records: str | Path | None) -> tuple[RecordStore, list[CandidateSource]]:
    """Return the measured times that an option ``--records`` means, and what was tuned beside them.

    Raises
    ------
    SphinxError
        If a file cannot be read or created.
    """
    path = record_path(records)
    return RecordStore(path), [] if path is None else [TunedKernels(tuning_root(path))]


def note_costs(records: RecordStore, model: str, costs: Costing, platform: Platform) -> None:
    """Note beside the records which model and devices they belong to."""
    devices: dict[str, str] = {}
    for device in platform.devices:
        name = str(class_of(device))
        devices[name] = f"{devices[name]}, {device.name}" if name in devices else device.name
    note_model(records.path, model, costs.keys, devices)


class TunedKernels:
    """A `tvm_sphinx.cost.choose.candidates.CandidateSource`: the fastest tuned schedules of a kernel.

    Parameters
    ----------
    root
        Folder of the tuning records, see `tvm_sphinx.tune.store.class_folder`; where there are none for
        a device class, there are no candidates.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self._stores: dict[CostClass, TuningStore | None] = {}

    def __call__(self, kernel: Kernel, device: Device) -> Sequence[Candidate]:
        """Return the candidates of a kernel on a device."""
        kind = device.cost_class
        if kind not in self._stores:
            folder = class_folder(self.root, kind)
            self._stores[kind] = TuningStore(folder) if folder.is_dir() else None
        store = self._stores[kind]
        module = workload_module(kernel) if store is not None else None
        if store is None or module is None:
            return []
        candidates = []
        for record in store.best(module, _BEST):
            median_s = statistics.median(float(seconds) for seconds in record.run_secs)
            function = scheduled_function(record.as_measure_candidate().sch)
            candidates.append(Candidate("tuned", function, round(1e9 * median_s)))
        return candidates
