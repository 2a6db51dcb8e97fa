"""
A PyTorch model, verified
=========================

What ``torch.export`` gives is compiled as it is, and its outputs are held against those of torch.
"""

# %%
# A module
# --------
# An encoder that looks at a signal on two scales, and adds what they see.
from pathlib import Path

import torch

import tvm_sphinx
from tvm_sphinx.cost.measure.kernels import MeasureConfig


class TwoScales(torch.nn.Module):
    """A convolution on each of two scales, and a layer on their sum."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = torch.nn.Conv1d(16, 32, 9, padding=4)
        self.coarse = torch.nn.Conv1d(16, 32, 9, padding=4)
        self.scores = torch.nn.Linear(32, 10)

    def forward(self, signal: torch.Tensor) -> torch.Tensor:
        """Return ten scores of a signal of shape (1, 16, 256)."""
        fine = torch.relu(self.fine(signal))
        coarse = torch.relu(self.coarse(torch.nn.functional.avg_pool1d(signal, 4)))
        both = fine.mean(-1) + coarse.mean(-1)
        return self.scores(torch.nn.functional.layer_norm(both, (32,)))


torch.manual_seed(0)
module = TwoScales().eval()
signal = torch.randn(1, 16, 256)
program = torch.export.export(module, (signal,))

# %%
# Compile and verify
# ------------------
# ``compile`` runs the program and torch on the same inputs. A difference beyond the tolerance of
# the type is an error that names the first operator that differs, so a wrong program is never
# returned. Without ``verify_inputs`` some are drawn; those may miss what a model is made for.
# ``torch.export.save(program, "two_scales.pt2")`` makes a file of it for the command line.
compiled = tvm_sphinx.compile(
    program,
    "unlike-cpus",
    verify_inputs={"signal": torch.sin(torch.arange(4096.0)).reshape(1, 16, 256).numpy()},
    records="records.jsonl",
    measure=MeasureConfig(sample_ms=0.2, under_load=False),
)
assert compiled.verification is not None
for heading, text in compiled.verification.describe():
    print(f"{heading:<20} {text}")

# %%
# The same numbers
# ----------------
(scores,) = compiled.run({"signal": signal.numpy()})
torch.testing.assert_close(torch.from_numpy(scores), module(signal).detach(), rtol=1e-4, atol=1e-5)

# %%
# Where each line of the source runs
# ----------------------------------
# Tasks know the lines of Python that they compute.
assert compiled.report is not None
for task in compiled.report.tasks:
    print(f"{task.device:<9} {task.name:<24} {'; '.join(task.origin)}")

# %%
# The task graph, coloured by device
# ----------------------------------
from tvm_sphinx.patterns import patterns_svg
from tvm_sphinx.patterns.dot import pattern_fill

assert compiled.graph is not None
assert compiled.decision is not None
fills = [pattern_fill(device) for device in compiled.decision.schedule.device.tolist()]
patterns = compiled.patterns()
assert patterns is not None
Path("02_torch.svg").write_text(patterns_svg(compiled.graph, patterns, fills))
