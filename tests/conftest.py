"""What all tests share: those marked gpu run on the fake GPU, or on a card (tests/gpu/plugin.py).

Property tests never fail on a time, and draw the same examples every time. Code of kernels is shared by
the tests of a run, and by the processes that they start; nothing is left in the user's own folder.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

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

if (
    "TVM_SPHINX_CODE" not in os.environ
):  # set by the first process of a run, for the workers that it starts
    os.environ["TVM_SPHINX_CODE"] = tempfile.mkdtemp(prefix="tvm-sphinx-code-")
    atexit.register(shutil.rmtree, os.environ["TVM_SPHINX_CODE"], ignore_errors=True)
