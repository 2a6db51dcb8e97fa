"""Kernels are timed as well as they matter to a model."""

from __future__ import annotations

import pytest

from tvm_sphinx.cost.measure.precision import Demand, first_look
from tvm_sphinx.cost.measure.sampling import Goal


def test_what_takes_more_of_a_model_has_to_be_known_better() -> None:
    demand = Demand({"conv": 10, "add": 1}).of_total({"conv": 90.0, "add": 100.0})
    assert demand.total_ns == 1000
    # A thousandth of the model is a ninth of a percent of nine tenths of it, and a percent of a tenth.
    assert demand.half_width("conv", 90.0, 0.0) == pytest.approx(0.001 / 0.9)
    assert demand.half_width("add", 100.0, 0.0) == pytest.approx(0.01)
    assert demand.half_width("conv", 90.0, 0.02) == 0.02
    assert demand.half_width("unknown", 1.0, 0.02) == 0.1, "however little it matters"
    assert demand.half_width("nothing", 0.0, 0.02) == 0.1


def test_a_total_that_is_given_stays() -> None:
    assert Demand({}, 500.0).of_total({"conv": 90.0}).total_ns == 500.0


def test_a_first_look_is_shorter() -> None:
    goal = Goal()
    look = first_look(goal)
    assert look.half_width > goal.half_width
    assert look.min_ns < goal.min_ns
    assert look.max_ns < goal.max_ns
    assert look.max_wall_s < goal.max_wall_s
    assert first_look(Goal(half_width=0.5)).half_width == 0.5
