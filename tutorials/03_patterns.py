"""Tutorial 3: what recurs in a network, and what knowing it does to the search.

    python tutorials/03_patterns.py

Networks repeat themselves. This shows the patterns of BERT, and how the search decides once for what
recurs. It needs no model file: the task graph of BERT is
stored with the tests. Of a model of your own, `tvm-sphinx explain model.onnx --patterns patterns.html`
prints the same tree and draws it.
"""

# %% The task graph: one task per fused kernel call, equal kernels under equal ids
import gzip
import json
from pathlib import Path

import numpy as np

from tvm_sphinx.patterns import describe_patterns, find_patterns, operator_labels
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

# %% Pruning: BERT is a series. Between tasks that all others come before or after lie small segments,
# %% each solved for the devices that it can begin from, equal ones once
series = solve_series(problem)
assert series is not None
largest = max(segment.end - segment.begin for segment in series.distinct)
print(
    f"series: {series.num_segments} segments of up to {largest} tasks, {len(series.distinct)} distinct",
    end="\n\n",
)
assert len(series.distinct) * 8 <= series.num_segments

# %% What that leaves of the space; the schedule is optimal all the same
pruned = search_schedule(problem, seed=1)
assert pruned.pruning is not None
print(pruned.pruning.describe(), end="\n\n")
assert pruned.stop_reason == "optimal"
assert pruned.pruning.log10_after < 12 < 100 < pruned.pruning.log10_before

# %% Beside it: the search of the whole space, which knows nothing of what recurs
whole = search_schedule(problem, seed=1, stop=Stop(max_evaluations=60_000), prune=False)
for name, found in (
    ("fastest single device", search_schedule(problem, algorithm="single")),
    ("whole space", whole),
    ("segments", pruned),
):
    validate(problem, found.best)
    above = found.best.makespan_ns / pruned.best.lower_bound_ns - 1
    print(
        f"{name:>21}: {found.best.makespan_ns / 1e6:8.3f} ms, at most {above:.1%} above the optimum, "
        f"{found.evaluations} evaluations"
    )

# %% Segments know nothing of each other but their ends: count how many layers are placed alike
placements = {tuple(pruned.best.device[list(row)].tolist()) for row in layer.occurrences}
print(f"\n{layer.count} layers, {len(placements)} different placements")
