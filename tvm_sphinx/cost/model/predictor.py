"""A trained model of costs as what a costing asks: the times of implementations on devices. [TVM]"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...platform import Device
from ...platform.device import CostClass
from ..choose.kernel_costs import Implementation
from ..measure.kernel_timing import MeasureConfig
from ..records.store import RecordStore
from .features import feature_rows, kernel_numbers
from .model_file import CostModel
from .profile import DeviceProfile
from .training import device_profile


class KernelPredictor:
    """A `tvm_sphinx.cost.choose.predictor.Predictor`: a model, and the profiles of devices.

    Parameters
    ----------
    model
        See `tvm_sphinx.cost.model.training.train_model`.
    records
        Where the times of a device's probes are; they are measured, and added, where they are not.
    config
        How long to measure a probe.
    """

    def __init__(
        self, model: CostModel, records: RecordStore, config: MeasureConfig | None = None
    ) -> None:
        self.model, self.records, self.config = model, records, config or MeasureConfig()
        self._profiles: dict[CostClass, DeviceProfile] = {}

    def can_predict(self, device: Device) -> bool:
        """Return whether the device is a CPU: the model has learned no others."""
        return device.is_cpu

    def predict(self, implementations: Sequence[Implementation]) -> list[tuple[int, int]]:
        """Return time and spread in ns of each; all have a PrimFunc and a CPU device."""
        numbers, devices = [], []
        for one in implementations:
            profile = self._profile(one.device)
            function, kernel = one.candidate.function, one.kernel
            numbers.append(kernel_numbers(function, kernel.weights, kernel.reuse_bytes, profile.shape))
            devices.append(profile.numbers)
        times, spreads = self.model.predict(feature_rows(np.array(numbers), np.array(devices)))
        return [
            (max(1, round(time_ns)), round(spread_ns))
            for time_ns, spread_ns in zip(times.tolist(), spreads.tolist(), strict=True)
        ]

    def _profile(self, device: Device) -> DeviceProfile:
        kind = device.cost_class
        if kind not in self._profiles:
            self._profiles[kind] = device_profile(device, self.records, self.config)
        return self._profiles[kind]
