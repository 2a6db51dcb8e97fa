"""Problem files: the round trip, the three forms of copies, and one clear line for each broken file."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from tests.strategies import draw_problem, problems
from tvm_sphinx.errors import ProblemError
from tvm_sphinx.scheduling.problem import SchedulingProblem
from tvm_sphinx.scheduling.problem_file import (
    problem_from_json,
    problem_to_json,
    read_problem,
    write_problem,
)
from tvm_sphinx.scheduling.schedule import validate
from tvm_sphinx.search import Stop, search_schedule

SMALL: dict[str, Any] = {
    "devices": ["cpu", "gpu"],
    "exec_ns": [[10, 5], [20, None], [30, 7]],
    "edges": [[0, 1], [0, 2]],
    "copy_ns": [[[0, 3], [4, 0]], [[0, 3], [4, 0]]],
}

LINKS = [
    {"src": "cpu", "dst": "gpu", "latency_ns": 1, "bytes_per_s": 10**9},
    {"src": "gpu", "dst": "cpu", "latency_ns": 2, "bytes_per_s": 10**9},
]


@settings(max_examples=60, deadline=None)
@given(problems(memory=True))
def test_json_round_trip_keeps_the_fingerprint(problem: SchedulingProblem) -> None:
    again = problem_from_json(json.loads(json.dumps(problem_to_json(problem))))
    assert again.fingerprint == problem.fingerprint
    assert again.name == problem.name


def test_file_round_trip(tmp_path: Path) -> None:
    problem = draw_problem(3, 12, special=True, memory=True)
    write_problem(problem, tmp_path / "p.json")
    assert read_problem(tmp_path / "p.json").fingerprint == problem.fingerprint


def test_three_forms_of_copies_are_one_problem() -> None:
    base = {key: value for key, value in SMALL.items() if key != "copy_ns"}
    table = SMALL["copy_ns"][0]
    forms = [
        SMALL,
        {**base, "copy_class": [0, 0], "copy_tables_ns": [table]},
        {**base, "edge_bytes": [2, 2], "links": LINKS},
    ]
    assert len({problem_from_json(form).fingerprint for form in forms}) == 1


def test_a_copy_over_a_link_is_rounded_up() -> None:
    base = {key: value for key, value in SMALL.items() if key != "copy_ns"}
    links = [
        {"src": src, "dst": dst, "latency_ns": 5, "bytes_per_s": 3 * 10**9}
        for src, dst in (("cpu", "gpu"), ("gpu", "cpu"))
    ]
    problem = problem_from_json({**base, "edge_bytes": [0, 10], "links": links})
    assert problem.copy_ns[problem.copy_class][:, 0, 1].tolist() == [5, 9]


def test_devices_as_objects_and_pins() -> None:
    devices = [
        {"name": "cpu", "cores": [0, 1], "memory_bytes": 100},
        {"name": "gpu", "cores": [1]},
    ]
    problem = problem_from_json({**SMALL, "devices": devices, "pins": {"0": "cpu"}})
    assert problem.device_cores == ((0, 1), (1,))
    assert problem.memory_bytes.tolist() == [100, -1]
    assert problem.exec_ns.tolist() == [[10, -1], [20, -1], [30, 7]]


BROKEN: list[tuple[dict[str, Any], str]] = [
    ({"exec_ns": None}, "Expected a list 'exec_ns'"),
    ({"edges": {}}, "Expected a list 'edges'"),
    ({"devices": []}, "at least one device"),
    ({"devices": ["a", "a"]}, "unique device names"),
    ({"devices": [1, 2]}, "Not a problem"),
    ({"exec_ns": [[1, 2], [3]]}, "exec_ns as one array; got rows of unlike lengths"),
    ({"exec_ns": [[1.5, 2], [3, 4], [5, 6]]}, "Expected integers in exec_ns"),
    ({"exec_ns": [["x", 2], [3, 4], [5, 6]]}, "Expected integers in exec_ns"),
    ({"exec_ns": [[10**30, 2], [3, 4], [5, 6]]}, "Expected integers in exec_ns"),
    ({"exec_ns": [[2**62, 2], [3, 4], [5, 6]]}, "sum below"),
    ({"exec_ns": [[-3, 2], [3, 4], [5, 6]]}, "exec_ns >= 0"),
    ({"exec_ns": [[None, None], [3, 4], [5, 6]]}, "task 0 can run on none"),
    ({"edges": [[0, 1], [2, 1]]}, "lower to a higher task"),
    ({"edges": [[0, 1], [0, 1]]}, "given twice"),
    ({"edges": [[0, 1], [0, 9]]}, "between tasks"),
    ({"copy_ns": [[[0, 3], [4, 0]]]}, "copy_class"),
    ({"copy_ns": [[[1, 3], [4, 0]]] * 2}, "between a device and itself"),
    ({"copy_class": [0, 0]}, "exactly one of"),
    ({"cores": [[0], []]}, "distinct integer core ids"),
    (
        {"cores": [[0.2], [0.9]]},
        "distinct integer core ids >= 0, at least one, for device 'cpu'; got [0.2]",
    ),
    (
        {"cores": [[0], ["1"]]},
        "distinct integer core ids >= 0, at least one, for device 'gpu'; got ['1']",
    ),
    (
        {"devices": [{"name": "cpu", "core": [0]}, {"name": "gpu"}]},
        "Unknown field of a device 'core'; known: name, cores, memory_bytes",
    ),
    (
        {"devices": [{"name": "cpu"}, {"name": "gpu", "memory": 5}]},
        "Unknown field of a device 'memory'; known: name, cores, memory_bytes",
    ),
    ({"devices": [{"name": "cpu", "cores": []}, {"name": "gpu"}]}, "cores for all devices or for none"),
    ({"exec_ns": [[[10, 5]], [[20, 1]], [[30, 7]]]}, "exec_ns of shape (3, any); got (3, 1, 2)"),
    ({"exec_ns": [[10, 5, 1], [20, 1, 1], [30, 7, 1]]}, "exec_ns of shape (3, 2); got (3, 3)"),
    ({"exec_ns": [[], [], []]}, "exec_ns of shape (3, 2); got (3, 0)"),
    ({"pins": {"7": "cpu"}}, "pins of tasks"),
    ({"pins": {"0": "npu"}}, "Unknown device 'npu'; known: cpu, gpu"),
    ({"pins": {"1": "gpu"}, "exec_ns": [[1, 2], [3, None], [4, 5]]}, "can run on none"),
    ({"colocation": [0, 0]}, "colocation of shape"),
    ({"colocation": [2**63 - 1, 0, 0]}, f"groups 0..{2**31 - 1}, or -1 for none; got {2**63 - 1}"),
    ({"colocation": [-2, 0, 0]}, f"groups 0..{2**31 - 1}, or -1 for none; got -2"),
    ({"weight_bytes": [2**61] * 3}, f"output_bytes to sum below 2**62 bytes; got {3 * 2**61}"),
    (
        {"weight_bytes": [2**61, 0, 0], "output_bytes": [2**61, 0, 0]},
        f"output_bytes to sum below 2**62 bytes; got {2**62}",
    ),
    ({"exec_ns": [[2**62 - 512, 0], [255, 0], [255, 0]]}, f"below 2**62 ns; got {2**62 + 6}"),
    ({"exec_us": []}, "Unknown field 'exec_us'; known:"),
]


@pytest.mark.parametrize(("change", "message"), BROKEN)
def test_a_broken_file_gives_one_line_that_names_it(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "broken.json"
    path.write_text(json.dumps({**SMALL, **change}))
    with pytest.raises(ProblemError) as caught:
        read_problem(path)
    assert message in str(caught.value)
    assert "broken.json" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("links", "message"),
    [
        (LINKS[:1], "a link from 'gpu' to 'cpu'"),
        ([*LINKS, LINKS[0]], "one link from 'cpu' to 'gpu'; got two"),
        (
            [{**LINKS[0], "latency": 5}, LINKS[1]],
            "Unknown field of a link 'latency'; known: src, dst, latency_ns, bytes_per_s",
        ),
        (
            [{**LINKS[0], "latency_ns": -1}, LINKS[1]],
            "latency_ns >= 0 and bytes_per_s > 0; got -1, 1000000000",
        ),
        (
            [{**LINKS[0], "latency_ns": True}, LINKS[1]],
            "latency_ns >= 0 and bytes_per_s > 0; got True, 1000",
        ),
        ([{**LINKS[0], "bytes_per_s": -3}, LINKS[1]], "latency_ns >= 0 and bytes_per_s > 0; got 1, -3"),
    ],
)
def test_a_broken_link_is_named(links: list[dict[str, Any]], message: str) -> None:
    base = {key: value for key, value in SMALL.items() if key != "copy_ns"}
    with pytest.raises(ProblemError, match=re.escape(message)):
        problem_from_json({**base, "edge_bytes": [2, 2], "links": links})


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", '"x"', "[" * 100_000, "1" * 5000, "\x00"])
def test_a_file_that_is_no_problem_at_all(text: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.json"
    path.write_text(text)
    with pytest.raises(ProblemError, match=r"broken\.json"):
        read_problem(path)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ProblemError, match="No such file"):
        read_problem(tmp_path / "missing.json")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ProblemError, match="not JSON"):
        read_problem(tmp_path / "binary.json")
    with pytest.raises(ProblemError, match="Cannot write"):
        write_problem(draw_problem(0, 2), tmp_path / "no" / "p.json")


TWICE = {"supportedOnFpga": 1, "cpuLatency": 2.0, "fpgaLatency": 0.5, "colorClass": 1}
DNN: dict[str, Any] = {
    "maxFPGAs": 2,
    "maxCPUs": 1,
    "maxSizePerFPGA": 100.0,
    "nodes": [
        {
            "id": 7,
            "supportedOnFpga": 1,
            "cpuLatency": 2.0,
            "fpgaLatency": 0.5,
            "colorClass": 1,
            "size": 60,
        },
        {
            "id": 3,
            "supportedOnFpga": 1,
            "cpuLatency": 2.0,
            "fpgaLatency": 0.5,
            "colorClass": 1,
            "size": 30,
        },
        {"id": 5, "supportedOnFpga": 0, "cpuLatency": 1.0, "fpgaLatency": 0.0, "size": 0.0},
    ],
    "edges": [{"sourceId": 3, "destId": 7, "cost": 0.25}, {"sourceId": 7, "destId": 5, "cost": 0.25}],
}


def test_import_of_dnn_partitioning() -> None:
    problem = problem_from_json(DNN, "x")
    assert problem.devices == ("accelerator0", "accelerator1", "cpu0")
    assert problem.exec_ns.tolist() == [
        [500_000, 500_000, 2_000_000],
        [500_000, 500_000, 2_000_000],
        [-1, -1, 1_000_000],
    ]
    assert problem.edges.tolist() == [[0, 1], [1, 2]]
    assert problem.copy_ns[0].tolist() == [
        [0, 500_000, 250_000],
        [500_000, 0, 250_000],
        [250_000, 250_000, 0],
    ]
    assert problem.colocation.tolist() == [0, 0, -1]
    assert problem.memory_bytes.tolist() == [100, 100, -1]
    assert problem.weight_bytes.tolist() == [30, 60, 0]
    found = search_schedule(problem, stop=Stop(max_evaluations=500)).best
    validate(problem, found)
    assert found.makespan_ns == 500_000 * 2 + 250_000 + 1_000_000


def test_a_cycle_in_an_imported_graph_is_refused() -> None:
    back = {"sourceId": 5, "destId": 3, "cost": 1.0}
    with pytest.raises(ProblemError, match="without cycles"):
        problem_from_json({**DNN, "edges": [*DNN["edges"], back]})
    with pytest.raises(ProblemError, match="dnn-partitioning"):
        problem_from_json({**DNN, "maxCPUs": "many"})


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("maxFPGAs", float("inf"), "maxFPGAs as an integer of 0..1024; got inf"),
        ("maxFPGAs", 1.5, "maxFPGAs as an integer of 0..1024; got 1.5"),
        ("maxCPUs", -1, "maxCPUs as an integer of 0..1024; got -1"),
        ("maxSizePerFPGA", float("inf"), "maxSizePerFPGA as a number >= 0 and below 2**62; got inf"),
        (
            "maxSizePerFPGA",
            1e30,
            "maxSizePerFPGA as a number >= 0 and below 2**62; got 1e+30",
        ),
        ("size", float("inf"), "size as a number >= 0 and below 2**62; got inf"),
        ("size", 1e30, "size as a number >= 0 and below 2**62; got 1e+30"),
        ("cpuLatency", -1.0, "cpuLatency as a number >= 0 and below 2**62; got -1.0"),
        ("cpuLatency", float("nan"), "cpuLatency as a number >= 0 and below 2**62; got nan"),
        ("cpuLatency", 1e18, "times below 2**62 ns; got 1e+18 ms"),
        ("fpgaLatency", "2.0", "fpgaLatency as a number >= 0 and below 2**62; got '2.0'"),
        ("supportedOnFpga", "no", "supportedOnFpga as 0 or 1; got 'no'"),
        ("cost", float("inf"), "cost as a number >= 0 and below 2**62; got inf"),
        ("cost", 3e12, "times below 2**62 ns; got 6e+12 ms"),
        ("id", 3, "each node id once; 3 is given twice"),
        ("destId", 7, "each edge once; (3, 7) is given twice"),
    ],
)
def test_a_field_of_dnn_partitioning_that_is_out_of_range(
    field: str, value: object, message: str
) -> None:
    content = copy.deepcopy(DNN)
    content["edges"].append({"sourceId": 3, "destId": 5, "cost": 0.5})
    for entry in (content, content["nodes"][0], content["edges"][-1]):
        if field in entry:
            entry[field] = value
    with pytest.raises(ProblemError, match=re.escape(message)):
        problem_from_json(content)


DAGBENCH: dict[str, Any] = {
    "name": "two",
    "task_graph": {
        "tasks": [{"name": "b", "cost": 4.0}, {"name": "a", "cost": 2.0}],
        "dependencies": [{"source": "a", "target": "b", "size": 100.0}],
    },
    "network": {
        "nodes": [{"name": "N0", "speed": 1.0}, {"name": "N1", "speed": 2.0}],
        "edges": [{"source": "N0", "target": "N1", "speed": 50.0}],
    },
}


def test_import_of_dagbench() -> None:
    problem = problem_from_json(DAGBENCH)
    assert problem.exec_ns.tolist() == [[2_000_000, 1_000_000], [4_000_000, 2_000_000]]
    assert problem.copy_ns.tolist() == [[[0, 2_000_000], [2_000_000, 0]]]
    broken = {**DAGBENCH, "network": {**DAGBENCH["network"], "edges": []}}
    with pytest.raises(ProblemError, match="link between every two"):
        problem_from_json(broken)
    assert np.array_equal(problem.edges, [[0, 1]])


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        (("task_graph", "tasks"), {"name": "b"}, "each task name once; 'b' is given twice"),
        (("task_graph", "tasks"), {"cost": -1}, "cost as a number >= 0 and below 2**62; got -1"),
        (("task_graph", "tasks"), {"cost": 10**400}, "cost as a number >= 0 and below 2**62; got 1000"),
        (
            ("task_graph", "dependencies"),
            {"size": float("inf")},
            "size as a number >= 0 and below 2**62; got inf",
        ),
        (("network", "nodes"), {"speed": -2.0}, "speed as a number >= 0 and below 2**62; got -2.0"),
        (("network", "nodes"), {"speed": 0}, "speed > 0; got 0"),
        (("network", "nodes"), {"speed": 1e-320}, "times below 2**62 ns; got inf ms"),
        (("network", "edges"), {"speed": -50.0}, "speed as a number >= 0 and below 2**62; got -50.0"),
        (("network", "edges"), {"speed": 5e-324}, "times below 2**62 ns; got"),
    ],
)
def test_a_field_of_dagbench_that_is_out_of_range(
    part: tuple[str, str], change: dict[str, Any], message: str
) -> None:
    content = copy.deepcopy(DAGBENCH)
    content[part[0]][part[1]][-1].update(change)
    with pytest.raises(ProblemError, match=re.escape(message)):
        problem_from_json(content)


def test_weights_may_depend_on_the_device(tmp_path: Path) -> None:
    """Each device holds its own; where a device makes no difference, it is the problem without."""
    alike = problem_from_json({**SMALL, "weight_bytes": [3, 4, 5]})
    spread = problem_from_json({**SMALL, "weight_bytes": [[3, 3], [4, 4], [5, 5]]})
    assert spread.fingerprint == alike.fingerprint
    assert spread.weight_bytes.tolist() == [3, 4, 5]
    unlike = problem_from_json({**SMALL, "weight_bytes": [[3, 9], [4, 4], [5, 5]]})
    assert unlike.fingerprint != alike.fingerprint
    assert unlike.weight_bytes_on.tolist() == [[3, 9], [4, 4], [5, 5]]
    write_problem(unlike, tmp_path / "unlike.json")
    assert read_problem(tmp_path / "unlike.json").fingerprint == unlike.fingerprint
