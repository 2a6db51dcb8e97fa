"""Words that do not hold together are refused by the native side, whatever they are."""

from __future__ import annotations

import numpy as np
import pytest
import tvm_ffi

from tests.runtime.modules import platforms
from tvm_sphinx.cost.measure.handover import fetch_samples, measure_handover, ping_pong
from tvm_sphinx.runtime import encode as native
from tvm_sphinx.runtime.plan import make_plan
from tvm_sphinx.runtime.tensors import aligned_bytes


def create(words: list[int], num_workers: int) -> object:
    tensor = tvm_ffi.from_dlpack(np.array(words, dtype=np.int64))
    configure = tvm_ffi.get_global_func("runtime.config_threadpool")
    lists = [tvm_ffi.convert(["0"])] * num_workers
    arena = aligned_bytes(1 << 16)
    return native._library().lanes_create(tensor, arena, aligned_bytes(0), configure, 0, 1, *lists)


def test_altered_words_are_refused_or_harmless() -> None:
    """Any word may take any value: the answer is an error or lanes that can be made and freed."""
    plan = make_plan(ping_pong(0, 1, 3), platforms()["unlike"])
    words = native.encode(plan, [], bind=False)
    create(words, len(plan.cores))
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(1500):
        altered = list(words)
        for _ in range(int(rng.integers(1, 4))):
            value = rng.choice([-1, 0, 1, 2, 7, 1 << 20, 1 << 40, -(1 << 62), (1 << 63) - 1])
            altered[int(rng.integers(0, len(words)))] = int(value)
        if rng.integers(0, 4) == 0:
            del altered[int(rng.integers(0, len(altered))) :]
        try:
            create(altered, len(plan.cores))
        except (ValueError, TypeError, RuntimeError):
            refused += 1
    assert refused > 500


def test_wrong_calls_are_refused() -> None:
    plan = make_plan(ping_pong(0, 1, 3), platforms()["unlike"])
    lanes = create(native.encode(plan, [], bind=False), len(plan.cores))
    for arguments in ((), ("run",), (99,), (0,), (0, 1), (1,), (2, 3), (3, 1), (4, "a", 1), (5, 1)):
        with pytest.raises((TypeError, ValueError)):
            lanes(*arguments)


def test_handover_is_measured_for_each_pair() -> None:
    measured = measure_handover(platforms()["sharing"])
    assert set(measured) == {
        (a, b) for a in ("one", "two", "both") for b in ("one", "two", "both") if a != b
    }
    assert all(0 <= latency < 10_000_000 for latency in measured.values())


@pytest.mark.parametrize("pair", [(0, 1), (1, 0), (0, 2), (2, 0), (2, 2)])
def test_fetching_is_measured_for_each_pair(pair: tuple[int, int]) -> None:
    extra_ns = fetch_samples(platforms()["sharing"], *pair, 1 << 14)
    assert len(extra_ns) > 10
    assert all(0 <= extra < 10_000_000 for extra in extra_ns)
