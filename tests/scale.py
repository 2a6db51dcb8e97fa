"""How much is drawn: a sample of what the long tests can do, or the whole of it.

``TVM_SPHINX_TEST_SCALE=10 bash scripts/test.sh`` draws ten times as much as a run of the gate does.
"""

from __future__ import annotations

import os

#: How many times as much as by default is to be drawn, a whole number of at least 1.
SCALE = int(os.environ.get("TVM_SPHINX_TEST_SCALE", "1"))
