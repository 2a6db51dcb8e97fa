"""A compiled model: run it, compare it with a single device, save it, load it. [TVM]"""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ModelError, UnsupportedError
from ..frontend.tensor_spec import TensorSpec, outside_range
from ..patterns import PatternHierarchy, find_patterns
from ..platform import Platform
from ..report.decision import Decision
from ..report.describe import format_fixed, format_report, format_summary
from ..report.placement import PlacementReport
from ..report.text import format_ns
from ..runtime.artifact import read_artifact, write_artifact
from ..runtime.tensors import InputError, as_array, order_inputs
from ..runtime.trace import Trace
from ..scheduling.graph import TaskGraph
from ..search import PruningReport
from ..wording import counted
from .kinds import Array, Program, flatten_outputs, restore_program
from .verify.verification import Verification

#: Member of an artifact that holds the task graph.
_GRAPH = "graph.json"
#: Member with the grounds of the schedule.
_DECISION = "decision.json.gz"
#: Folder of the values of inputs that are fixed, by their numbers.
_FIXED = "fixed"
# Names of programs that are there to compare with begin so.
_VARIANT = "variant "

#: Arrays by input name, or in the order of the model's inputs.
Inputs = Mapping[str, Any] | Sequence[Any]


@dataclass(repr=False)
class CompiledModel:
    """A model compiled for a platform.

    Attributes
    ----------
    inputs, outputs
        What `run` expects and returns, by the names of the source.
    platform
        The devices that it was compiled for.
    report
        What runs where; None for a model that runs on a single device because it cannot be scheduled.
    note
        Why it cannot, or what is particular about how it runs, else empty.
    stages_s
        Seconds that each stage of compiling took.
    graph
        The task graph that was scheduled; None for a model that cannot be.
    pruning
        What the search decided once because it recurs; None where it did not look for that.
    verification
        How its outputs compare with those of the source; None where that was left out.
    decision
        The grounds of the schedule, see `tvm_sphinx.report.decision.Decision`; None like ``graph``.
    variants
        Programs to compare with by name, where they were asked for: ``on core0``, ``stock VM``.
    fixed_inputs
        Values by name of inputs of the source that are constants of the program.
    """

    inputs: tuple[TensorSpec, ...]
    platform: Platform
    program: Program
    reference: Program | None
    report: PlacementReport | None
    note: str = ""
    stages_s: dict[str, float] = field(default_factory=dict)
    graph: TaskGraph | None = None
    pruning: PruningReport | None = None
    outputs: tuple[TensorSpec, ...] = ()
    verification: Verification | None = None
    decision: Decision | None = None
    variants: dict[str, Program] = field(default_factory=dict)
    fixed_inputs: dict[str, Array] = field(default_factory=dict)
    _opened: dict[str, Any] = field(default_factory=dict, repr=False)

    def __repr__(self) -> str:
        runs = self.note or "on one device"
        if self.report is not None:
            used = [row.name for row in self.report.devices if row.tasks]
            runs = (
                f"{counted(len(self.report.tasks), 'task')} on {', '.join(used) or 'no device'}, "
                f"predicted {format_ns(self.report.whole_ns)}"
            )
        inputs, outputs = (", ".join(map(str, specs)) for specs in (self.inputs, self.outputs))
        return f"<CompiledModel ({inputs}) -> ({outputs}): {runs}>"

    @property
    def output_names(self) -> list[str]:
        """Names of the outputs, as the source has them, in order."""
        return [spec.name for spec in self.outputs]

    def run(self, inputs: Inputs) -> list[Array]:
        """Run one inference.

        Parameters
        ----------
        inputs
            Arrays by input name, or in the order of `inputs`.

        Returns
        -------
        list of ndarray
            The model's outputs, in order; nested tuples are flattened.

        Raises
        ------
        ModelError
            If an input is missing or unknown, or its shape or dtype is wrong, or it holds an index, such
            as a token id, that is out of range.
        """
        return self._run("program", self.program, inputs)

    def run_reference(self, inputs: Inputs) -> list[Array]:
        """Run one inference on the best single device alone; parameters and errors as in `run`."""
        if self.reference is None:
            raise ModelError("This model was compiled without its single-device reference.")
        return self._run("reference", self.reference, inputs)

    def _run(self, key: str, program: Program, inputs: Inputs) -> list[Array]:
        arrays = self._checked(inputs)
        if key not in self._opened:
            self._opened[key] = program.open()
        return flatten_outputs(self._opened[key](arrays))

    def _checked(self, inputs: Inputs) -> list[Array]:
        for name in inputs if isinstance(inputs, Mapping) else ():
            if name in self.fixed_inputs:
                value = format_fixed(self.fixed_inputs)[name]
                raise InputError(
                    f"Input {name!r} was fixed when the model was compiled: {value}; expected inputs "
                    f"{[spec.name for spec in self.inputs]}."
                )
        return check_inputs(self.inputs, inputs)

    def run_traced(self, inputs: Inputs) -> tuple[list[Array], Trace]:
        """Run one inference; return its outputs as `run` does, and what happened when on the lanes.

        It is the second of two on the same memory, as one of many runs is. Of a model with a part of
        open shapes the trace ends where that begins.

        Raises
        ------
        UnsupportedError
            If the model runs on the stock VM, which stamps no times.
        """
        lanes = self.program.lanes
        if lanes is None:
            raise UnsupportedError(f"Only the concurrent runtime traces. {self.note}")
        arrays = self._checked(inputs)
        made, trace = lanes.executable.run_traced(arrays, warm_runs=1)
        return flatten_outputs(self.program.complete(arrays, made)), trace

    def random_inputs(self, seed: int = 0) -> dict[str, Array]:
        """Return seeded inputs for `run`; see the function `random_inputs`."""
        return random_inputs(self.inputs, seed)

    def describe(self, *, verbose: bool = False) -> str:
        """Return the report as text."""
        note = [f"note                 {self.note}"] if self.note else []
        values = format_fixed(self.fixed_inputs)
        fixed = [f"fixed input          {name} = {value}" for name, value in values.items()]
        report = [] if self.report is None else [format_report(self.report, verbose=verbose)]
        space = [] if self.pruning is None else [f"search space         {self.pruning.describe()}"]
        rows = [] if self.verification is None else self.verification.describe()
        verified = [f"{heading:<20} {text}" for heading, text in rows]
        return "\n".join(report + verified + space + fixed + note)

    def summary(self) -> str:
        """Return what was decided, and how sure it is, in one line."""
        if self.report is None:
            return self.note
        verified = "" if self.verification is None else f"; {self.verification.summary}"
        return format_summary(self.report) + verified

    def to_json(self) -> dict[str, Any]:
        """Return what is known of the model, for machines; programs and weights are left out."""
        return {
            "inputs": [spec.to_json() for spec in self.inputs],
            "outputs": [spec.to_json() for spec in self.outputs],
            "fixed_inputs": format_fixed(self.fixed_inputs),
            "platform": self.platform.to_json(),
            "summary": self.summary(),
            "report": None if self.report is None else self.report.to_json(),
            "verification": None if self.verification is None else self.verification.to_json(),
            "pruning": None if self.pruning is None else self.pruning.to_json(),
            "note": self.note,
            "stages_s": self.stages_s,
        }

    def patterns(self) -> PatternHierarchy | None:
        """Return the recurring subgraphs of the task graph; None where there is no ``graph``."""
        return None if self.graph is None else find_patterns(self.graph)

    def save(self, path: str | Path) -> None:
        """Write the model to one file; see `tvm_sphinx.runtime.artifact` for its layout.

        Raises
        ------
        SphinxError
            If the file cannot be written.
        """
        programs = {"program": self.program}
        if self.reference is not None:
            programs["reference"] = self.reference
        programs |= {f"{_VARIANT}{name}": program for name, program in self.variants.items()}
        manifest = {
            "inputs": [spec.to_json() for spec in self.inputs],
            "outputs": [spec.to_json() for spec in self.outputs],
            "fixed_inputs": [
                TensorSpec(name, value.shape, str(value.dtype)).to_json()
                for name, value in self.fixed_inputs.items()
            ],
            "verification": None if self.verification is None else self.verification.to_json(),
            "platform": self.platform.to_json(),
            "programs": {name: program.manifest() for name, program in programs.items()},
            "report": None if self.report is None else self.report.to_json(),
            "note": self.note,
            "stages_s": self.stages_s,
            "pruning": None if self.pruning is None else self.pruning.to_json(),
        }
        parts = {id(program): program.members() for program in programs.values()}
        members = {
            f"{name}/{member}": content
            for name, program in programs.items()
            for member, content in parts[id(program)].items()
        }
        for number, value in enumerate(self.fixed_inputs.values()):
            members[f"{_FIXED}/{number}"] = value.tobytes()
        if self.graph is not None:
            members[_GRAPH] = json.dumps(self.graph.to_json(), separators=(",", ":")).encode()
        if self.decision is not None:
            told = json.dumps(self.decision.to_json(), separators=(",", ":")).encode()
            members[_DECISION] = gzip.compress(told, mtime=0)
        write_artifact(path, manifest, members)

    @classmethod
    def load(cls, path: str | Path) -> CompiledModel:
        """Read a model that `save` wrote.

        Raises
        ------
        ArtifactError
            If the file is missing, truncated, altered, or of another version.
        """
        manifest, members = read_artifact(path)
        where = f"artifact {str(path)!r}"
        parts = {
            name: (
                content,
                {key.split("/", 1)[1]: members[key] for key in members if key.startswith(f"{name}/")},
            )
            for name, content in manifest["programs"].items()
        }
        program = restore_program(*parts["program"], where)
        reference = None
        if "reference" in parts:
            # Where the best single device is what runs, both are one program.
            same = parts["reference"] == parts["program"]
            reference = program if same else restore_program(*parts["reference"], where)
        report = manifest["report"]
        variants = {
            name.removeprefix(_VARIANT): restore_program(*part, where)
            for name, part in parts.items()
            if name.startswith(_VARIANT)
        }
        decision = members.get(_DECISION)
        graph, pruning = members.get(_GRAPH), manifest["pruning"]
        verification = manifest.get("verification")
        return cls(
            inputs=_specs(manifest["inputs"]),
            outputs=_specs(manifest.get("outputs", [])),
            fixed_inputs={
                spec.name: np.frombuffer(members[f"{_FIXED}/{number}"], spec.dtype).reshape(spec.shape)
                for number, spec in enumerate(_specs(manifest.get("fixed_inputs", [])))
            },
            verification=None if verification is None else Verification.from_json(verification),
            platform=Platform.from_json(manifest["platform"], where),
            program=program,
            reference=reference,
            report=None if report is None else PlacementReport.from_json(report),
            note=manifest["note"],
            stages_s=manifest["stages_s"],
            graph=None if graph is None else TaskGraph.from_json(json.loads(graph)),
            decision=None
            if decision is None
            else Decision.from_json(json.loads(gzip.decompress(decision))),
            variants=variants,
            pruning=None if pruning is None else PruningReport.from_json(pruning),
        )


def _specs(content: Sequence[Any]) -> tuple[TensorSpec, ...]:
    return tuple(map(TensorSpec.from_json, content))


def random_inputs(specs: Sequence[TensorSpec], seed: int = 0) -> dict[str, Array]:
    """Return seeded inputs: normal floats, and integers that are 0, a valid index into anything."""
    rng = np.random.default_rng(seed)
    arrays: dict[str, Array] = {}
    for spec in specs:
        shape = [1 if extent < 0 else extent for extent in spec.shape]
        is_float = spec.dtype.startswith(("float", "bfloat"))
        values = rng.standard_normal(shape) if is_float else np.zeros(shape)
        arrays[spec.name] = values.astype(spec.dtype)
    return arrays


def check_inputs(specs: Sequence[TensorSpec], inputs: Inputs) -> list[Array]:
    """Return the inputs as contiguous arrays in the order of their specs.

    Raises
    ------
    InputError
        If an input is missing or unknown, its shape or dtype is wrong, or an index is out of range.
    """
    given = order_inputs(inputs, [spec.name for spec in specs])
    arrays = []
    for spec, value in zip(specs, given, strict=True):
        array = as_array(value, spec.name)
        fits = len(array.shape) == len(spec.shape) and all(
            want in (-1, got) for want, got in zip(spec.shape, array.shape, strict=False)
        )
        if not fits:
            raise InputError(f"Expected input {spec.name!r} of shape {spec.shape}; got {array.shape}.")
        if str(array.dtype) != spec.dtype:
            raise InputError(f"Expected input {spec.name!r} of dtype {spec.dtype}; got {array.dtype}.")
        if wrong := outside_range(spec, array):
            raise InputError(wrong)
        arrays.append(np.asarray(array, order="C"))
    return arrays


def largest_difference(left: Sequence[Array], right: Sequence[Array]) -> tuple[float, float]:
    """Compare two lists of outputs.

    Returns
    -------
    absolute : float
        The largest difference; infinite where one side is NaN and the other is not.
    relative : float
        The same over the largest finite value of ``right``.
    """
    worst = scale = 0.0
    for a, b in zip(left, right, strict=True):
        x, y = a.astype(np.float64), b.astype(np.float64)
        same = (x == y) | (np.isnan(x) & np.isnan(y))
        with np.errstate(invalid="ignore"):
            difference = np.where(same, 0.0, np.abs(x - y))
        worst = max(worst, float(np.nan_to_num(difference, nan=np.inf).max(initial=0.0)))
        scale = max(scale, float(np.abs(y[np.isfinite(y)]).max(initial=0.0)))
    return worst, worst / scale if scale else worst
