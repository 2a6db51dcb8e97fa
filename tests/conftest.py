"""What holds for all tests: property tests never fail on a time, and draw the same examples every time."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("house", deadline=None, derandomize=True)
settings.load_profile("house")
