"""Where records are: measured times in ``records.jsonl``, what was tuned in ``tuning/`` beside it."""

from __future__ import annotations

from pathlib import Path

from ..cost.records import default_record_path


def record_path(records: str | Path | None) -> Path | None:
    """Return the file of measured times that an option ``--records`` means.

    ``"default"`` is `default_record_path`, None is none. A path that is a folder, or has no suffix and
    is no file, is the folder of ``records.jsonl``; any other is the file itself.
    """
    if records is None:
        return None
    if records == "default":
        return default_record_path()
    path = Path(records)
    is_folder = path.is_dir() or (not path.suffix and not path.exists())
    return path / "records.jsonl" if is_folder else path


def tuning_root(records: Path) -> Path:
    """Return the folder of the tuning records that belong to a file of measured times."""
    return records.parent / "tuning"
