"""Draw ONNX graphs, or torch programs, compile each, and compare with ONNX Runtime, or with torch.

    python -m tests.fuzz.run --count 5000 --jobs 2 --results onnx.jsonl
    python -m tests.fuzz.run --torch --count 2000 --jobs 2 --results torch.jsonl

They are compiled in a process that may die. It prints one JSON line for each that is neither equal nor
refused in one line, and how many had which outcome. ``--results`` keeps a line for each: a run that was
ended goes on where it was, and the figures are those of the whole file.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import subprocess
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.processes import module_command

from .graph import Graph, RejectedError
from .operators import DRAWS, KEEP_SPECIAL

# What a float may differ by, as a share of the output's largest value.
TOLERANCES = {"float64": 1e-4, "float32": 1e-3, "float16": 1e-2}
# Seconds that one graph may take; what takes more ends as "died".
_TIME_LIMIT_S = 60
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


def draw_torch(seed: int, only: str | None = None) -> Any:
    """Return the torch program of a seed: of one function, or of up to five."""
    from .torch_functions import DRAWS as FUNCTIONS
    from .torch_program import Program

    rng = np.random.default_rng(seed)
    names = list(FUNCTIONS) if only is None else [only]
    first = names[seed % len(names)]
    for _ in range(_MOST_DRAWS):
        program = Program(rng)
        wanted = [first] + [program.pick(list(FUNCTIONS)) for _ in range(program.pick([0, 1, 2, 4]))]
        for name in wanted:
            try:
                FUNCTIONS[name](program)
            except RejectedError:
                continue
        if program.steps and program.outputs():
            return program
    raise RejectedError(f"seed {seed}: nothing that torch takes")


def _onnx_case(seed: int, only: str | None) -> tuple[dict[str, Any], Callable[[], str]]:
    """Return what was drawn, and a function that compiles it and says what is wrong."""
    from tests.frontend.evaluate import evaluate

    graph = draw_graph(seed, only)
    told = {"ops": [node.op_type for node in graph.nodes], "opset": graph.opset}
    return told, lambda: difference(
        evaluate(graph.model(), graph.feeds(), falls_back=True), graph.expected()
    )


def _torch_case(seed: int, only: str | None) -> tuple[dict[str, Any], Callable[[], str]]:
    from tests.frontend.evaluate import evaluate
    from tvm_sphinx.frontend.load import entry_function, load_model

    program = draw_torch(seed, only)
    exported = program.export()
    feeds = [tensor.numpy() for tensor in program.feeds()]
    told = {"ops": [name for name, *_ in program.steps]}

    def compare() -> str:
        module = load_model(exported)
        names = [str(param.name) for param in module[entry_function(module)].params]
        found = evaluate(module, dict(zip(names, feeds, strict=True)), falls_back=True)
        return difference(found, program.expected())

    return told, compare


def run_case(seed: int, only: str | None = None, *, of_torch: bool = False) -> dict[str, Any]:
    """Return what became of a seed: its outcome and operators, and what was said."""
    from tvm_sphinx.errors import SphinxError

    try:
        told, compare = (_torch_case if of_torch else _onnx_case)(seed, only)
    except RejectedError as error:
        return {"seed": seed, "outcome": "not drawn", "ops": [], "said": str(error)}
    case = {"seed": seed, **told}
    try:
        said = compare()
        outcome = "wrong" if said else "equal"
    except SphinxError as error:
        said = str(error)[:500]
        outcome = "refused" if len(str(error).splitlines()) == 1 else "traceback"
    except Exception as error:  # what the fuzzer is for
        said = f"{type(error).__name__}: {' '.join(str(error).split())[-400:]}"
        outcome = "traceback"
    return {**case, "outcome": outcome, "said": said}


def _work(seeds: Sequence[int], only: str | None, of_torch: bool) -> None:
    warnings.simplefilter("ignore")
    if of_torch:
        from .torch_speed import keep_tables

        keep_tables()
    for seed in seeds:
        print(json.dumps({"begun": seed}), flush=True)
        begin = time.monotonic()
        entry = run_case(seed, only, of_torch=of_torch)
        print(json.dumps({**entry, "seconds": round(time.monotonic() - begin, 3)}), flush=True)


def run_in_child(
    seeds: Sequence[int],
    only: str | None,
    report: Any,
    *,
    of_torch: bool = False,
    until_s: float = math.inf,
) -> None:
    """Run seeds in a process, and the rest in another one whenever that dies or hangs."""
    left = list(seeds)
    while left and time.monotonic() < until_s:
        command = module_command("tests.fuzz.run", "--work", ",".join(map(str, left)))
        command += [*(["--only", only] if only else []), *(["--torch"] if of_torch else [])]
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
                if time.monotonic() >= until_s:
                    timer.cancel()
                    child.kill()
                    child.communicate()
                    return
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
    parser.add_argument("--torch", action="store_true", help="torch programs in place of ONNX graphs")
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin none later")
    parser.add_argument("--only", help="those that begin with one operator")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--results", type=Path, help="a file to append to, and to go on from")
    parser.add_argument("--verbose", action="store_true", help="print what was refused, too")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.work is not None:
        _work([int(seed) for seed in args.work.split(",")], args.only, args.torch)
        return 0
    found = read_results(args.results)
    known = {entry["seed"] for entry in found}
    lock = threading.Lock()

    def report(entry: dict[str, Any]) -> None:
        with lock:
            found.append(entry)
            if args.results is not None:
                with open(args.results, "a", encoding="utf-8") as file:
                    file.write(json.dumps(entry) + "\n")
            if (args.verbose and entry["outcome"] == "refused") or entry["outcome"] in BAD:
                print(json.dumps(entry), flush=True)

    seeds = [seed for seed in range(args.seed, args.seed + args.count) if seed not in known]
    options = {"of_torch": args.torch, "until_s": time.monotonic() + 60 * args.minutes}
    workers = [
        threading.Thread(
            target=run_in_child, args=(seeds[number :: args.jobs], args.only, report), kwargs=options
        )
        for number in range(args.jobs)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    print(json.dumps(figures(found), indent=2))
    return 1 if any(entry["outcome"] in BAD for entry in found) else 0


def read_results(path: Path | None) -> list[dict[str, Any]]:
    """Return the entries of a file of results; a last line that was cut off is removed from it."""
    if path is None or not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        path.write_text(whole, encoding="utf-8")
    return [json.loads(line) for line in whole.splitlines()]


def figures(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return how many had which outcome, why some were refused, and what they took."""
    reasons = Counter(_reason(entry["said"]) for entry in entries if entry["outcome"] == "refused")
    seconds = [entry["seconds"] for entry in entries if "seconds" in entry]
    return {
        **Counter(entry["outcome"] for entry in entries),
        "refused for": dict(reasons.most_common()),
        "operators": len({op for entry in entries for op in entry["ops"]}),
        "median seconds": round(float(np.median(seconds)), 3) if seconds else 0,
        "mean seconds": round(float(np.mean(seconds)), 3) if seconds else 0,
    }


def _reason(said: str) -> str:
    """Return a refusal without what is of one case alone: names of nodes and values, and numbers."""
    bare = re.sub(r"\{.*?\}", "_", said.removeprefix("Cannot import the given "))
    bare = re.sub(r"(\w+) '[^']*'", r"\1 _", bare)
    return re.sub(r"(?<![a-z.])-?\d+", "_", bare)[:120]


BAD = ("wrong", "traceback", "died")

if __name__ == "__main__":
    sys.exit(main())
