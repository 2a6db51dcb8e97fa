"""CPU kernels: channels-last packed layouts, schedule rules, and their measurement."""

from .layouts import prepare_layouts
from .library_kernels import find_library_product
from .library_product import LibraryFactor, LibraryMark, LibraryProduct, for_library, library_of
from .opaque import HIDES_WORK, hides_work
from .packing import pack_weight
from .reducers import know_infinite_reducers
from .repack import pack_ahead, packed_weights
from .reshapes import sink_reshapes
from .schedule import default_rules, rule_of, schedule_kernel
from .staged import condition_operands, is_staged, loop_limit
from .target_info import CpuInfo, cpu_info
from .turned import ImageRole, image_role, is_turn, permuted, turn, turned

__all__ = [
    "HIDES_WORK",
    "CpuInfo",
    "ImageRole",
    "LibraryFactor",
    "LibraryMark",
    "LibraryProduct",
    "condition_operands",
    "cpu_info",
    "default_rules",
    "find_library_product",
    "for_library",
    "hides_work",
    "image_role",
    "is_staged",
    "is_turn",
    "library_of",
    "loop_limit",
    "pack_ahead",
    "pack_weight",
    "packed_weights",
    "permuted",
    "prepare_layouts",
    "rule_of",
    "schedule_kernel",
    "sink_reshapes",
    "turn",
    "turned",
]

# Before any schedule is made, of ours or of TVM.
know_infinite_reducers()
