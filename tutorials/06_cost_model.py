"""
Train and use the cost model within a budget
============================================

Measuring every kernel takes time. A model that was trained on kernels of this machine predicts what
a budget leaves out, and what matters most is measured first.
"""

# %%
# Train
# -----
# ``tvm-sphinx train --budget 20m`` draws 900 kernels, measures them, and learns from these and all
# that is on record. Here a few must do, for one kind of device: expect little of their predictions.
from pathlib import Path

import tvm_sphinx
from tvm_sphinx.cost.measure.kernels import MeasureConfig
from tvm_sphinx.cost.model.model_file import save_cost_model
from tvm_sphinx.cost.model.training import train_model
from tvm_sphinx.cost.records.store import RecordStore
from tvm_sphinx.platform import Platform, unlike_cpus

quick = MeasureConfig(sample_ms=0.1, under_load=False)
device = unlike_cpus().devices[0]
cost_model = train_model([device], RecordStore("records.jsonl"), samples=16, config=quick)
save_cost_model(cost_model, "cost-model.json")
print(f"learned from {cost_model.num_rows} kernels")
print(f"median error on kernels held out: {cost_model.heldout.median_error:.0%}")

# %%
# Compile within a budget
# -----------------------
# ``tvm-sphinx compile model.onnx --measure-budget 30s``. With a budget of nothing, all times are
# predicted.
import onnx.parser

model = onnx.parser.parse_model(
    '<ir_version: 8, opset_import: ["": 17]> net (float[64,128] x, float[128,96] v, float[128,96] w)'
    " => (float[64,96] y) { a = MatMul(x, v) b = Sigmoid(a) c = MatMul(x, w) d = Tanh(c) e = Mul(b, d) "
    "y = Softmax(e) }"
)
platform = Platform((device,))
options = {"records": "records.jsonl", "cost_model": "cost-model.json", "measure": quick}
predicted = tvm_sphinx.compile(model, platform, measure_budget_s=0.0, **options)
assert predicted.decision is not None
assert not predicted.decision.measured.any()
print(predicted.describe())

# %%
# Compile by measurements
# -----------------------
# No budget: all is measured, and is training data for the next ``train``.
measured = tvm_sphinx.compile(model, platform, **options)
assert measured.decision is not None
assert measured.decision.measured.all()

# %%
# Predicted beside measured
# -------------------------
# The nearer to the line, the better. What a full training reaches is in :doc:`../measured`.
import math

assert predicted.graph is not None
points = [
    (int(guess), int(truth), task.name)
    for guess, truth, task in zip(
        predicted.decision.exec_ns[:, 0],
        measured.decision.exec_ns[:, 0],
        predicted.graph.tasks,
        strict=True,
    )
]
low = math.log10(min(min(a, b) for a, b, _ in points)) - 0.2
high = math.log10(max(max(a, b) for a, b, _ in points)) + 0.2


def place(time_ns: int) -> float:
    """Return where a time lies on an axis of 400 pixels."""
    return (math.log10(time_ns) - low) / (high - low) * 400


dots = "".join(
    f'<circle cx="{place(truth):.1f}" cy="{400 - place(guess):.1f}" r="4" fill="#0072b2">'
    f"<title>{name}: measured {truth} ns, predicted {guess} ns</title></circle>"
    for guess, truth, name in points
)
Path("06_cost_model.svg").write_text(
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="-40 -10 450 450" width="450" '
    'font-family="sans-serif">'
    '<rect x="-40" y="-10" width="450" height="450" fill="white"/>'
    '<path d="M0 0V400H400" fill="none" stroke="#777"/><path d="M0 400L400 0" stroke="#bbb"/>'
    f'{dots}<text x="130" y="425" font-size="14">measured, log scale</text>'
    '<text transform="translate(-15 270) rotate(-90)" font-size="14">predicted, log scale</text></svg>'
)
