"""What was decided, and on which grounds: problem, schedule, costs, and what else was weighed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..scheduling.problem import Int64Array, SchedulingProblem
from ..scheduling.problem_file import problem_from_json, problem_to_json
from ..scheduling.schedule import Schedule


@dataclass(frozen=True, eq=False, repr=False)
class Decision:
    """The grounds of a placement; N tasks, D devices.

    Parameters
    ----------
    problem
        What was searched, with pins and limits.
    schedule
        What runs. With ``algorithm`` ``"single"`` it is that of the best single device, and its times
        are those of a device that works alone.
    exec_ns, spread_ns : (N, D) int64
        Time of each task on each device as it was weighed, without pins; -1 where it cannot run.
    measured : (N, D) bool
        Whether the time was measured, else it is predicted.
    origins
        Where the code of each task on each device comes from: ``rule``, ``tuned``, ``default``, or "".
    weighed
        Predicted makespans of other schedules by name, ns.
    algorithm, stop_reason
        Of the search.
    pins
        As the user gave them.
    free_ns
        Predicted makespan without the pins and limits of memory that were asked for, or with the
        schedule that was found in place of a fixed one.
    measured_at
        When the oldest and the newest of the times on record were measured, seconds since 1970.
    machine, tvm
        Where and with which version.
    """

    problem: SchedulingProblem
    schedule: Schedule
    exec_ns: Int64Array
    spread_ns: Int64Array
    measured: npt.NDArray[np.bool_]
    origins: tuple[tuple[str, ...], ...]
    weighed: Mapping[str, int]
    algorithm: str
    stop_reason: str
    pins: tuple[str, ...] = ()
    free_ns: int | None = None
    measured_at: tuple[float, float] | None = None
    machine: str = ""
    tvm: str = ""

    def __repr__(self) -> str:
        return f"<Decision on {self.problem!r}: {self.schedule!r}>"

    @property
    def is_alone(self) -> bool:
        """Whether the times of the schedule are those of a device that works alone."""
        return self.algorithm == "single"

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-serialisable form."""
        return {
            "problem": problem_to_json(self.problem),
            "schedule": self.schedule.to_json(),
            "exec_ns": self.exec_ns.tolist(),
            "spread_ns": self.spread_ns.tolist(),
            "measured": self.measured.astype(int).tolist(),
            "origins": [list(row) for row in self.origins],
            "weighed": dict(self.weighed),
            "algorithm": self.algorithm,
            "stop_reason": self.stop_reason,
            "pins": list(self.pins),
            "free_ns": self.free_ns,
            "measured_at": None if self.measured_at is None else list(self.measured_at),
            "machine": self.machine,
            "tvm": self.tvm,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Decision:
        """Rebuild it from `to_json`."""
        shape = (len(content["exec_ns"]), len(content["problem"]["devices"]))
        when = content["measured_at"]
        made = {
            "problem": problem_from_json(content["problem"]),
            "schedule": Schedule.from_json(content["schedule"]),
            "exec_ns": np.array(content["exec_ns"], dtype=np.int64).reshape(shape),
            "spread_ns": np.array(content["spread_ns"], dtype=np.int64).reshape(shape),
            "measured": np.array(content["measured"], dtype=np.bool_).reshape(shape),
            "origins": tuple(tuple(row) for row in content["origins"]),
            "pins": tuple(content["pins"]),
            "measured_at": None if when is None else (float(when[0]), float(when[1])),
        }
        return cls(**{**content, **made})
