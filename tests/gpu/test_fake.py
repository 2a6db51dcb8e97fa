"""The fake GPU finds the faults that it is there for, and none in programs that are right."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.gpu import fake
from tests.gpu.programs import PROGRAMS
from tests.processes import module_command

_ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(
    fake.why_unavailable() is not None, reason=fake.why_unavailable() or "it is there"
)

#: What each planted fault has to end in: the error, and words of the report.
_FAULTS = {
    "kernel_on_host_memory": (700, "argument 1 of add_one, 0x"),
    "host_on_device_memory": (-signal.SIGSEGV, ""),
    "read_before_write": (719, "which nothing has written"),
    "read_past_the_end": (700, "which is not allocated"),
    "use_after_free": (700, "which is not allocated"),
    "event_between_streams": (719, "race: add_one"),
    "write_after_read": (719, "race: add_one"),
    "event_of_an_earlier_record": (719, "race: add_one"),
    "host_waits_between_streams": (719, "race: add_one"),
    "flag_between_streams": (719, "race: add_one"),
    "gate_of_the_host": (702, ""),
    "read_before_waiting": (1, ""),
    "legacy_stream": (719, "race: add_one"),
    "edge_of_a_graph": (719, "race: add"),
    "captured_fork": (719, "race: add"),
    "fork_that_joins": (904, ""),
    "graph_on_two_streams": (719, "of graph 2)"),
    "pageable_copy_in_capture": (900, ""),
    "allocation_in_capture": (900, ""),
    "use_after_fork": (3, ""),
    "out_of_memory": (2, ""),
    "error_that_stays": (700, "argument 1 of add_one, 0x"),
    "memory_of_a_peer": (700, "memory of another device"),
    "registered_memory": (700, "argument 1 of add_one, 0x"),
    "barriers": (719, "part_ways wait at different barriers"),
    "host_function": (719, "race: add_one"),
}


def run(name: str, kind: str, **settings: str) -> tuple[int, dict[str, Any]]:
    """Run a program of its own; return its exit status and what it printed."""
    environment = {**os.environ, "FAKE_CUDA_TIMEOUT_S": "20", **settings}
    command = module_command("tests.gpu.programs", name, kind)
    done = subprocess.run(command, cwd=_ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 or not done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout) if done.stdout else {"error": done.stderr}


def test_each_program_has_its_fault() -> None:
    assert set(PROGRAMS) == set(_FAULTS)


@pytest.mark.parametrize("seed", ["1", "2", "3"])
def test_right_programs_run(seed: str) -> None:
    status, result = run("all", "right", FAKE_CUDA_SEED=seed)
    assert (status, result.get("code"), result.get("reports")) == (0, 0, []), result


@pytest.mark.parametrize("name", PROGRAMS)
def test_planted_fault_is_found(name: str) -> None:
    settings = {"FAKE_CUDA_MEMORY": str(1 << 20)} if name == "out_of_memory" else {}
    if name == "gate_of_the_host":
        settings = {"FAKE_CUDA_TIMEOUT_S": "1"}
    status, result = run(name, "fault", **settings)
    code, words = _FAULTS[name]
    assert (status or result["code"]) == code, result
    if words:
        assert any(words in report for report in result["reports"]), result


@pytest.mark.parametrize("name", ["event_between_streams", "edge_of_a_graph", "captured_fork"])
def test_races_are_found_whatever_comes_first(name: str) -> None:
    for seed in range(2, 6):
        _, result = run(name, "fault", FAKE_CUDA_SEED=str(seed))
        assert "race: add" in result["reports"][0], (seed, result)


def test_a_graph_is_replayed_in_any_order_of_its_edges() -> None:
    results = [
        run("orders_of_replay", "right", FAKE_CUDA_SEED=str(seed), FAKE_CUDA_KEEP_GOING="1")[1]
        for seed in (1, 2, 3, 1)
    ]
    orders = [tuple(result["order"]) for result in results]
    assert all(sorted(order) == [0.0, 1.0, 2.0, 3.0] for order in orders)
    assert len(set(orders)) > 1
    assert all("race: append" in result["reports"][0] for result in results)


def test_sanitizers_find_nothing() -> None:
    found = [
        subprocess.run(
            ["gcc", f"-print-file-name={name}"], capture_output=True, text=True
        ).stdout.strip()
        for name in ("libasan.so", "libubsan.so")
    ]
    if not all(os.path.isabs(path) for path in found):
        pytest.skip("gcc has no sanitizers here")
    status, result = run(
        "all",
        "right",
        FAKE_CUDA_SANITIZED="1",
        LD_PRELOAD=":".join(found),
        # Python itself keeps memory to its end, and the fake catches what a host does to device memory.
        ASAN_OPTIONS="detect_leaks=0:handle_segv=0:handle_sigbus=0:handle_sigfpe=0:abort_on_error=1",
    )
    assert (status, result.get("code"), result.get("reports")) == (0, 0, []), result
