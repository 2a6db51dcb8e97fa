"""CPU kernels: channels-last packed layouts, schedule rules, and their measurement."""

from .layouts import prepare_layouts
from .opaque import calls_runtime
from .reshapes import sink_reshapes
from .schedule import default_rules, rule_of, schedule_kernel
from .target_info import CpuInfo, cpu_info

__all__ = [
    "CpuInfo",
    "calls_runtime",
    "cpu_info",
    "default_rules",
    "prepare_layouts",
    "rule_of",
    "schedule_kernel",
    "sink_reshapes",
]
