"""Tutorial 3: what recurs in a network, and what knowing it does to the search.

    python tutorials/03_patterns.py

Networks repeat themselves. This shows the patterns of BERT, how they shrink the space of placements,
and how search uses them without being bound by them. It needs no model file: the task graph of BERT is
stored with the tests. Of a model of your own, `tvm-sphinx explain model.onnx --patterns patterns.html`
prints the same tree and draws it.
"""

# %% The task graph: one task per fused kernel call, equal kernels under equal ids
import gzip
import json
from pathlib import Path

import numpy as np

from tvm_sphinx.patterns import (
    describe_patterns,
    find_patterns,
    operator_labels,
    prune_problem,
    report_pruning,
    search_with_pruning,
)
from tvm_sphinx.scheduling.graph import TaskGraph
from tvm_sphinx.scheduling.problem import SchedulingProblem
from tvm_sphinx.scheduling.schedule import validate
from tvm_sphinx.search import Stop, search_schedule, solve_series

GRAPHS = Path(__file__).resolve().parents[1] / "tests" / "data" / "graphs"


def load(name: str) -> TaskGraph:
    """Read a stored task graph."""
    return TaskGraph.from_json(json.loads(gzip.decompress((GRAPHS / f"{name}.json.gz").read_bytes())))


bert = load("bert_base")

# %% Its patterns, from the inside out: sum and norm twice per layer, and twelve layers in a row
patterns = find_patterns(bert)
print(describe_patterns(bert, patterns), end="\n\n")
layer = patterns.patterns[-1]
assert (layer.count, layer.num_tasks) == (12, 20)

# Shapes must be equal, so GoogLeNet hardly recurs; looking through shapes shows its nine blocks.
googlenet = load("googlenet")
print(describe_patterns(googlenet, find_patterns(googlenet, operator_labels(googlenet))), end="\n\n")

# %% A scheduling problem: three unlike devices, costs by a simple roofline
RATES = {"cpu": (60.0, 20.0, 1_000), "gpu": (150.0, 25.0, 12_000), "npu": (300.0, 15.0, 20_000)}
COPY_NS, COPY_RATE = 15_000, 8.0  # latency, and bytes per ns


def roofline_ns(flops: int, moved: int, device: str) -> int:
    """Return the time of a kernel: the longer of arithmetic (flop/ns) and traffic (byte/ns)."""
    rate, bandwidth, start_ns = RATES[device]
    return int(start_ns + max(flops / rate, moved / bandwidth))


exec_ns = [
    [roofline_ns(task.flops, sum(task.output_bytes) + task.weight_bytes, device) for device in RATES]
    for task in bert.tasks
]
copies = np.array([COPY_NS + edge.bytes / COPY_RATE for edge in bert.edges]).astype(np.int64)
problem = SchedulingProblem(
    name="bert on three devices",
    devices=tuple(RATES),
    device_cores=((0,), (1,), (2,)),
    exec_ns=np.array(exec_ns, dtype=np.int64),
    edges=np.array([(edge.src, edge.dst) for edge in bert.edges], dtype=np.int64),
    copy_class=np.arange(len(bert.edges)),
    copy_ns=copies[:, None, None] * (1 - np.eye(3, dtype=np.int64)),
)

# %% Pruning: layers share genes position by position (a gene is a set of tasks on one device) ...
pruning = prune_problem(problem, bert, patterns)
report = report_pruning(bert, patterns, pruning.space, problem)
print(f"genes: {report.genes_before} -> {report.genes_after} ({report.gene_ratio:.1f}x fewer)")
print(f"placements: 10^{report.log10_before:.0f} -> 10^{report.log10_after:.0f}")
assert report.gene_ratio >= 8

# %% ... and in a folded problem a few layers stand for all twelve: first, a tile of two, and last
folding = pruning.folding
assert folding is not None
tiling = folding.tilings[0]
print(f"folded: {problem.num_tasks} -> {folding.folded.num_tasks} tasks; layer -> what stands for it:")
print(" ".join(f"{index}->{tiling.stand_in(index)}" for index in range(layer.count)), end="\n\n")

# %% A network is also a series: between tasks that all others come before or after, segments are solved
# %% for each pair of devices of their ends, equal ones once
series = solve_series(problem)
assert series is not None
print(
    f"series: {series.num_segments} segments, {series.num_distinct} of them distinct, "
    f"of up to {series.largest} tasks",
    end="\n\n",
)

# %% A schedule of the folded problem, repeated, is valid for the whole and not far from the best
stop = Stop(max_evaluations=60_000)
short = search_schedule(folding.folded, seed=1, stop=Stop(max_evaluations=6_000))
repeated = folding.unfold(short.best)

# %% Beside it: the search of the whole space, and the pruned one, which joins the segments
whole = search_schedule(problem, seed=1, stop=stop, series=False)
pruned = search_with_pruning(problem, pruning, seed=1, stop=stop)
for name, best in (
    ("fastest single device", search_schedule(problem, algorithm="single").best),
    ("folded and repeated", repeated),
    ("whole space", whole.best),
    ("pruned", pruned.best),
):
    validate(problem, best)
    above = best.makespan_ns / pruned.best.lower_bound_ns - 1
    print(f"{name:>21}: {best.makespan_ns / 1e6:8.3f} ms, at most {above:.1%} above the optimum")
assert pruned.best.makespan_ns <= repeated.makespan_ns

# %% Nothing is tied in the end: count how many layers ended up placed alike
placements = {tuple(pruned.best.device[list(row)].tolist()) for row in layer.occurrences}
print(f"\n{layer.count} layers, {len(placements)} different placements")
