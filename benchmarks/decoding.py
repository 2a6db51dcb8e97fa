"""Which share of the search's instructions values schedules, counted by callgrind."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tvm_sphinx.scheduling.problem import SchedulingProblem
from tvm_sphinx.scheduling.problem_file import write_problem


def decoding(problems: list[SchedulingProblem], _: argparse.Namespace) -> list[dict[str, Any]]:
    """Share of the search's instructions that value and apply changes, counted by callgrind."""
    rows: list[dict[str, Any]] = []
    for problem in problems:
        with tempfile.TemporaryDirectory() as folder:
            path, out = Path(folder, "problem.json"), Path(folder, "callgrind.out")
            write_problem(problem, path)
            code = (
                "import sys; from tvm_sphinx.scheduling.problem_file import read_problem; "
                "from tvm_sphinx.search import Stop, search_schedule; "
                "stop = Stop(max_evaluations=20_000); "
                "search_schedule(read_problem(sys.argv[1]), stop=stop, prune=False)"
            )
            tool = ["valgrind", "--tool=callgrind", "--toggle-collect=cpga_search_run"]
            tool += [f"--callgrind-out-file={out}", sys.executable, "-c", code, str(path)]
            try:
                subprocess.run(tool, check=True, capture_output=True, timeout=600)
            except (FileNotFoundError, subprocess.CalledProcessError) as error:
                print(f"  left out: {error}")
                return rows
            lines = ["callgrind_annotate", "--inclusive=yes", "--threshold=100", str(out)]
            listing = subprocess.run(lines, check=True, capture_output=True, text=True).stdout
        rows.append({"problem": problem.name, "decoding %": round(100 * decoding_share(listing), 1)})
    return rows


def decoding_share(listing: str) -> float:
    """Return what part of a search's instructions lies in `cpga_paths_*`, by callgrind's listing."""
    counts: dict[str, int] = {}
    for line in listing.splitlines():
        found = re.match(r"\s*([\d,]+) .*?:(cpga_\w+)", line)
        if found:
            counts.setdefault(found[2], int(found[1].replace(",", "")))
    parts = (
        "cpga_paths_try",
        "cpga_paths_apply",
        "cpga_paths_focus",
        "cpga_paths_load",
        "cpga_paths_sort",
    )
    return sum(counts.get(part, 0) for part in parts) / counts["cpga_search_run"]
