"""One model, from its file to a program that runs it on every device at once.

Run it as a script (``python tutorials/01_one_model.py``); pytest runs it too.
"""

import tempfile
from pathlib import Path

import numpy as np

import tvm_sphinx
from tvm_sphinx.cost.measure.kernels import MeasureConfig
from tvm_sphinx.platform import unlike_cpus

# 1. A platform: the devices that a kernel can run on. `detect_platform()` offers each core of this
#    machine and all of them together. Here we take two unlike ones, so that a task's place matters: a
#    core with all its instruction sets, and a core that is held to the baseline of its architecture.
platform = unlike_cpus()
for device in platform.devices:
    print(f"{device.name}: cores {device.cores}, target {device.target}")

# 2. Compile. The model is lowered with TVM's passes to one call per fused kernel; each distinct one is
#    measured once per device (and kept on record, so the next compile measures nothing); CPGA searches;
#    the best schedule is checked, written into the module as virtual devices, and built.
#    A short sample is enough for a tutorial; leave `measure` out for costs to rely on.
compiled = tvm_sphinx.compile("inception-v1", platform, measure=MeasureConfig(sample_ms=2))

# 3. See what runs where. The certified gap says how far the schedule can be from the best possible one.
print()
print(compiled.describe())
report = compiled.report
assert report is not None
assert report.lower_bound_ns <= report.makespan_ns <= report.best_single_device_ns

# 4. Run it, and compare with the build for the best single device alone.
inputs = compiled.random_inputs(seed=1)
(probabilities,) = compiled.run(inputs)
(alone,) = compiled.run_reference(inputs)
difference = float(np.abs(probabilities - alone).max())
print(f"\noutput {probabilities.shape}, largest difference from one device {difference:.2g}")
assert difference < 1e-5
assert abs(float(probabilities.sum()) - 1) < 1e-4

# 5. What happened, measured beside predicted: the critical path and what each of its links waited for.
_, trace = compiled.run_traced(inputs)
predicted_ns, measured_ns = report.makespan_ns, trace.makespan_ns
print(f"predicted {predicted_ns / 1e6:.1f} ms, measured {measured_ns / 1e6:.1f} ms")
for link in trace.critical_path()[:5]:
    step = trace.steps[link.step]
    print(f"  {trace.devices[step.device]:<10} {step.name:<12} waited for {link.cause}")

# 6. Save it to one file; another process needs this package and nothing else to run it.
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "inception-v1.sphinx"
    compiled.save(path)
    loaded = tvm_sphinx.load(str(path))
    np.testing.assert_array_equal(loaded.run(inputs)[0], probabilities)
    print(f"saved and loaded {path.stat().st_size / 2**20:.0f} MiB")
