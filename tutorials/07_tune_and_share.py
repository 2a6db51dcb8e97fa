"""
Tune, share records, measure a remote board
===========================================

Measured times and tuned kernels are kept, can be merged, and can come from another machine.
"""

# %%
# Tune
# ----
# ``tvm-sphinx tune model.onnx --time-limit 600`` gives MetaSchedule trials where the time of the
# network is. A few must do here. What was tuned lies beside the records; ``compile`` takes what is
# faster than the rules.
from pathlib import Path

import numpy as np
import onnx.parser

import tvm_sphinx
from tvm_sphinx.cost.measure.kernels import MeasureConfig
from tvm_sphinx.platform import Platform, unlike_cpus
from tvm_sphinx.tune import tune_model
from tvm_sphinx.tune.session import TuneConfig

model = onnx.parser.parse_model(
    '<ir_version: 8, opset_import: ["": 17]> net (float[24,32] x, float[32,40] w) => (float[24,40] y)'
    " { [product] a = MatMul(x, w) [relu] y = Relu(a) }"
)
onnx.save(model, "product.onnx")
device = unlike_cpus().devices[0]
platform = Platform((device,))
Path("mine").mkdir(exist_ok=True)
result = tune_model(
    "product.onnx", platform, TuneConfig(trials=4, sample_ms=0.2), records="mine/records.jsonl"
)
print(f"{result.new_trials} candidates; {result.before_ns} ns before, {result.now_ns} ns now")
assert result.now_ns <= result.before_ns

# %%
# Compile with what was found
# ---------------------------
quick = MeasureConfig(sample_ms=0.2, under_load=False)
compiled = tvm_sphinx.compile("product.onnx", platform, records="mine/records.jsonl", measure=quick)
assert compiled.report is not None
print(compiled.report.implementations)

# %%
# A board, through TVM's RPC
# --------------------------
# On the board ``python -m tvm.exec.rpc_server --tracker HOST:9190 --key board`` runs, and somewhere
# ``python -m tvm.exec.rpc_tracker``. Here both run on this machine. The command is ``tvm-sphinx
# compile model.onnx --rpc-tracker HOST:9190 --rpc-key board -o model.sphinx``; the program is copied
# to the board.
import time

from tvm import rpc
from tvm.rpc.server import Server
from tvm.rpc.tracker import Tracker

tracker = Tracker(host="127.0.0.1", port=9390, port_end=9490, silent=True)
server = Server(
    host="127.0.0.1",
    port=9491,
    port_end=9590,
    tracker_addr=("127.0.0.1", tracker.port),
    key="board",
    silent=True,
)
session = rpc.connect_tracker("127.0.0.1", tracker.port)
while not session.summary()["queue_info"].get("board", {}).get("free", 0):
    time.sleep(0.1)

from dataclasses import replace

from tvm_sphinx.cost.measure.kernels import measure_kernels
from tvm_sphinx.cost.records.store import RecordStore
from tvm_sphinx.frontend.extract import extract_task_graph
from tvm_sphinx.frontend.load import load_model
from tvm_sphinx.frontend.lower import lower_for_platform

board = replace(device, name="board", rpc_key="board")
remote = Platform((board,))
extraction = extract_task_graph(lower_for_platform(load_model(model), remote, "main"), "main")
Path("board").mkdir(exist_ok=True)
config = MeasureConfig(sample_ms=0.2, under_load=False, rpc_tracker=f"127.0.0.1:{tracker.port}")
times = measure_kernels(
    list(extraction.kernels.values()), board, RecordStore("board/records.jsonl"), config
)
server.terminate()
tracker.terminate()
for record in times:
    print(f"{record.kernel}: {np.median(record.samples_ns) / 1e3:.1f} us on {record.where.machine}")

# %%
# Merge
# -----
# ``tvm-sphinx records merge mine/records.jsonl board/records.jsonl -o all.jsonl``; then ``records
# list`` names the models and devices that a line belongs to. Records say on which machine they were
# measured, and only those of the machine that a device stands for are used.
from tvm_sphinx.cli import main

assert main(["records", "merge", "mine/records.jsonl", "board/records.jsonl", "-o", "all.jsonl"]) == 0
assert main(["records", "list", "all.jsonl"]) == 0
merged = RecordStore("all.jsonl")
assert len(merged) == len(RecordStore("mine/records.jsonl")) + len(RecordStore("board/records.jsonl"))

# %%
# Before and after, as a picture
# ------------------------------
bars = []
longest = max(max(k.before_ns, k.now_ns) for k in result.kernels)
for row, kernel in enumerate(result.kernels):
    for line, (told, value, colour) in enumerate(
        (("rule", kernel.before_ns, "#999"), ("best", kernel.now_ns, "#0072b2"))
    ):
        top = 10 + row * 60 + line * 22
        bars.append(
            f'<rect x="60" y="{top}" width="{value / longest * 360:.1f}" height="18" fill="{colour}"/>'
            f'<text x="5" y="{top + 14}">{told}</text><text x="430" y="{top + 14}">{value} ns</text>'
        )
Path("07_tune_and_share.svg").write_text(
    f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 520 {20 + 60 * len(result.kernels)}" '
    'width="520" font-family="sans-serif" font-size="13">'
    '<rect width="100%" height="100%" fill="white"/>'
    f"{''.join(bars)}</svg>"
)
