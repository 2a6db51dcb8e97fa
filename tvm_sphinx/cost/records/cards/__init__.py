"""What was measured on cards that were seen, shipped with the package. Knows no TVM.

One file of records for each, gzipped: kernels, hand-overs between its streams, and what these lose
beside each other. None of them depends on the machine around a card.
"""

from __future__ import annotations

import functools
import gzip
from importlib.resources import files

from ..store import Record, parse_line


@functools.cache
def _all_shipped() -> tuple[Record, ...]:
    """Return the records of all files; a line of another version of their form is left out."""
    lines: list[str] = []
    for entry in files(__package__).iterdir():
        if entry.name.endswith(".jsonl.gz"):
            lines += gzip.decompress(entry.read_bytes()).decode().splitlines()
    parsed = map(parse_line, lines)
    return tuple(record for record in parsed if isinstance(record, Record))


def shipped_records(card: str) -> tuple[Record, ...]:
    """Return what is shipped of a card, by its name as the driver tells it."""
    return tuple(record for record in _all_shipped() if record.where.machine == card)
