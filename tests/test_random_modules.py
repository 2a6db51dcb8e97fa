"""Random modules with random placements give the numbers of the module that was not scheduled."""

from __future__ import annotations

import numpy as np
import tvm
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tvm import relax

from tests.relax_modules import EXTENT, cpu_platform, random_module, serial_schedule
from tvm_sphinx.frontend.extract import extract_task_graph
from tvm_sphinx.frontend.lower import lower_to_kernels
from tvm_sphinx.platform.targets import device_target
from tvm_sphinx.program.compiled import flatten_outputs
from tvm_sphinx.program.stock_vm import build_executable, vm_devices
from tvm_sphinx.relax_pass import HeterogeneousSchedule


def _inputs() -> list:
    rng = np.random.default_rng(7)
    return [tvm.runtime.tensor(rng.standard_normal((EXTENT, EXTENT)).astype("float32")) for _ in "xy"]


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(seed=st.integers(0, 2**32), num_devices=st.integers(1, 3), data=st.data())
def test_scheduled_module_computes_the_same(seed: int, num_devices: int, data: st.DataObject) -> None:
    platform = cpu_platform(num_devices)
    target = device_target(platform.devices[0])
    kernels = lower_to_kernels(random_module(seed), target)
    before = tvm.ir.save_json(kernels)
    graph = extract_task_graph(kernels).graph
    relax.analysis.well_formed(kernels)  # raises where it is not
    placement = data.draw(
        st.lists(st.integers(0, num_devices - 1), min_size=graph.num_tasks, max_size=graph.num_tasks)
    )
    scheduler = HeterogeneousSchedule(lambda g: serial_schedule(g, placement), platform)
    scheduled = scheduler(kernels)
    relax.analysis.well_formed(scheduled)
    assert tvm.ir.save_json(kernels) == before, "the input module was changed"

    machine = relax.VirtualMachine(build_executable(scheduled), vm_devices(platform))
    stock = relax.VirtualMachine(tvm.compile(kernels, target), tvm.cpu())
    for got, want in zip(
        flatten_outputs(machine["main"](*_inputs())),
        flatten_outputs(stock["main"](*_inputs())),
        strict=True,
    ):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
