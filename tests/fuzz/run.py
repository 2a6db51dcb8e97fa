"""Draw ONNX graphs, compile each, and compare with ONNX Runtime, in processes of their own.

    python -m tests.fuzz.run --count 5000

prints one JSON line for each graph that is neither equal nor refused in one line, and how many had which
outcome.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .graph import Graph, RejectedError
from .operators import DRAWS, KEEP_SPECIAL

# What a float may differ by, as a share of the output's largest value.
TOLERANCES = {"float64": 1e-4, "float32": 1e-3, "float16": 1e-2}
# Seconds that one graph may take.
_TIME_LIMIT_S = 180
_MOST_DRAWS = 12


def draw_graph(seed: int, only: str | None = None) -> Graph:
    """Return the graph of a seed: of one operator, or of up to four."""
    rng = np.random.default_rng(seed)
    names = list(DRAWS) if only is None else [only]
    first = names[seed % len(names)]
    for _ in range(_MOST_DRAWS):
        graph = Graph(rng)
        if first not in KEEP_SPECIAL:
            graph.has_special = False
        wanted = [first] + [graph.pick(list(DRAWS)) for _ in range(graph.pick([0, 0, 1, 2, 3]))]
        with np.errstate(all="ignore"):
            for name in wanted:
                if graph.has_special and name not in KEEP_SPECIAL:
                    continue
                try:
                    DRAWS[name](graph)
                except RejectedError:
                    continue
        if any(node.op_type for node in graph.nodes) and graph.outputs():
            return graph
    raise RejectedError(f"seed {seed}: nothing that ONNX Runtime takes")


def difference(got: Sequence[Any], want: Sequence[Any]) -> str:
    """Return what is wrong with some outputs; empty where nothing is."""
    if len(got) != len(want):
        return f"{len(got)} outputs, expected {len(want)}"
    for number, (ours, theirs) in enumerate(zip(got, want, strict=True)):
        if ours.dtype != theirs.dtype or ours.shape != theirs.shape:
            return f"output {number}: {ours.dtype}{ours.shape}, expected {theirs.dtype}{theirs.shape}"
        if theirs.dtype.kind != "f":
            equal = ours == theirs
        else:
            finite = np.abs(theirs[np.isfinite(theirs)].astype(np.float64))
            most = TOLERANCES[str(theirs.dtype)] * max(1e-3, float(finite.max(initial=0.0)))
            with np.errstate(all="ignore"):
                near = np.abs(ours.astype(np.float64) - theirs.astype(np.float64)) <= most
            equal = (ours == theirs) | near | (np.isnan(ours) & np.isnan(theirs))
        if not equal.all():
            at = tuple(int(i) for i in np.argwhere(~equal)[0])
            count = int((~equal).sum())
            return f"output {number} at {at}: {ours[at]}, expected {theirs[at]}; {count} differ"
    return ""


def run_case(seed: int, only: str | None = None) -> dict[str, Any]:
    """Return what became of a seed: its outcome and operators, and what was said."""
    from tests.frontend.evaluate import evaluate
    from tvm_sphinx.errors import SphinxError

    try:
        graph = draw_graph(seed, only)
    except RejectedError as error:
        return {"seed": seed, "outcome": "not drawn", "ops": [], "said": str(error)}
    case = {"seed": seed, "ops": [node.op_type for node in graph.nodes], "opset": graph.opset}
    try:
        wrong = difference(evaluate(graph.model(), graph.feeds()), graph.expected())
    except SphinxError as error:
        outcome = "refused" if len(str(error).splitlines()) == 1 else "traceback"
        return {**case, "outcome": outcome, "said": str(error)[:500]}
    except Exception as error:  # what the fuzzer is for
        text = " ".join(str(error).split())
        return {**case, "outcome": "traceback", "said": f"{type(error).__name__}: {text[-400:]}"}
    return {**case, "outcome": "wrong" if wrong else "equal", "said": wrong}


def _work(seeds: Sequence[int], only: str | None) -> None:
    warnings.simplefilter("ignore")
    for seed in seeds:
        print(json.dumps({"begun": seed}), flush=True)
        print(json.dumps(run_case(seed, only)), flush=True)


def run_in_child(seeds: Sequence[int], only: str | None, report: Any) -> None:
    """Run seeds in a process, and the rest in another one whenever that dies or hangs."""
    left = list(seeds)
    while left:
        command = [sys.executable, "-m", "tests.fuzz.run", "--work", ",".join(map(str, left))]
        command += ["--only", only] if only else []
        child = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        begun = None
        timer = threading.Timer(_TIME_LIMIT_S, child.kill)
        timer.start()
        assert child.stdout is not None
        for line in child.stdout:
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                continue
            timer.cancel()
            timer = threading.Timer(_TIME_LIMIT_S, child.kill)
            timer.start()
            if "begun" in entry:
                begun = entry["begun"]
            else:
                left.remove(entry["seed"])
                begun = None
                report(entry)
        timer.cancel()
        _, noise = child.communicate()
        if left and begun is None:
            raise RuntimeError(f"the worker ended with {child.returncode}: {noise[-2000:]}")
        if begun is not None:
            left.remove(begun)
            report(
                {"seed": begun, "ops": [], "outcome": "died", "said": f"exit code {child.returncode}"}
            )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code is 1 where a graph is wrong, has a traceback or kills a process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0, help="the first of them")
    parser.add_argument("--only", choices=sorted(DRAWS), help="graphs that begin with one operator")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--verbose", action="store_true", help="print what was refused, too")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.work is not None:
        _work([int(seed) for seed in args.work.split(",")], args.only)
        return 0
    outcomes: Counter[str] = Counter()
    lock = threading.Lock()

    def report(entry: dict[str, Any]) -> None:
        with lock:
            outcomes[entry["outcome"]] += 1
            if (args.verbose and entry["outcome"] == "refused") or entry["outcome"] in BAD:
                print(json.dumps(entry), flush=True)

    seeds = range(args.seed, args.seed + args.count)
    workers = [
        threading.Thread(target=run_in_child, args=(seeds[number :: args.jobs], args.only, report))
        for number in range(args.jobs)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    print(json.dumps(dict(outcomes)))
    return 1 if any(outcomes[bad] for bad in BAD) else 0


BAD = ("wrong", "traceback", "died")

if __name__ == "__main__":
    sys.exit(main())
