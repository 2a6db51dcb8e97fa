"""Start modules of the tests in processes of their own, which see the same package as the tests do."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
# The tests come last: what is installed is tested, not what lies beside them.
_CODE = """import runpy, sys
sys.path.append(sys.argv.pop(1))
runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)"""


def module_command(name: str, *arguments: object) -> list[str]:
    """Return a command that runs a module, as ``python -m NAME`` would in the root of this tree."""
    return [sys.executable, "-c", _CODE, str(ROOT), name, *map(str, arguments)]
