"""How often to time something: until its median is known well enough, or a budget ends."""

from __future__ import annotations

import math
import os
import resource
import statistics
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from ...errors import SphinxError

# 97.5 % quantile of the normal distribution, for an interval that holds the median 95 times in 100.
_Z = 1.96


@dataclass(frozen=True)
class Goal:
    """When there are samples enough.

    Parameters
    ----------
    half_width
        Half of the 95 % confidence interval of the median, as a share of the median.
    min_ns
        Samples sum up to this at least.
    max_ns
        No more once they sum up to this, however wide the interval is.
    resolution_ns
        Half of an interval in ns that is narrow enough for any kernel: that of the clock.
    max_wall_s
        No more once this has passed, with all that is done between two samples, if there are two.
    max_samples
        No more than these, for kernels that take less than a microsecond.
    """

    half_width: float = 0.02
    min_ns: int = 5_000_000
    max_ns: int = 60_000_000
    resolution_ns: int = 25
    max_wall_s: float = 0.4
    max_samples: int = 2000

    def __post_init__(self) -> None:
        if not 0 <= self.half_width < math.inf or not 0 < self.min_ns <= self.max_ns:
            raise SphinxError(f"Expected half_width >= 0 and 0 < min_ns <= max_ns; got {self}.")

    def of_means(self, num_calls: int) -> Goal:
        """Return the same goal for samples each of which is the mean of some calls."""
        least, most = (max(1, limit // num_calls) for limit in (self.min_ns, self.max_ns))
        return replace(self, min_ns=least, max_ns=most)


@dataclass(frozen=True)
class Samples:
    """What was timed.

    Parameters
    ----------
    ns
        The samples, in the order they were taken.
    half_width
        Half of the 95 % confidence interval of the median as a share of it; infinite below 6 samples.
    disturbed
        Share of all samples, those left out too, during which another process took a core.
    """

    ns: tuple[int, ...]
    half_width: float
    disturbed: float

    @property
    def median_ns(self) -> float:
        """The median of the samples, 0 without any."""
        return statistics.median(self.ns) if self.ns else 0.0


def collect_samples(
    batch: Callable[[], Sequence[int]], goal: Goal, switches: Callable[[], int]
) -> Samples:
    """Call ``batch`` until its samples (in ns) meet a goal.

    Batches during which the operating system took a core away from this process are left out as long as
    there are others: they tell of another load and not of what is timed. What they took counts against
    the budget all the same.

    Parameters
    ----------
    batch
        Returns some new samples.
    goal
    switches
        Returns how often a core was taken away so far, see `involuntary_switches`.
    """
    collector = Collector(goal, switches)
    while collector.take(batch) and not collector.is_done:
        pass
    return collector.samples


class Collector:
    """Samples of something until its goal is met, batch by batch; parameters as of `collect_samples`.

    ``spent_s`` is the time that they took in all, to which what is done for their sake may be added.
    """

    def __init__(self, goal: Goal, switches: Callable[[], int]) -> None:
        self.goal, self.switches = goal, switches
        self.clean: list[int] = []
        self.disturbed: list[int] = []
        self.spent_s = 0.0

    def take(self, batch: Callable[[], Sequence[int]]) -> bool:
        """Take what a batch brings; return whether it brought anything."""
        before, begin_s = self.switches(), time.monotonic()
        new = batch()
        (self.clean if self.switches() == before else self.disturbed).extend(new)
        self.spent_s += time.monotonic() - begin_s
        return bool(new)

    @property
    def is_done(self) -> bool:
        """Whether the goal is met, or there may be no more."""
        goal, clean = self.goal, self.clean
        taken = len(clean) + len(self.disturbed)
        late = taken >= 2 and self.spent_s >= goal.max_wall_s
        spent_ns = sum(clean) + sum(self.disturbed)
        if late or taken >= goal.max_samples or spent_ns >= goal.max_ns:
            return True
        return sum(clean) >= goal.min_ns and is_narrow(clean, goal)

    @property
    def samples(self) -> Samples:
        """What was taken; the disturbed ones count where there are few others."""
        clean, disturbed = self.clean, self.disturbed
        share = len(disturbed) / max(1, len(clean) + len(disturbed))
        # Too few clean ones are no better than all of them.
        kept = clean if len(clean) >= min(6, len(disturbed)) and clean else clean + disturbed
        return Samples(tuple(kept), half_width(kept), share)


def is_narrow(samples: Sequence[float], goal: Goal) -> bool:
    """Return whether the median of samples is known as well as a goal asks."""
    width = half_width(samples)
    if width == math.inf:
        return False
    return width <= goal.half_width or width * sorted(samples)[len(samples) // 2] <= goal.resolution_ns


def half_width(samples: Sequence[float]) -> float:
    """Return half of the 95 % confidence interval of a median, as a share of the median.

    The interval lies between two order statistics and assumes no distribution (binomial, normal
    approximation; Conover, Practical Nonparametric Statistics, 3.2). Infinite for fewer than 6 samples.
    """
    count = len(samples)
    rank = math.floor((count - _Z * math.sqrt(count)) / 2)  # samples below the interval
    if count < 6 or rank < 0:
        return math.inf
    ordered = sorted(samples)
    middle = ordered[count // 2]
    return (ordered[count - 1 - rank] - ordered[rank]) / 2 / max(middle, 1)


def involuntary_switches() -> int:
    """Return how often the operating system gave a core of this process to another one."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def stolen_share(before: Sequence[int], after: Sequence[int]) -> float:
    """Return the share of time that a hypervisor gave to others, of two `cpu_ticks`."""
    passed = sum(after) - sum(before)
    return (after[7] - before[7]) / passed if passed > 0 and len(after) > 7 else 0.0


def cpu_ticks() -> tuple[int, ...]:
    """Return the ticks of all cores by what they were spent on (proc(5)); empty where unknown."""
    try:
        with open("/proc/stat", encoding="ascii") as file:
            return ticks_in(file.readline())
    except OSError:
        return ()


class CpuTime(NamedTuple):
    """Seconds that passed, that some cores worked or a hypervisor took, and that this process worked."""

    passed_s: float
    worked_s: float
    own_s: float


def cpu_time(cores: Collection[int]) -> CpuTime:
    """Return the time up to now; what ``cores`` worked is 0 where proc(5) does not tell it."""
    own = os.times()
    try:
        text = Path("/proc/stat").read_text(encoding="ascii")
    except OSError:
        text = ""
    worked = worked_ticks(text, cores) / os.sysconf("SC_CLK_TCK")
    return CpuTime(time.monotonic(), worked, own.user + own.system)


def worked_ticks(text: str, cores: Collection[int]) -> int:
    """Return the ticks of some cores that were spent on anything, of the text of /proc/stat."""
    names = {f"cpu{core}" for core in cores}
    lines = (line.split() for line in text.splitlines())
    of_cores = (words for words in lines if words and words[0] in names)
    ticks = (tuple(map(int, words[1:9])) for words in of_cores)
    # The fourth and the fifth are idle, and idle while a disk is waited for.
    return sum(sum(each) - sum(each[3:5]) for each in ticks)


def cores_of_others(before: CpuTime, after: CpuTime) -> float:
    """Return how many cores other processes, and a hypervisor, took between two `cpu_time`."""
    passed, worked, own = (end - begin for begin, end in zip(before, after, strict=True))
    return max(0.0, worked - own) / passed if passed > 0.0 else 0.0


def ticks_in(text: str) -> tuple[int, ...]:
    """Return the `cpu_ticks` of the text of /proc/stat."""
    try:
        return tuple(int(word) for word in text.partition("\n")[0].split()[1:9])
    except ValueError:
        return ()


def load_in(text: str) -> float | None:
    """Return the `host_load` of the text of /proc/loadavg, None if it holds none."""
    try:
        return float(text.split()[0])
    except (IndexError, ValueError):
        return None


def host_load() -> float:
    """Return the load average of the last minute."""
    return os.getloadavg()[0]
