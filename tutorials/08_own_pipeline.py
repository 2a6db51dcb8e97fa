"""
Your own pass pipeline
======================

Placement is a pass like others of TVM: it stands in a ``Sequential`` beside your passes, takes any
scheduler, and there is a whole pipeline by name.
"""

# %%
# A module of your own
# --------------------
# From ``relax.frontend.nn``, any importer, or your own passes.
from pathlib import Path

import numpy as np
import tvm
from tvm import relax
from tvm.relax.frontend import nn


class Net(nn.Module):
    """Two dense layers, the second of which reads the tanh of the first."""

    def __init__(self) -> None:
        self.first = nn.Linear(64, 32, bias=False)
        self.second = nn.Linear(32, 32, bias=False)

    def forward(self, x: nn.Tensor) -> nn.Tensor:
        """Return (8, 32) of (8, 64)."""
        y = nn.op.tanh(self.first(x))
        return y + nn.op.relu(self.second(y))


module, params = Net().export_tvm({"forward": {"x": nn.spec.Tensor((8, 64), "float32")}})
rng = np.random.default_rng(0)
weights = {name: rng.normal(0, 0.1, list(map(int, one.shape))).astype("float32") for name, one in params}
module = relax.transform.BindParams("forward", weights)(module)
given = rng.standard_normal((8, 64)).astype("float32")

# %%
# A scheduler of your own
# -----------------------
# A function from a task graph to a schedule; the search is one of them. This one places tasks on the
# two devices in turn, one after the other.
from tvm_sphinx import Schedule, TaskGraph
from tvm_sphinx.platform import unlike_cpus
from tvm_sphinx.relax_pass import HeterogeneousSchedule

platform = unlike_cpus()
graphs: list[TaskGraph] = []


def in_turn(graph: TaskGraph) -> Schedule:
    """Place tasks on the devices in turn."""
    graphs.append(graph)
    count = np.arange(graph.num_tasks)
    return Schedule(count % 2, count, count + 1, graph.num_tasks, 0, graph.fingerprint)


# %%
# The pass in a Sequential
# ------------------------
# It lowers by itself what is not lowered yet. Instruments of TVM see it and all passes inside.
@tvm.instrument.pass_instrument
class Names:
    """Notes the names of all passes."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def run_before_pass(self, _module: tvm.IRModule, info: tvm.transform.PassInfo) -> None:
        """Note one."""
        self.seen.append(str(info.name))


names = Names()
with tvm.transform.PassContext(instruments=[names]):
    placed = tvm.transform.Sequential(
        [relax.transform.CanonicalizeBindings(), HeterogeneousSchedule(in_turn, platform)]
    )(module)
print(f"{len(names.seen)} passes, among them {[n for n in names.seen if 'Schedule' in n]}")
assert "HeterogeneousSchedule" in names.seen

# %%
# Every tensor has a virtual device now, and copies stand where it changes.
print("\n".join(line for line in placed["forward"].script().splitlines() if "vdevice" in line)[:1500])
assert "to_vdevice" in placed["forward"].script()

# %%
# The pipeline by name
# --------------------
# With the package installed, TVM knows it without an import. It takes every option of
# ``tvm_sphinx.compile`` that is not of programs; the result is an executable of TVM's virtual
# machine.
from tvm_sphinx.cost.measure.kernels import MeasureConfig
from tvm_sphinx.plugin import register

register()  # of use only where TVM was imported with its entry points turned off
pipeline = relax.get_pipeline(
    "sphinx",
    platform=platform,
    records="records.jsonl",
    measure=MeasureConfig(sample_ms=0.2, under_load=False),
    pins=["*matmul*=native"],
)
target = tvm.target.Target(platform.devices[0].target_config)
executable = tvm.compile(module, target, relax_pipeline=pipeline)
machine = relax.VirtualMachine(executable, tvm.cpu())
result = machine["forward"](tvm.runtime.tensor(given)).numpy()
hidden = np.tanh(given @ weights["first.weight"].T)
expected = hidden + np.maximum(hidden @ weights["second.weight"].T, 0)
np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)

# %%
# What the scheduler of our own did, as a picture
# -----------------------------------------------
from tvm_sphinx.patterns import find_patterns, patterns_svg
from tvm_sphinx.patterns.dot import pattern_fill

graph = graphs[0]
fills = [pattern_fill(device) for device in in_turn(graph).device.tolist()]
Path("08_own_pipeline.svg").write_text(patterns_svg(graph, find_patterns(graph), fills))
