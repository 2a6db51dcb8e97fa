"""What all tests share: those marked gpu run on the fake GPU, or on a card (tests/gpu/plugin.py).

Property tests never fail on a time, and draw the same examples every time. What is kept about this
machine lies in a folder of the tests' own.
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

if "TVM_SPHINX_HOME" not in os.environ:
    os.environ["TVM_SPHINX_HOME"] = tempfile.mkdtemp(prefix="tvm-sphinx-tests-")
    atexit.register(shutil.rmtree, os.environ["TVM_SPHINX_HOME"], ignore_errors=True)

settings.register_profile("house", deadline=None, derandomize=True)
settings.load_profile("house")
