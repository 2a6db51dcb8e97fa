"""
Inside the lanes: traces
========================

A lane is a thread on one core that walks a fixed list of tasks. A traced run says when each of them
ran, what it waited for, and how that compares with the prediction.
"""

# %%
# A program
# ---------
# Two branches of different length. ``with_reference=False`` leaves out the race against a single
# device, so that the schedule runs also where it is not worth it.
from pathlib import Path

import onnx.parser

import tvm_sphinx
from tvm_sphinx.cost.measure.kernels import MeasureConfig

model = onnx.parser.parse_model(
    '<ir_version: 8, opset_import: ["": 17]> net (float[128,256] x, float[256,256] v, float[256,256] w)'
    " => (float[128,256] y) { [one] a = MatMul(x, v) [two] b = MatMul(a, v) [other] c = MatMul(x, w) "
    "[sum] y = Add(b, c) }"
)
compiled = tvm_sphinx.compile(
    model,
    "unlike-cpus",
    pins=["other=baseline"],
    with_reference=False,
    records="records.jsonl",
    measure=MeasureConfig(sample_ms=0.5, under_load=False),
)
print(compiled.summary())

# %%
# A traced run
# ------------
# The first run touches code and memory for the first time; of five further ones the median is told.
inputs = compiled.random_inputs()
compiled.run(inputs)
traces = [compiled.run_traced(inputs)[1] for _ in range(5)]
trace = sorted(traces, key=lambda one: one.makespan_ns)[2]
predicted = trace.predicted_makespan_ns or 0
print(f"measured {trace.makespan_ns / 1e3:.1f} us, predicted {predicted / 1e3:.1f} us")

# %%
# Steps
# -----
for step in trace.steps:
    begin, end = step.predicted_ns or (0, 0)
    print(f"{trace.devices[step.device]:<9} {step.name:<6} at {step.begin_ns:>8} ns", end=", ")
    print(f"{step.duration_ns} ns, predicted {end - begin} ns")
    for producer in step.producers:
        assert trace.steps[producer].end_ns <= step.begin_ns  # never before what it reads

# %%
# The critical path
# -----------------
# The chain that the run hung on; what each of its links waited for, and the time between them.
from tvm_sphinx.report.timeline import timeline_svg, timeline_text, wait_reason

for link in trace.critical_path():
    print(f"{trace.steps[link.step].name}: waited for {wait_reason(trace, link)}, gap {link.gap_ns} ns")

# %%
# Utilisation, path and tasks in one text, as ``tvm-sphinx explain OUT --run`` prints them.
print(timeline_text(trace))

# %%
# For Perfetto
# ------------
# Open it at ui.perfetto.dev: measured above, predicted below. ``tvm-sphinx run OUT --trace
# trace.json`` writes it, too.
Path("trace.json").write_text(trace.to_chrome())

# %%
# The run, as a picture
# ---------------------
Path("09_inside_the_lanes.svg").write_text(timeline_svg(trace))
