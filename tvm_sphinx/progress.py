"""How a long stage tells its progress."""

from collections.abc import Callable

#: Called as ``progress(stage, done, total)`` whenever a step of a stage is done.
Progress = Callable[[str, int, int], None]
