"""Print what became of public models as a table: `python -m benchmarks.public_table results.jsonl`."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.public_models import read_results

_STAGES = ("load", "lower", "build")
_HEAD = (
    "model",
    "from",
    "outcome",
    "largest difference",
    "tasks (kernels)",
    *(f"{s} s" for s in _STAGES),
)
# What needs no reason in each row.
_PLAIN = ("verified", "hangs on rounding")


def table(entries: Iterable[Mapping[str, Any]]) -> str:
    """Return a Markdown table, one row for each model that was tried, and what the outcomes add up to.

    Parameters
    ----------
    entries
        Of `benchmarks.public_models.run_model`; those of models that are absent are left out.
    """
    tried = [entry for entry in entries if entry["outcome"] != "absent"]
    rows = [_HEAD, ("---",) * len(_HEAD), *map(_row, tried)]
    counts = Counter(entry["outcome"] for entry in tried)
    total = ", ".join(f"{count} {outcome}" for outcome, count in counts.most_common())
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([*lines, "", f"{len(tried)} models: {total}."])


def _row(entry: Mapping[str, Any]) -> tuple[str, ...]:
    difference = entry.get("difference")
    stages = entry.get("stages_s", {})
    why = "" if entry["outcome"] in _PLAIN else f": {entry['why']}"
    return (
        entry["model"].split("/", 1)[1],
        entry.get("source") or entry["model"].split("/", 1)[0],
        entry["outcome"] + why.replace("|", "\\|"),
        "" if difference is None else f"{difference:.0e}",
        f"{entry['tasks']} ({entry['kernels']})" if entry.get("kernels") else entry.get("note", ""),
        *(f"{stages[stage]:.1f}" if stage in stages else "" for stage in _STAGES),
    )


if __name__ == "__main__":
    print(table(read_results(Path(sys.argv[1])).values()))
