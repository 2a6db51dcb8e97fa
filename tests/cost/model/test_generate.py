"""Drawn kernels: distinct, the same for a seed, and such as rules know."""

from __future__ import annotations

import pytest

from tvm_sphinx.cost.model.generate import draw_kernels
from tvm_sphinx.errors import SphinxError
from tvm_sphinx.frontend.extract import op_kinds
from tvm_sphinx.kernels.implement import implement_kernel
from tvm_sphinx.platform import unlike_cpus
from tvm_sphinx.platform.targets import device_target

TARGETS = [device_target(device) for device in unlike_cpus().devices]


def test_a_seed_gives_the_same_kernels_and_more_of_them_go_on() -> None:
    few, many = (
        [(kernel.id, kernel.reuse_bytes) for kernel in draw_kernels(count, 5, TARGETS)]
        for count in (12, 20)
    )
    assert many[:12] == few
    assert len({kernel for kernel, _ in many}) == 20
    other = [kernel.id for kernel in draw_kernels(12, 6, TARGETS)]
    assert other != [kernel for kernel, _ in few]


def test_every_family_is_drawn_and_every_kernel_can_be_scheduled() -> None:
    kinds: set[str] = set()
    for kernel in draw_kernels(120, 0, TARGETS):
        kinds.update(op_kinds(kernel.function))
        assert implement_kernel(kernel.function, TARGETS[0]) is not None
    assert {"conv2d", "depthwise_conv2d", "matmul", "batch_matmul", "transpose"} <= kinds


def test_fewer_than_one_kernel_is_refused() -> None:
    with pytest.raises(SphinxError, match="count = 0"):
        next(draw_kernels(0, 0, TARGETS))
