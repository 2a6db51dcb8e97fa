"""Problem files: any scheduling problem as JSON, ours or another's.

The form, one JSON object (N tasks, E edges, D devices; what is not marked "required" may be left out):

``name``
    A string; the file's name otherwise.
``devices`` (required)
    D names, or D objects ``{"name": ..., "cores": [...], "memory_bytes": ...}``. Devices that share a
    core exclude each other in time; without ``cores`` a device has one of its own.
``cores``, ``memory_bytes``
    The same as two lists of D entries, where ``devices`` holds names; ``null`` or -1 bytes: no limit.
``exec_ns`` (required)
    N x D integers, nanoseconds; ``null`` or -1 where the device cannot run the task.
``edges`` (required)
    E pairs [source, destination]; source < destination: tasks are numbered topologically.
``copy_ns``
    E x D x D integers: for every edge what its copy costs from each device to each.
``copy_class``, ``copy_tables_ns``
    Instead: for every edge the number of its table, and the tables.
``edge_bytes``, ``links``
    Instead: for every edge its bytes, and objects ``{"src": name, "dst": name, "latency_ns": ...,
    "bytes_per_s": ...}`` for each ordered pair of devices. A copy costs latency_ns + bytes /
    bytes_per_s, rounded up to whole nanoseconds; both are integers.
``release_ns``, ``delivery_ns``
    N x D: earliest start of a task on a device; from its finish until its outputs are delivered.
``colocation``
    N group numbers of 0 .. 2**31 - 1; tasks of one group share a device; -1: tied to none.
``pins``
    An object from task number (as a string) to device name: that task runs there.
``weight_bytes``
    N, or N x D where it depends on the device: what a task's weights take all the time.
``output_bytes``
    N: what a task's outputs take while they are alive.

All times of a problem have to sum below 2**62 ns, and all bytes of its tasks below 2**62.

The files of two published sets are read as they are: see `tvm_sphinx.scheduling.problem_import`. The
form of schedules is in `tvm_sphinx.scheduling.schedule_file`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ProblemError, known_choices
from .integers import MAX_TOTAL, frozen_int64, is_whole
from .json_file import read_json
from .problem import CANNOT_RUN, UNLIMITED, Int64Array, SchedulingProblem
from .problem_import import import_dagbench, import_dnn_partitioning

_REQUIRED = ("devices", "exec_ns", "edges")
_COPY_FORMS = (("copy_ns",), ("copy_class", "copy_tables_ns"), ("edge_bytes", "links"))
_DEVICE_KEYS = ("name", "cores", "memory_bytes")
_LINK_KEYS = ("src", "dst", "latency_ns", "bytes_per_s")
_PASSED_ON = ("release_ns", "delivery_ns", "colocation", "weight_bytes", "output_bytes")
_KNOWN = ("name", *_REQUIRED, "cores", "memory_bytes", *sum(_COPY_FORMS, ()), *_PASSED_ON, "pins")


def read_problem(path: str | Path) -> SchedulingProblem:
    """Read a problem file of ours or of one of the two known published sets.

    Raises
    ------
    ProblemError
        If the file cannot be read, is not JSON, or breaks a rule of its form; one line that names the
        file.
    """
    content = read_json(path, "problem file", ProblemError)
    try:
        return problem_from_json(content, Path(path).stem)
    except ProblemError as error:
        raise ProblemError(f"Problem file {str(path)!r}: {error}") from error


def problem_from_json(content: Any, name: str = "problem") -> SchedulingProblem:
    """Return the problem of a JSON object of any of the known forms.

    Raises
    ------
    ProblemError
        If it breaks a rule of its form.
    """
    if not isinstance(content, dict):
        raise ProblemError(f"Expected one JSON object; got {type(content).__name__}.")
    if "task_graph" in content:
        return import_dagbench(content, name)
    if "nodes" in content:
        return import_dnn_partitioning(content, name)
    _check_keys("field", content, _KNOWN)
    for key in _REQUIRED:
        if not isinstance(content.get(key), list):
            raise ProblemError(f"Expected a list {key!r}; got {content.get(key)!r:.40}.")
    try:
        return _build(content, name)
    except ProblemError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ProblemError(f"Not a problem in JSON form: {error}.".replace("\n", " ")) from error


def _build(content: dict[str, Any], name: str) -> SchedulingProblem:
    devices, cores, memory = _devices(content)
    rows = [[CANNOT_RUN if cell is None else cell for cell in row] for row in content["exec_ns"]]
    shape = (len(rows), -1 if rows else len(devices))
    exec_ns = frozen_int64("exec_ns", rows, shape, ProblemError).copy()
    for task, device in dict(content.get("pins", {})).items():
        _pin(exec_ns, int(task), _index(devices, device))
    copy_class, copy_ns = _copies(content, devices)
    return SchedulingProblem(
        name=str(content.get("name", name)),
        devices=devices,
        device_cores=cores,
        exec_ns=exec_ns,
        edges=np.array(content["edges"]),
        copy_class=copy_class,
        copy_ns=copy_ns,
        memory_bytes=memory,
        **{key: np.array(content[key]) for key in _PASSED_ON if key in content},
    )


def _devices(content: dict[str, Any]) -> tuple[tuple[str, ...], tuple[tuple[int, ...], ...], Any]:
    entries = content["devices"]
    if all(isinstance(entry, str) for entry in entries):
        names = tuple(entries)
        cores, memory = content.get("cores"), content.get("memory_bytes")
    else:
        for key in ("cores", "memory_bytes"):
            if key in content:
                raise ProblemError(f"Expected {key!r} inside the objects of 'devices'; got both.")
        for entry in entries:
            _check_keys("field of a device", entry, _DEVICE_KEYS)
        names = tuple(str(entry["name"]) for entry in entries)
        cores = [entry.get("cores") for entry in entries]
        if None in cores:
            if any(group is not None for group in cores):
                raise ProblemError("Expected cores for all devices or for none.")
            cores = None
        memory = [entry.get("memory_bytes") for entry in entries]
    if cores is None:
        cores = [[device] for device in range(len(names))]
    limits = None
    if memory is not None:
        limits = np.array([UNLIMITED if limit is None else limit for limit in memory])
    return names, tuple(tuple(group) for group in cores), limits


def _check_keys(kind: str, entry: dict[str, Any], known: tuple[str, ...]) -> None:
    for key in entry:
        if key not in known:
            raise ProblemError(known_choices(kind, key, known))


def _index(devices: tuple[str, ...], name: object) -> int:
    if name not in devices:
        raise ProblemError(known_choices("device", name, devices))
    return devices.index(str(name))


def _pin(exec_ns: Int64Array, task: int, device: int) -> None:
    if not 0 <= task < len(exec_ns):
        raise ProblemError(f"Expected pins of tasks 0..{len(exec_ns) - 1}; got {task}.")
    exec_ns[task, [other for other in range(exec_ns.shape[1]) if other != device]] = CANNOT_RUN


def _copies(content: dict[str, Any], devices: tuple[str, ...]) -> tuple[Any, Any]:
    """Return copy_class and copy_ns from whichever of the three forms the file uses."""
    num_edges = len(content["edges"])
    forms = [form for form in _COPY_FORMS if any(key in content for key in form)]
    if not forms and not num_edges:
        return np.zeros(0, dtype=np.int64), np.zeros((0, len(devices), len(devices)), dtype=np.int64)
    if len(forms) != 1 or any(key not in content for key in forms[0]):
        choices = " or ".join(" + ".join(form) for form in _COPY_FORMS)
        raise ProblemError(f"Expected exactly one of {choices}.")
    if forms[0] == ("copy_ns",):
        tables: dict[str, int] = {}
        rows = [tables.setdefault(json.dumps(table), len(tables)) for table in content["copy_ns"]]
        return np.array(rows), np.array([json.loads(table) for table in tables])
    if "copy_class" in forms[0]:
        return np.array(content["copy_class"]), np.array(content["copy_tables_ns"])
    return _link_tables(content, devices)


def _link_tables(content: dict[str, Any], devices: tuple[str, ...]) -> tuple[Any, Any]:
    links: dict[tuple[int, int], tuple[int, int]] = {}
    for link in content["links"]:
        _check_keys("field of a link", link, _LINK_KEYS)
        pair = _index(devices, link["src"]), _index(devices, link["dst"])
        latency_ns, bytes_per_s = link["latency_ns"], link["bytes_per_s"]
        if not (is_whole(latency_ns) and is_whole(bytes_per_s) and latency_ns >= 0 and bytes_per_s > 0):
            raise ProblemError(
                "Expected whole latency_ns >= 0 and bytes_per_s > 0; "
                f"got {latency_ns!r:.40}, {bytes_per_s!r:.40}."
            )
        if pair in links:
            raise ProblemError(f"Expected one link from {link['src']!r} to {link['dst']!r}; got two.")
        links[pair] = latency_ns, bytes_per_s
    sizes, classes = np.unique(np.array(content["edge_bytes"]), return_inverse=True)
    if sizes.dtype.kind != "i" or sizes.min(initial=0) < 0:
        raise ProblemError("Expected edge_bytes to be whole numbers >= 0.")
    tables = np.zeros((len(sizes), len(devices), len(devices)), dtype=np.int64)
    for src in range(len(devices)):
        for dst in range(len(devices)):
            if src != dst and (src, dst) not in links:
                raise ProblemError(f"Expected a link from {devices[src]!r} to {devices[dst]!r}.")
            for row, size in enumerate(sizes.tolist() if src != dst else ()):
                latency_ns, bytes_per_s = links[src, dst]
                copy_ns = latency_ns - (-size * 10**9 // bytes_per_s)
                if copy_ns >= MAX_TOTAL:
                    raise ProblemError(
                        f"Expected a copy of {size} bytes over the link from {devices[src]!r} to "
                        f"{devices[dst]!r} to take less than 2**62 ns; got {copy_ns}."
                    )
                tables[row, src, dst] = copy_ns
    return classes, tables


def problem_to_json(problem: SchedulingProblem) -> dict[str, Any]:
    """Return the JSON form; `problem_from_json` restores a problem of the same fingerprint."""
    return {
        "name": problem.name,
        "devices": list(problem.devices),
        "cores": [list(cores) for cores in problem.device_cores],
        "memory_bytes": problem.memory_bytes.tolist(),
        "exec_ns": problem.exec_ns.tolist(),
        "edges": problem.edges.tolist(),
        "copy_class": problem.copy_class.tolist(),
        "copy_tables_ns": problem.copy_ns.tolist(),
        **{key: getattr(problem, key).tolist() for key in _PASSED_ON},
    }


def write_problem(problem: SchedulingProblem, path: str | Path) -> None:
    """Write a problem file.

    Raises
    ------
    ProblemError
        If the file cannot be written.
    """
    try:
        Path(path).write_text(json.dumps(problem_to_json(problem)) + "\n", encoding="utf-8")
    except OSError as error:
        raise ProblemError(f"Cannot write problem file {str(path)!r}: {error.strerror}.") from error
