"""A trained model of costs as what a costing asks: the times of implementations on devices. [TVM]"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ...kernels import hides_work
from ...platform import Device
from ...platform.device import CostClass
from ..choose.kernel_costs import Implementation
from ..measure.kernel_timing import MeasureConfig, operand_bytes
from ..records.store import RecordStore
from .features import feature_rows, kernel_numbers
from .model_file import CostModel
from .profile import DeviceProfile
from .training import device_profile

# Of the time for probes, when the last one is begun, which takes up to 0.3 s.
_BEGIN_SHARE = 0.85
# How long to measure a probe then: a rate that is a few percent off is no worse than the predictions.
_PROBE_SAMPLE_MS = 5.0


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
    probe_s
        Seconds for all probes; what there is no time for is taken from what others show (see
        `measure_profile`), and is not recorded.
    label
        What people are told of the model.
    """

    def __init__(
        self,
        model: CostModel,
        records: RecordStore,
        config: MeasureConfig | None = None,
        probe_s: float = math.inf,
        label: str = "a cost model",
    ) -> None:
        self.label = label
        self.model, self.records, self.config = model, records, config or MeasureConfig()
        self._probe_s, self._end_s = probe_s, math.nan
        self._profiles: dict[CostClass, DeviceProfile] = {}

    def can_predict(self, device: Device) -> bool:
        """Return whether the device is a CPU: the model has learned no others."""
        return device.is_cpu

    def predict(self, implementations: Sequence[Implementation]) -> list[tuple[int, int]]:
        """Return time and spread in ns of each; all have a PrimFunc and a CPU device."""
        for one in implementations:
            self._profile(one.device)  # before the time for probes goes by with something else
        hidden = [hides_work(one.candidate.function) for one in implementations]
        described = [one for one, hides in zip(implementations, hidden, strict=True) if not hides]
        times = iter(self._predict(described) if described else ())
        return [
            self._least(one) if hides else next(times)
            for one, hides in zip(implementations, hidden, strict=True)
        ]

    def _predict(self, implementations: Sequence[Implementation]) -> list[tuple[int, int]]:
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

    def _least(self, one: Implementation) -> tuple[int, int]:
        """Return what it takes to call a kernel and to move its operands, and a spread as large."""
        profile = self._profile(one.device)
        least_ns = round(profile.call_ns + operand_bytes(one.kernel) / profile.memory_gb_per_s)
        return least_ns, least_ns

    def _profile(self, device: Device) -> DeviceProfile:
        kind = device.cost_class
        if kind not in self._profiles:
            if not self._profiles:
                self._end_s = time.monotonic() + _BEGIN_SHARE * self._probe_s
            like = next(iter(self._profiles.values()), None)
            config = self.config
            if math.isfinite(self._probe_s):
                config = replace(config, sample_ms=min(config.sample_ms, _PROBE_SAMPLE_MS))
            self._profiles[kind] = device_profile(device, self.records, config, self._end_s, like)
        return self._profiles[kind]
