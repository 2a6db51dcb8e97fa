"""The report as text."""

from __future__ import annotations

import pytest

from tvm_sphinx.report.describe import format_report
from tvm_sphinx.report.placement import DeviceRow, PlacementReport


@pytest.mark.parametrize(("num_devices", "num_rows"), [(8, 8), (40, 2)])
def test_of_many_devices_those_that_run_nothing_are_counted(num_devices: int, num_rows: int) -> None:
    rows = tuple(
        DeviceRow(f"core{n}", int(n in (3, 5)), 10 * (n in (3, 5)), 0, 0, 0) for n in range(num_devices)
    )
    report = PlacementReport(rows, (), 20, "core3", 30, 20, 1.0, "heft", 0, 1)
    lines = format_report(report).splitlines()
    assert sum(line.startswith("core") for line in lines) == num_rows
    assert ("38 other devices run nothing" in lines) is (num_devices == 40)
