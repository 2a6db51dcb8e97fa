"""
One model
=========

From a model file to a program that runs it on every device at once.
"""

# %%
# A model
# -------
# Any ONNX file will do. This one is written here, so that the tutorial needs none: three blocks of two
# branches each, as in Inception.
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
from onnx import numpy_helper

lines, state = [], "x"
rng = np.random.default_rng(0)
weights = {}
for block in range(3):
    for branch, size in (("a", 3), ("b", 5)):
        name = f"{branch}{block}"
        weights[f"w{name}"] = rng.standard_normal((16, 32, size, size)).astype("float32") / 30
        pad = size // 2
        lines.append(f"c{name} = Conv <pads = [{pad},{pad},{pad},{pad}]> ({state}, w{name})")
        lines.append(f"r{name} = Relu (c{name})")
    lines.append(f"s{block} = Concat <axis = 1> (ra{block}, rb{block})")
    state = f"s{block}"
model = onnx.parser.parse_model(
    '<ir_version: 8, opset_import: ["": 17]> branches (float[1,32,28,28] x) => (float[1,32,1,1] y) {'
    + "\n".join(lines)
    + f" y = GlobalAveragePool ({state}) }}"
)
model.graph.initializer.extend(numpy_helper.from_array(w, name) for name, w in weights.items())
onnx.save(model, "branches.onnx")

# %%
# A platform
# ----------
# The devices that a kernel can run on. ``detect_platform()`` offers each core of this machine and all
# of them together. Here we take two unlike ones, so that a task's place matters: a core with all its
# instruction sets, and a core that is held to the baseline of its architecture.
import tvm_sphinx
from tvm_sphinx.cost.measure.kernels import MeasureConfig
from tvm_sphinx.platform import unlike_cpus

platform = unlike_cpus()
for device in platform.devices:
    print(f"{device.name}: cores {device.cores}, target {device.target}")

# %%
# Compile
# -------
# The model is lowered with TVM's passes to one call per fused kernel; each distinct one is measured
# once per device, and kept on record, so that the next compilation measures nothing. The search finds
# a schedule; it is checked, written into the module as virtual devices, built, verified against ONNX
# Runtime, and raced against the best single device. A short sample is enough for a tutorial: leave
# ``measure`` out for costs to rely on.
compiled = tvm_sphinx.compile(
    "branches.onnx",
    platform,
    records="records.jsonl",
    measure=MeasureConfig(sample_ms=0.5, under_load=False),
)
print(compiled.summary())

# %%
# What runs where
# ---------------
# The certified gap says how far the schedule can be from the best possible one.
print(compiled.describe(verbose=True))
report = compiled.report
assert report is not None
assert report.lower_bound_ns <= report.makespan_ns

# %%
# Run it
# ------
inputs = compiled.random_inputs(seed=1)
(outputs,) = compiled.run(inputs)
(alone,) = compiled.run_reference(inputs)
difference = float(np.abs(outputs - alone).max())
print(f"output {outputs.shape}, largest difference from one device {difference:.2g}")
assert difference < 1e-4

# %%
# Save it
# -------
# To one file; another process needs this package, and neither the model nor ONNX, to run it.
compiled.save("branches.sphinx")
loaded = tvm_sphinx.load("branches.sphinx")
np.testing.assert_array_equal(loaded.run(inputs)[0], outputs)
print(f"{Path('branches.sphinx').stat().st_size / 2**10:.0f} KiB")

# %%
# When it ran
# -----------
# Measured above, predicted below, the critical path with red edges. On the command line:
# ``tvm-sphinx explain branches.sphinx --timeline timeline.svg``.
from tvm_sphinx.report.timeline import timeline_svg

traces = [compiled.run_traced(inputs)[1] for _ in range(5)]
trace = sorted(traces, key=lambda one: one.makespan_ns)[2]
Path("01_one_model.svg").write_text(timeline_svg(trace))
