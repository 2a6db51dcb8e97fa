"""Every rule keeps the numbers of kernels of drawn shapes: odd, prime and unit extents among them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.kernels import strategies as drawn
from tests.kernels.reference import check, draw
from tvm_sphinx.kernels import schedule, target_info
from tvm_sphinx.platform.targets import baseline_target, host_target, make_target

EXAMPLES = 15  # of each test: some 40 s on one core for the file
#: Threads, and a target: with wide and with narrow vectors.
PLACES = st.tuples(
    st.sampled_from([1, 2, 16]),
    st.sampled_from([make_target(host_target()), make_target(baseline_target())]),
)
Place = tuple[int, Any]
REDUCTIONS = ("sum", "mean", "max", "min")

drawing = settings(
    max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


@pytest.fixture(autouse=True, scope="module")
def _threads_for_any_work() -> Iterator[None]:
    """Share out small work as well, which no kernel of a drawn size would otherwise be worth."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(target_info, "_MIN_THREAD_NS", 0)
        patch.setattr(schedule, "_CACHE", {})
        yield


def check_kernels(case: drawn.Case, place: Place, dtype: str = "float32") -> None:
    """Schedule every kernel of a drawn module and compare it to its unscheduled self."""
    body, shapes = case
    rng = np.random.default_rng(len(shapes))
    for func in drawn.kernels_of(drawn.module_of(body, shapes, dtype)):
        buffers = list(func.params)[:-1]
        inputs = [draw(tuple(int(e) for e in b.shape), str(b.dtype), rng) for b in buffers]
        check(func, inputs, *place)


@drawing
@given(drawn.convolutions(), PLACES)
def test_convolutions(case: drawn.Case, place: Place) -> None:
    check_kernels(case, place)


@drawing
@given(drawn.products(), PLACES)
def test_products_with_weights(case: drawn.Case, place: Place) -> None:
    check_kernels(case, place)


@drawing
@given(drawn.batched_products(), PLACES)
def test_batched_products(case: drawn.Case, place: Place) -> None:
    check_kernels(case, place)


@drawing
@given(drawn.poolings(), PLACES)
def test_poolings(case: drawn.Case, place: Place) -> None:
    check_kernels(case, place)


@drawing
@given(drawn.reductions(REDUCTIONS), PLACES)
def test_reductions(case: drawn.Case, place: Place) -> None:
    check_kernels(case, place)


@drawing
@given(drawn.normalizations(), PLACES)
def test_normalizations(case: drawn.Case, place: Place) -> None:
    check_kernels(case, place)


@drawing
@given(drawn.elementwise_chains(), PLACES)
def test_elementwise_chains(case: drawn.Case, place: Place) -> None:
    check_kernels(case, place)


@drawing
@given(drawn.injective_chains(), PLACES)
def test_injective_chains(case: drawn.Case, place: Place) -> None:
    check_kernels(case, place)


NARROW: dict[str, Any] = {
    "float16": st.one_of(
        drawn.convolutions("float16"),
        drawn.products("float16"),
        drawn.elementwise_chains("float16"),
        drawn.injective_chains("float16"),
        drawn.reductions(("max", "min"), exact=True),
    ),
    "int8": st.one_of(
        drawn.convolutions("int8"),
        drawn.products("int8"),
        drawn.elementwise_chains("int8"),
        drawn.injective_chains("int8"),
        drawn.reductions(("max", "min"), exact=True),
    ),
    "bool": drawn.injective_chains("bool"),
}


@pytest.mark.parametrize("dtype", NARROW)
@drawing
@given(data=st.data(), place=PLACES)
def test_other_types(dtype: str, data: st.DataObject, place: Place) -> None:
    check_kernels(data.draw(NARROW[dtype]), place, dtype)
