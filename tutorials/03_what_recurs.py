"""
What recurs, and what is proven
===============================

Networks repeat themselves. The search decides once for what recurs, and proves that nothing is
shorter.
"""

# %%
# A network of equal layers
# -------------------------
# Six layers of a transformer, written with TVM's ``relax.frontend.nn``. Of a model file,
# ``tvm-sphinx explain model.onnx --patterns patterns.html`` prints the same tree and draws it.
from pathlib import Path

import numpy as np
from tvm import relax
from tvm.relax.frontend import nn


class Layer(nn.Module):
    """One encoder layer, after Vaswani et al. 2017."""

    def __init__(self, width: int, heads: int) -> None:
        self.heads, self.depth = heads, width // heads
        self.query, self.key, self.value, self.mix = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: nn.Tensor) -> nn.Tensor:
        """Attention and a dense part, each added to what it reads."""
        batch, length, width = x.shape
        y = self.norm1(x)
        query, key, value = (
            nn.op.permute_dims(
                nn.op.reshape(layer(y), (batch, length, self.heads, self.depth)), [0, 2, 1, 3]
            )
            for layer in (self.query, self.key, self.value)
        )
        scores = nn.op.matmul(query, nn.op.permute_dims(key, [0, 1, 3, 2])) * (self.depth**-0.5)
        mixed = nn.op.permute_dims(nn.op.matmul(nn.op.softmax(scores, axis=-1), value), [0, 2, 1, 3])
        x = x + self.mix(nn.op.reshape(mixed, (batch, length, width)))
        return x + self.down(nn.op.gelu(self.up(self.norm2(x))))


class Encoder(nn.Module):
    """Layers in a row."""

    def __init__(self) -> None:
        self.layers = nn.ModuleList([Layer(64, 4) for _ in range(6)])

    def forward(self, x: nn.Tensor) -> nn.Tensor:
        """Run all layers."""
        return self.layers(x)


module, params = Encoder().export_tvm({"forward": {"x": nn.spec.Tensor((1, 32, 64), "float32")}})
rng = np.random.default_rng(0)
weights = {name: rng.normal(0, 0.2, list(map(int, one.shape))).astype("float32") for name, one in params}
module = relax.transform.BindParams("forward", weights)(module)

# %%
# Its task graph
# --------------
# One task per fused kernel call, equal kernels under equal ids; what contains what, and how often.
from tvm_sphinx.frontend.model_graph import extract_graph
from tvm_sphinx.patterns import describe_patterns, find_patterns, patterns_svg

graph = extract_graph(module, "unlike-cpus", function="forward")
patterns = find_patterns(graph)
print(graph)
print(describe_patterns(graph, patterns))

# %%
# A scheduling problem
# --------------------
# Three unlike devices, with costs by a simple roofline: the longer of arithmetic (flop/ns) and traffic
# (byte/ns), and what it takes to begin.
from tvm_sphinx import SchedulingProblem

RATES = {"cpu": (20.0, 10.0, 300), "gpu": (600.0, 100.0, 2_000), "npu": (90.0, 30.0, 900)}


def roofline_ns(flops: int, moved: int, device: str) -> int:
    """Return the time of a kernel."""
    rate, bandwidth, start_ns = RATES[device]
    return int(start_ns + max(flops / rate, moved / bandwidth))


exec_ns = np.array(
    [
        [roofline_ns(task.flops, sum(task.output_bytes) + task.weight_bytes, name) for name in RATES]
        for task in graph.tasks
    ]
)
copies = np.array([1_000 + edge.bytes // 16 for edge in graph.edges])
problem = SchedulingProblem(
    name="encoder on three devices",
    devices=tuple(RATES),
    device_cores=((0,), (1,), (2,)),
    exec_ns=exec_ns,
    edges=np.array([(edge.src, edge.dst) for edge in graph.edges]),
    copy_class=np.arange(len(graph.edges)),
    copy_ns=copies[:, None, None] * (1 - np.eye(3, dtype=np.int64)),
)

# %%
# Segments
# --------
# Between tasks that all others come before or after lie small segments; each is solved for the devices
# that it can begin from, equal ones once.
from tvm_sphinx import search_schedule
from tvm_sphinx.search import Stop, solve_series

series = solve_series(problem)
assert series is not None
print(f"{series.num_segments} segments, {len(series.distinct)} of them distinct")
assert len(series.distinct) < series.num_segments

# %%
# What that leaves of the space
# -----------------------------
# The schedule is optimal all the same: its lower bound is its makespan.
found = search_schedule(problem, seed=1)
assert found.pruning is not None
print(found.pruning.describe())
assert found.stop_reason == "optimal"
assert found.best.gap == 0
assert found.pruning.log10_after < found.pruning.log10_before

# %%
# Beside it: the search of the whole space, which knows nothing of what recurs.
whole = search_schedule(problem, seed=1, stop=Stop(max_evaluations=20_000), prune=False)
single = search_schedule(problem, algorithm="single")
for name, result in (("fastest single device", single), ("whole space", whole), ("segments", found)):
    print(f"{name:>21}: {result.best.makespan_ns / 1e3:8.1f} us, {result.evaluations} evaluations")
    assert result.best.makespan_ns >= found.best.makespan_ns

# %%
# What recurs, as a picture
# -------------------------
# A box round each occurrence; boxes of one colour are occurrences of one pattern.
Path("03_what_recurs.svg").write_text(patterns_svg(graph, patterns))
