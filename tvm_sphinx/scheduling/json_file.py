"""Read a JSON file; whatever is wrong with it is one line that names it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import SphinxError


def read_json(path: str | Path, kind: str, error: type[SphinxError]) -> Any:
    """Return what a JSON file holds; ``kind`` is what a message calls it, such as "problem file".

    Raises
    ------
    SphinxError
        As the given class of it: if the file cannot be read or is not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as failure:
        raise error(f"Cannot read {kind} {str(path)!r}: {failure.strerror}.") from failure
    # A ValueError is text that is not UTF-8 or not JSON, or a number of more digits than Python takes.
    except (ValueError, RecursionError) as failure:
        raise error(f"{kind.capitalize()} {str(path)!r} is not JSON: {failure}.") from failure
