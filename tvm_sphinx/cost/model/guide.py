"""What guides measuring: predictions that are kept, and a model for those that lack. [TVM]"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..._tvm import tvm
from ...platform import Device
from ..choose.kernel_costs import Implementation
from ..choose.predictor import Predictor
from ..records.classes import class_of
from ..records.predictions import KeptPredictions, PredictedLine, Times
from ..records.store import RecordStore


@dataclass(frozen=True)
class Source:
    """A model that may be asked.

    ``fingerprint`` is that of its training set, ``label`` what people are told.
    """

    fingerprint: str
    label: str
    predictor: Predictor


class Guide:
    """A `tvm_sphinx.cost.choose.predictor.Predictor` that predicts each kernel once.

    Parameters
    ----------
    records
        Where predictions are kept beside.
    source
        Returns the model; called when the first kernel is asked for that nothing was predicted of.
    only
        Fingerprint of the model whose predictions alone are used; None is any.

    Raises
    ------
    ArtifactError
        By `predict`, if there is no model that can be used.
    """

    def __init__(
        self, records: RecordStore, source: Callable[[], Source], only: str | None = None
    ) -> None:
        self._kept = KeptPredictions(records.path)
        self._source, self._only = source, only
        self._classes: set[str] = set()

    @property
    def label(self) -> str:
        """What has predicted the times that were asked for, as people are told."""
        return ", ".join(self._kept.labels(self._classes, self._only))

    def can_predict(self, device: Device) -> bool:
        """Return whether the device is a CPU: models have learned no others."""
        return device.is_cpu

    def predict(self, implementations: Sequence[Implementation]) -> list[Times]:
        """Return time and spread in ns of each; all have a PrimFunc and a CPU device."""
        missing = [one for one in implementations if self._get(one) is None]
        if missing:
            source = self._source()
            times = source.predictor.predict(missing)
            by_class: dict[str, dict[str, Times]] = {}
            for one, (time_ns, spread_ns) in zip(missing, times, strict=True):
                by_class.setdefault(str(class_of(one.device)), {})[one.key] = time_ns, spread_ns
            for name, found in by_class.items():
                version = str(tvm.__version__)
                self._kept.add(PredictedLine(name, version, source.fingerprint, source.label, found))
        self._classes |= {str(class_of(one.device)) for one in implementations}
        found_times = [self._get(one) for one in implementations]
        return [times for times in found_times if times is not None]

    def _get(self, one: Implementation) -> Times | None:
        where = str(class_of(one.device))
        return self._kept.get(one.key, where, str(tvm.__version__), self._only)
