"""Put what was measured on a card into the package, for machines that lack it.

    python benchmarks/gpu/ship_records.py RECORDS.jsonl "NVIDIA H100 80GB HBM3" nvidia_h100

Takes what does not depend on the machine around the card: kernels alone and side by side, and hand-overs
between its streams, of the present method of timing. What is shipped already stays where
nothing newer is; crossings from and to a CPU are left out.
"""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

from tvm_sphinx.cost.records import cards
from tvm_sphinx.cost.records.store import METHOD, Record, RecordKey, keep_newest, read_records

# What kernels of a GPU are on record by.
_IN_MODEL = "-in-model"


def main(source: str, card: str, name: str) -> None:
    newest: dict[RecordKey, Record] = {}
    for record in (*cards.shipped_records(card), *read_records(Path(source))):
        is_of_kernel = record.kind in ("kernel", "load")
        is_timed_alike = record.method == METHOD and (not is_of_kernel or _IN_MODEL in record.kernel)
        if record.where.machine == card and is_timed_alike:
            keep_newest(newest, record)
    lines = "".join(record.to_line() for record in newest.values())
    target = Path(cards.__path__[0]) / f"{name}.jsonl.gz"
    target.write_bytes(gzip.compress(lines.encode(), mtime=0))
    print(f"{len(newest)} records of {card} in {target.name}, {target.stat().st_size} bytes")


if __name__ == "__main__":
    main(*sys.argv[1:])
