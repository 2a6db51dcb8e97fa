"""
Your own platform
=================

Devices are what you say they are: any targets, any cores, also cores that several devices share.
"""

# %%
# A platform file
# ---------------
# Three devices. ``both`` has the cores of the two others: while it runs a kernel they wait, and the
# search decides for each task which of the two is better, one kernel per core or both cores on one
# kernel. Links that are not given are measured; so are all kernels.
from pathlib import Path

from tvm_sphinx.platform.machine import usable_cores

cores = usable_cores()
first, last = cores[0], cores[-1]
Path("platform.toml").write_text(
    f"""
host = "big"                   # holds the model's inputs and outputs

[[device]]
name = "big"
target = "host"                # the processor at hand, with all its instruction sets
cores = [{first}]
memory_bytes = 2_000_000_000   # a limit that every schedule keeps

[[device]]
name = "little"
target = "baseline"            # or "llvm -mcpu=cortex-a55", {{ kind = "llvm", mcpu = "znver4" }}, ...
cores = [{last}]

[[device]]
name = "both"
target = "host"
cores = {sorted({first, last})}
"""
)

from tvm_sphinx.platform import load_platform

platform = load_platform("platform.toml")
for device in platform.devices:
    print(device)

# %%
# A model
# -------
# Two branches of matrix products.
import onnx.parser

import tvm_sphinx
from tvm_sphinx.cost.measure.kernels import MeasureConfig

model = onnx.parser.parse_model(
    '<ir_version: 8, opset_import: ["": 17]> net (float[128,256] x, float[256,256] v, float[256,256] w)'
    " => (float[128,256] y) { [left] a = MatMul(x, v) [tanh_left] b = Tanh(a) "
    "[right] c = MatMul(x, w) [relu_right] d = Relu(c) [sum] y = Add(b, d) }"
)
options = {"records": "records.jsonl", "measure": MeasureConfig(sample_ms=0.5, under_load=False)}
compiled = tvm_sphinx.compile(model, platform, **options)
print(compiled.summary())

# %%
# Why a task lies where it lies
# -----------------------------
# What it waits for, what it would cost elsewhere, what binds it. On the command line:
# ``tvm-sphinx explain OUT --why left``.
from tvm_sphinx.report.why import explain_tasks, format_reasons

assert compiled.decision is not None
assert compiled.graph is not None
for reasons in explain_tasks(compiled.decision, compiled.graph, "left"):
    print(format_reasons(reasons, compiled.decision))

# %%
# Pin it elsewhere, and see the price
# -----------------------------------
# ``--pin 'left=little'`` of the command. Every time is on record: nothing is measured again.
pinned = tvm_sphinx.compile(model, platform, pins=["left=little"], with_reference=False, **options)
print(pinned.note)
assert pinned.decision is not None
free_ns = pinned.decision.free_ns
assert free_ns is not None
print(f"free {free_ns / 1e3:.1f} us, pinned {pinned.decision.schedule.makespan_ns / 1e3:.1f} us")
assert pinned.decision.schedule.makespan_ns >= free_ns

# %%
# Leave a device out
# ------------------
# ``--exclude-device both`` of the command.
without = tvm_sphinx.compile(model, platform, exclude_devices=["both"], **options)
print(without.summary())
assert [device.name for device in without.platform.devices] == ["big", "little"]

# %%
# The pinned schedule, as a picture
# ---------------------------------
from tvm_sphinx.report.timeline import schedule_svg

Path("04_own_platform.svg").write_text(schedule_svg(pinned.decision.problem, pinned.decision.schedule))
