"""What holds for all tests: no property test fails on a time, and each draws the same examples every time."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("house", deadline=None, derandomize=True)
settings.load_profile("house")
