"""What all tests share: those marked gpu run on the fake GPU, or on a card (tests/gpu/plugin.py).

Property tests never fail on a time, and draw the same examples every time. Code of kernels is shared by
the tests of a run, and by the processes that they start; so is what is kept about this machine. Nothing
is left in the user's own folder.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
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

# Tests press Ctrl-C, which what is started in the background of a shell ignores.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("house", deadline=None, derandomize=True)
settings.load_profile("house")

# Set by the first process of a run, for the workers that it starts.
for name in ("TVM_SPHINX_CODE", "TVM_SPHINX_HOME"):
    if name not in os.environ:
        os.environ[name] = tempfile.mkdtemp(prefix=f"{name.lower().replace('_', '-')}-")
        atexit.register(shutil.rmtree, os.environ[name], ignore_errors=True)
