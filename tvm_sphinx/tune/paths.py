"""Where records are: measured times in ``records.jsonl``, what was tuned in ``tuning/`` beside it."""

from __future__ import annotations

from pathlib import Path


def tuning_root(records: Path) -> Path:
    """Return the folder of the tuning records that belong to a file of measured times."""
    return records.parent / "tuning"
