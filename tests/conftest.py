"""What all tests share: those marked gpu run on the fake GPU, or on a card (tests/gpu/plugin.py).

Property tests never fail on a time, and draw the same examples every time.
"""

from __future__ import annotations

from hypothesis import settings

from tests.gpu.plugin import (  # noqa: F401 - pytest finds hooks and fixtures here
    _no_report_of_the_fake,
    fake_gpu,
    pytest_addoption,
    pytest_collection_finish,
    pytest_configure,
    pytest_runtest_logfinish,
    pytest_runtest_logreport,
    pytest_runtest_makereport,
    pytest_runtest_protocol,
)

settings.register_profile("house", deadline=None, derandomize=True)
settings.load_profile("house")
