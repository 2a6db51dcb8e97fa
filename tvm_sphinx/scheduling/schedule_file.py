"""Schedule files: a schedule of a problem file as JSON, ours or another tool's.

The form, one JSON object (N tasks; what is not marked "required" may be left out):

``device`` (required)
    N device numbers, in the order of the problem's ``devices``, from 0.
``start_ns``, ``finish_ns`` (required)
    N integers each, 0 .. 2**62 - 1, nanoseconds; the first model input is at hand at 0.
``makespan_ns`` (required)
    When the last output is delivered: the largest sum of ``finish_ns`` and ``delivery_ns``.
``lower_bound_ns``
    No schedule of the problem is shorter, as far as the writer knows; at most ``makespan_ns``.
``problem_fingerprint``
    `SchedulingProblem.fingerprint` of the problem; where it is given, it has to match.
``algorithm``, ``seed``
    How the schedule was found, for people.

Other fields are ignored. What makes a schedule valid is listed in
`tvm_sphinx.scheduling.schedule.validate`; the form of problems in `tvm_sphinx.scheduling.problem_file`.
"""

from __future__ import annotations

from pathlib import Path

from ..errors import InvalidScheduleError
from .json_file import read_json
from .problem import SchedulingProblem
from .schedule import Schedule


def read_schedule(path: str | Path, problem: SchedulingProblem) -> Schedule:
    """Read a schedule file of a problem; it is not yet checked against it.

    Without a lower bound in the file that of the schedule is 0, and without a fingerprint the schedule
    is taken for one of the problem.

    Raises
    ------
    InvalidScheduleError
        If it cannot be read, is not JSON, or is not a schedule; one line that names the file.
    """
    return load_schedule(path, problem.fingerprint)


def load_schedule(path: str | Path, fingerprint: str = "") -> Schedule:
    """Read a schedule file by itself; `read_schedule`, where the problem is at hand.

    Parameters
    ----------
    fingerprint
        Of its problem, where the file names none.

    Raises
    ------
    InvalidScheduleError
        As of `read_schedule`.
    """
    content = read_json(path, "schedule file", InvalidScheduleError)
    if isinstance(content, dict):
        content = {"lower_bound_ns": 0, "problem_fingerprint": fingerprint, **content}
    try:
        return Schedule.from_json(content)
    except InvalidScheduleError as error:
        raise InvalidScheduleError(f"Schedule file {str(path)!r}: {error}") from error
