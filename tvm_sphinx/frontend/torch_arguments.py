"""Find arguments of torch operators that a converter does not look at."""

from __future__ import annotations

from typing import Any

from ..errors import ModelError

# Where a tensor lies and who draws it says nothing about its values, and what its type is, is compared.
_NO_VALUES = frozenset(
    """dtype layout device pin_memory memory_format non_blocking generator implicit copy
    requires_grad""".split()
)

# What the operands' shapes, or the operator's name, say already.
_KNOWN_ANYWAY = {
    "aten::_softmax": {"half_to_float"},
    "aten::_log_softmax": {"half_to_float"},
    "aten::native_group_norm": {"N", "C", "HxW"},
    "aten::_native_batch_norm_legit": {"training", "momentum"},
    "aten::_native_batch_norm_legit_no_training": {"momentum"},
}
# What matters to gradients alone.
_OF_GRADIENTS = frozenset("padding_idx scale_grad_by_freq sparse".split())


class WatchedNode:
    """A ``torch.fx.Node`` that records which of its arguments are read."""

    def __init__(self, node: Any) -> None:
        self._node = node
        self._read: set[Any] = set()
        self.args = _Arguments(node.args, self._read)
        self.kwargs = _Keywords(node.kwargs, self._read)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._node, name)

    def normalized_arguments(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the node does; whoever asks gets all arguments, and may ignore some."""
        self._read.update(range(len(self._node.args)), self._node.kwargs)
        return self._node.normalized_arguments(*args, **kwargs)

    def check(self) -> None:
        """Raise an error if an argument that is not the default was not read.

        Raises
        ------
        ModelError
            That names the operator and the argument.
        """
        schema = self._node.target._schema
        ignored = _NO_VALUES | _OF_GRADIENTS | _KNOWN_ANYWAY.get(schema.name, set())
        for number, argument in enumerate(schema.arguments):
            if argument.name in self._node.kwargs:
                key, value = argument.name, self._node.kwargs[argument.name]
            elif number < len(self._node.args) and not argument.kwarg_only:
                key, value = number, self._node.args[number]
            else:
                continue
            default = argument.default_value if argument.has_default_value() else _NO_DEFAULT
            if key in self._read or argument.name in ignored or value == default:
                continue
            raise ModelError(
                f"TVM's importer ignores {argument.name} = {value!r} of {self._node.target} "
                f"({self._node.name})."
            )


_NO_DEFAULT = object()


class _Arguments(tuple):  # type: ignore[type-arg]
    """Positional arguments."""

    def __new__(cls, values: Any, _read: set[Any]) -> _Arguments:
        return super().__new__(cls, values)

    def __init__(self, _values: Any, read: set[Any]) -> None:
        self._read = read

    def __getitem__(self, key: Any) -> Any:
        self._read.update(range(len(self))[key] if isinstance(key, slice) else [range(len(self))[key]])
        return super().__getitem__(key)

    def __iter__(self) -> Any:
        self._read.update(range(len(self)))
        return super().__iter__()


class _Keywords(dict):  # type: ignore[type-arg]
    """Keyword arguments."""

    def __init__(self, values: Any, read: set[Any]) -> None:
        super().__init__(values)
        self._read = read

    def __getitem__(self, key: Any) -> Any:
        self._read.add(key)
        return super().__getitem__(key)

    def get(self, key: Any, default: Any = None) -> Any:
        """Return the argument of a name."""
        self._read.add(key)
        return super().get(key, default)
