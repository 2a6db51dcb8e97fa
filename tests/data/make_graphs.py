"""Write the task graphs of the model zoo to tests/data/graphs, so that tests need no torch.

    python tests/data/make_graphs.py [MODEL ...]

needs the packages that `benchmarks/models.py` builds its models with. Writes MODEL.json.gz per model,
byte for byte the same for the same versions of TVM and of those packages.
"""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1] / "benchmarks"), str(HERE.parents[1])]

import models  # noqa: E402  (found through the path above)
import tvm  # noqa: E402  (after the zoo, which imports it too)

from tvm_sphinx.frontend.extract import extract_task_graph  # noqa: E402
from tvm_sphinx.frontend.lower import lower_to_kernels  # noqa: E402
from tvm_sphinx.scheduling.graph import TaskGraph  # noqa: E402


def task_graph(name: str) -> TaskGraph:
    """Return the task graph of a model of the zoo, lowered for a plain CPU."""
    module = models.load(name).relax()
    lowered = lower_to_kernels(module, tvm.target.Target("llvm"))
    graph = extract_task_graph(lowered).graph
    return TaskGraph(name, graph.tasks, graph.inputs, graph.outputs)


def main(names: list[str]) -> None:
    """Write the graphs of the named models, of all by default."""
    folder = HERE / "graphs"
    folder.mkdir(exist_ok=True)
    for name in names or models.names():
        graph = task_graph(name)
        text = json.dumps(graph.to_json(), separators=(",", ":"), sort_keys=True)
        path = folder / f"{name}.json.gz"
        path.write_bytes(gzip.compress(text.encode(), mtime=0))
        kernels = len({task.kernel for task in graph.tasks})
        print(
            f"{name}: {graph.num_tasks} tasks, {kernels} kernels, {path.stat().st_size} bytes",
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1:])
