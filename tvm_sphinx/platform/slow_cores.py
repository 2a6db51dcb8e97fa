"""For tests: cores that are made slower, so that a machine of equal cores is one of unlike cores.

``TVM_SPHINX_SLOW_CORES="1:2.5"`` makes core 1 take 2.5 times as long for everything that the lanes run
on it: after each part of a loop, and after each kernel, it waits for the rest of that time.
"""

from __future__ import annotations

import os
import re

from ..errors import PlatformError

#: Environment variable of the cores, as ``CORE:FACTOR,...``.
SLOW_VARIABLE = "TVM_SPHINX_SLOW_CORES"


def slow_cores() -> dict[int, float]:
    """Return by how much cores are slowed, ascending by core; none without the variable.

    Raises
    ------
    PlatformError
        If the variable has another form, or a factor is less than 1 or more than 1000.
    """
    factors = {}
    for part in filter(None, os.environ.get(SLOW_VARIABLE, "").split(",")):
        match = re.fullmatch(r"\s*(\d+):(\d+(?:\.\d+)?)\s*", part)
        if match is None or not 1 <= float(match[2]) <= 1000:
            raise PlatformError(
                f"Expected {SLOW_VARIABLE} as CORE:FACTOR,... with factors from 1 to 1000, such as "
                f"'1:2.5'; got {part!r}."
            )
        factors[int(match[1])] = float(match[2])
    return dict(sorted(factors.items()))
