"""Where records, kernels and models of costs are kept when no file is named."""

from __future__ import annotations

import os
from pathlib import Path

#: Environment variable of the folder.
HOME_VARIABLE = "TVM_SPHINX_HOME"


def data_home() -> Path:
    """Return ``$TVM_SPHINX_HOME``, else ``$XDG_CACHE_HOME/tvm-sphinx``, else ``~/.cache/tvm-sphinx``."""
    if home := os.environ.get(HOME_VARIABLE):
        return Path(home).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "tvm-sphinx"
