"""A ``torch.export`` program, run node by node by torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from .source import MASK, SOURCE_THREADS, NotVerifiedError, Range
from .tolerance import Array

# Operators that hand the elements of their first operand on as they are.
_PASSING = frozenset(
    "view reshape unsqueeze squeeze _to_copy to expand slice select clone alias contiguous permute "
    "transpose flatten detach cat repeat item _local_scalar_dense".split()
)
_CHOOSING = frozenset("eq ne lt le gt ge where logical_and logical_or logical_not bitwise_and".split())
_DIVIDING = frozenset("div remainder fmod floor_divide".split())
# Operand of the tensor that is read from, that of the indices, and of the axis (None for the first).
_INDEXING = {
    "embedding": (0, 1, None),
    "index_select": (0, 2, 1),
    "gather": (0, 2, 1),
    "select": (0, 2, 1),
}


class TorchSource:
    """See `tvm_sphinx.program.verify.source.RunnableSource`.

    What a program keeps in buffers is copied for each run, so that the user's program stays as it is.
    Inputs that are fixed are fed with their values, and are none of its own.
    """

    def __init__(self, program: Any, fixed: Mapping[str, Array] | None = None) -> None:
        self._program = program
        fixed = fixed or {}
        # The value of each input that is a tensor, None of those that are given.
        self._values = [
            fixed.get(spec.arg.name) for spec in program.graph_signature.input_specs if _is_given(spec)
        ]
        for spec in program.graph_signature.input_specs:
            if spec.kind.name in ("CUSTOM_OBJ", "TOKEN"):
                raise NotVerifiedError(f"the torch program has an input of kind {spec.kind.name}")

    @property
    def runtime(self) -> str:
        """What runs it, with its version."""
        import torch

        return f"torch {torch.__version__}"

    @cached_property
    def computed_dtypes(self) -> frozenset[str]:
        """Types that decide how well its outputs are known; ``quantised`` where it rounds to 8 bits."""
        found = set()
        for node in self._program.graph.nodes:
            dtype = str(getattr(node.meta.get("val"), "dtype", "")).removeprefix("torch.")
            if dtype in ("float16", "bfloat16"):
                found.add(dtype)
            if node.op == "call_function" and "quantize_per" in str(node.target):
                found.add("quantised")
        return frozenset(found)

    def example_shape(self, position: int) -> tuple[int, ...] | None:
        """Return the shape of an input in the example that the program was exported with."""
        value = self._inputs[position].meta.get("val")
        if value is None:
            return None
        # Of an open extent the hint is that of the example.
        return tuple(int(getattr(getattr(e, "node", None), "hint", None) or e) for e in value.shape)

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        """Return the outputs for these inputs."""
        import torch

        results = self._interpreter(self._program).run(*self._flat(self._program, arrays))
        kinds = [spec.kind.name for spec in self._program.graph_signature.output_specs]
        outputs = zip(kinds, results, strict=True)
        return [
            _to_numpy(value)
            for kind, value in outputs
            if kind in ("USER_OUTPUT", "LOSS_OUTPUT") and isinstance(value, torch.Tensor)
        ]

    def values(self, arrays: Sequence[Array], names: Sequence[str]) -> list[Array]:
        """Return values inside the model for these inputs, by the names of its decomposed nodes."""
        kept: dict[str, Array] = {}
        program = self._decomposed
        self._interpreter(program, set(names), kept).run(*self._flat(program, arrays))
        return [kept[name] for name in names]

    def known_values(self) -> frozenset[str]:
        """Return the names that `values` knows."""
        return frozenset(node.name for node in self._decomposed.graph.nodes)

    def ranges(self) -> list[Range]:
        """Return what suits each input, if it is of whole numbers, by what reads it."""
        return [_range(node) for node in self._inputs]

    @cached_property
    def _decomposed(self) -> Any:
        """The program in the operators that importers know; its nodes are those that they name."""
        return self._program.run_decompositions()

    @cached_property
    def _inputs(self) -> list[Any]:
        """The placeholders of the inputs that are tensors."""
        nodes = {node.name: node for node in self._program.graph.nodes}
        specs = filter(_is_given, self._program.graph_signature.input_specs)
        pairs = zip(specs, self._values, strict=True)
        return [nodes[spec.arg.name] for spec, value in pairs if value is None]

    def _flat(self, program: Any, arrays: Sequence[Array]) -> list[Any]:
        """Return what the graph takes: parameters, buffers and constants, and these inputs."""
        given = self._in_all(arrays)
        flat = []
        for spec in program.graph_signature.input_specs:
            kind, target = spec.kind.name, spec.target
            if _is_given(spec):
                flat.append(_to_torch(next(given)))
            elif kind == "USER_INPUT":
                flat.append(spec.arg.value)  # a number or None that was fixed when it was exported
            elif kind == "PARAMETER":
                flat.append(program.state_dict[target])
            else:
                held = program.state_dict if target in program.state_dict else program.constants
                flat.append(held[target].clone())
        return flat

    def _in_all(self, arrays: Sequence[Array]) -> Iterator[Array]:
        """Return these inputs and those that are fixed, in their order."""
        given = iter(arrays)
        return (next(given) if value is None else value for value in self._values)

    def _interpreter(
        self, program: Any, names: set[str] | None = None, kept: dict[str, Array] | None = None
    ) -> Any:
        import torch

        class Interpreter(torch.fx.Interpreter):  # type: ignore[misc]
            """Runs on few threads, without gradients, and keeps the values that are asked for."""

            def run(self, *arguments: Any) -> Any:
                before = torch.get_num_threads()
                torch.set_num_threads(min(before, SOURCE_THREADS))
                try:
                    with torch.no_grad():
                        return super().run(*arguments)
                finally:
                    torch.set_num_threads(before)

            def run_node(self, node: Any) -> Any:
                value = super().run_node(node)
                if names and kept is not None and node.name in names:
                    kept[node.name] = _to_numpy(value)
                return value

        return Interpreter(program.graph_module)


def _is_given(spec: Any) -> bool:
    return spec.kind.name == "USER_INPUT" and type(spec.arg).__name__ == "TensorArgument"


def _range(node: Any) -> Range:
    reached, found, frontier = {node}, [], [node]
    while frontier:
        value = frontier.pop()
        for user in value.users:
            kind = getattr(user.target, "__name__", str(user.target)).partition(".")[0]
            is_place = kind == "select" and user.args[0] is not value
            if kind in _PASSING and not is_place and user not in reached:
                reached.add(user)
                frontier.append(user)
            elif (use := _use(kind, user, value)) is not None:
                found.append(use)
    if not found:
        return MASK
    low = max(use.low for use in found)
    return Range(low, max(low + 1, min(use.high for use in found)))


def _use(kind: str, user: Any, value: Any) -> Range | None:
    """Return what suits an operand of whole numbers, None where nothing is known."""
    if kind in _DIVIDING and len(user.args) > 1 and user.args[1] is value:
        return Range(1, 4)
    if kind in _CHOOSING:
        return Range(0, 2)
    if kind in _INDEXING:
        table, indices, axis = _INDEXING[kind]
        if len(user.args) > indices and user.args[indices] is value:
            return _below(user.args[table], user.args[axis] if axis is not None else 0)
    if kind == "index" and len(user.args) > 1:
        places = [axis for axis, index in enumerate(user.args[1]) if index is value]
        return _below(user.args[0], places[0]) if places else None
    return None


def _below(table: Any, axis: int) -> Range | None:
    held = table.meta.get("val")
    extent = held.shape[axis] if held is not None and held.ndim else None
    return Range(0, extent) if isinstance(extent, int) and extent > 0 else None


def _to_torch(array: Array) -> Any:
    """Return a tensor of its own memory, which a program may write to."""
    import torch

    copied = np.array(array, order="C")
    if str(copied.dtype) == "bfloat16":
        return torch.from_numpy(copied.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(copied)


def _to_numpy(tensor: Any) -> Array:
    import torch

    held = tensor.detach().cpu().contiguous()
    if held.dtype == torch.bfloat16:
        import ml_dtypes

        return np.asarray(held.view(torch.int16).numpy().view(ml_dtypes.bfloat16))
    return np.array(held.resolve_conj().resolve_neg().numpy())
