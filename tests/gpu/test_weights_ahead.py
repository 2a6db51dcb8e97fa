"""A CPU beside a GPU takes its weights packed, the GPU the same ones as the model has them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests import weights_net
from tests.gpu.modules import assert_agree, on_cpu, platform
from tests.runtime.modules import list_schedule, random_inputs
from tvm_sphinx.frontend.extract import Extraction, extract_task_graph
from tvm_sphinx.frontend.lower import lower_for_platform
from tvm_sphinx.platform import Platform
from tvm_sphinx.program.build import build_stock_program
from tvm_sphinx.program.kinds import flatten_outputs
from tvm_sphinx.relax_pass import annotate_schedule
from tvm_sphinx.runtime.build import build_image
from tvm_sphinx.runtime.executable import ConcurrentExecutable
from tvm_sphinx.runtime.image import Image
from tvm_sphinx.scheduling.schedule import Schedule

pytestmark = pytest.mark.gpu


def extract(module: Any, where: Platform) -> Extraction:
    return extract_task_graph(lower_for_platform(module, where))


def place(extraction: Extraction, where: Platform, devices: list[int]) -> tuple[Any, Schedule]:
    schedule = list_schedule(extraction, where, devices)
    return annotate_schedule(extraction, schedule, where), schedule


def drawn(extraction: Extraction, where: Platform, seed: int) -> list[int]:
    rng = np.random.default_rng(seed)
    found: list[int] = rng.integers(0, len(where.devices), extraction.graph.num_tasks).tolist()
    return found


def weight_sizes(image: Image) -> dict[str, list[int]]:
    """Return the bytes of the weights in each memory."""
    found: dict[str, list[int]] = {}
    for buffer in image.program.buffers:
        if buffer.space == "weights":
            found.setdefault(buffer.memory, []).append(buffer.bytes)
    return found


def test_placements_agree_with_the_cpu_alone() -> None:
    module, where = weights_net.relax_module(), platform(1, 2)
    expected = on_cpu(module)
    inputs = random_inputs(expected)
    extraction = extract(module, where)
    for seed in range(2):
        annotated, schedule = place(extraction, where, drawn(extraction, where, seed))
        executable = ConcurrentExecutable(build_image(annotated, where, schedule))
        assert_agree(executable.run(inputs), expected.run(inputs))


def test_stock_tvm_compiles_and_runs_the_placed_module() -> None:
    where = platform()
    extraction = extract(weights_net.relax_module(), where)
    x, expected = weights_net.example()
    annotated, _ = place(extraction, where, drawn(extraction, where, 7))
    program = build_stock_program(annotated, where, "main").open()
    (found,) = flatten_outputs(program([x]))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_a_weight_that_both_use_is_held_in_both_forms() -> None:
    """Of the two tasks that read one weight, one is on the CPU and one on the GPU."""
    where = platform()
    extraction = extract(weights_net.relax_module(), where)
    tasks = extraction.graph.tasks
    (shared,) = {
        task.kernel for task in tasks if sum(other.kernel == task.kernel for other in tasks) == 2
    }
    devices = [1] * len(tasks)
    devices[[task.kernel for task in tasks].index(shared)] = 0
    annotated, schedule = place(extraction, where, devices)
    image = build_image(annotated, where, schedule)
    sizes = weight_sizes(image)
    plain = {name: 4 * int(np.prod(extents)) for name, extents in weights_net.EXTENTS.items()}
    (on_gpu,) = {memory for memory in sizes if memory != "host"}
    assert sizes["host"] == [weights_net.PACKED_BYTES["shared"]]
    assert sorted(sizes[on_gpu]) == sorted(plain.values())
    x, expected = weights_net.example()
    result = ConcurrentExecutable(image).run([x])
    np.testing.assert_allclose(np.from_dlpack(result), expected, rtol=1e-3, atol=1e-4)
