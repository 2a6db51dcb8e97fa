"""Converters of ONNX's recurrent operators: LSTM, GRU, RNN, step by step. [TVM]

The product of the inputs with their weights is one matrix product for all steps; what remains of a step
are kernels that all steps share. A sequence that is shorter than the longest keeps its state from its
end on, and its outputs are zero there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .._tvm import relax
from .onnx_node import (
    MICROSOFT,
    STANDARD,
    Converter,
    Node,
    const,
    constant_value,
    dtype_of,
    rank_of,
    shape_of,
)
from .onnx_quantised import dynamic_product

_op = relax.op

#: Applies a step to its gates' inputs and the state; returns the new state, the output first.
Step = Callable[["Cell", Any, Sequence[Any]], list[Any]]


@dataclass(frozen=True)
class Cell:
    """The weights of one direction.

    Parameters
    ----------
    node
    hidden
        Size of the state.
    recurrent, recurrent_bias
        Transposed weights of the state, (hidden, gates x hidden), and their bias or None.
    peepholes
        (3 x hidden,), or None.
    activations
        Functions of tensors, in ONNX's order.
    product
        Gives the product of a state with the weights of all gates, in place of ``recurrent``.
    """

    node: Node
    hidden: int
    dtype: str
    recurrent: Any
    recurrent_bias: Any
    peepholes: Any
    activations: tuple[Callable[[Any], Any], ...]
    product: Callable[[Any], Any] | None = None

    def emit(self, expr: Any) -> Any:
        """Bind an expression to a variable, and return that."""
        return self.node.emit(expr)

    def gate(self, tensor: Any, first: int, count: int = 1) -> Any:
        """Return some gates of a tensor whose last axis holds them one after the other."""
        axis = int(tensor.ty.ndim) - 1
        bounds = [first * self.hidden], [(first + count) * self.hidden]
        return self.emit(_op.strided_slice(tensor, [axis], *bounds))

    def activate(self, which: int, tensor: Any) -> Any:
        """Return an activation of what is clipped first, if the node says so."""
        clip = float(self.node.attributes.get("clip", 0.0))
        if clip > 0:
            tensor = self.emit(_op.clip(tensor, -clip, clip))
        return self.emit(self.activations[which](tensor))

    def times_state(self, state: Any, first: int = 0, count: int = 0) -> Any:
        """Return the product of a state with the recurrent weights of some gates, all by default."""
        if self.product is not None:
            return self.product(state)
        weights = self.gate(self.recurrent, first, count) if count else self.recurrent
        return self.emit(_op.matmul(state, weights))


def _lstm_step(cell: Cell, inputs: Any, state: Sequence[Any]) -> list[Any]:
    hidden, memory = state
    gates = cell.emit(_op.add(inputs, cell.times_state(hidden)))
    i, o, f, c = (cell.gate(gates, number) for number in range(4))
    if cell.peepholes is not None:
        p_i, p_o, p_f = (cell.gate(cell.peepholes, number) for number in range(3))
        i = cell.emit(_op.add(i, cell.emit(_op.multiply(p_i, memory))))
        f = cell.emit(_op.add(f, cell.emit(_op.multiply(p_f, memory))))
    i = cell.activate(0, i)
    if cell.node.attributes.get("input_forget", 0):
        f = cell.emit(_op.subtract(const(1, cell.dtype), i))
    else:
        f = cell.activate(0, f)
    kept = cell.emit(_op.multiply(f, memory))
    memory = cell.emit(_op.add(kept, cell.emit(_op.multiply(i, cell.activate(1, c)))))
    if cell.peepholes is not None:
        o = cell.emit(_op.add(o, cell.emit(_op.multiply(p_o, memory))))
    shown = cell.emit(cell.activations[2](memory))
    return [cell.emit(_op.multiply(cell.activate(0, o), shown)), memory]


def _gru_step(cell: Cell, inputs: Any, state: Sequence[Any]) -> list[Any]:
    (hidden,) = state
    if cell.node.attributes.get("linear_before_reset", 0):
        product = cell.times_state(hidden)
        if cell.recurrent_bias is not None:
            product = cell.emit(_op.add(product, cell.recurrent_bias))
        both, last = cell.gate(product, 0, 2), cell.gate(product, 2)
    else:
        both, last = cell.times_state(hidden, 0, 2), None
    both = cell.activate(0, cell.emit(_op.add(cell.gate(inputs, 0, 2), both)))
    z, r = cell.gate(both, 0), cell.gate(both, 1)
    if last is None:
        last = cell.times_state(cell.emit(_op.multiply(r, hidden)), 2, 1)
    else:
        last = cell.emit(_op.multiply(r, last))
    new = cell.activate(1, cell.emit(_op.add(cell.gate(inputs, 2), last)))
    fresh = cell.emit(_op.multiply(cell.emit(_op.subtract(const(1, cell.dtype), z)), new))
    return [cell.emit(_op.add(fresh, cell.emit(_op.multiply(z, hidden))))]


def _rnn_step(cell: Cell, inputs: Any, state: Sequence[Any]) -> list[Any]:
    (hidden,) = state
    return [cell.activate(0, cell.emit(_op.add(inputs, cell.times_state(hidden))))]


@dataclass(frozen=True)
class _Kind:
    """What tells the three operators apart; ``states`` counts tensors of a state."""

    step: Step
    num_gates: int
    states: int
    activations: tuple[str, ...]


_LSTM = _Kind(_lstm_step, 4, 2, ("Sigmoid", "Tanh", "Tanh"))
_GRU = _Kind(_gru_step, 3, 1, ("Sigmoid", "Tanh"))
_RNN = _Kind(_rnn_step, 1, 1, ("Tanh",))


def _converter(kind: _Kind) -> Converter:
    return lambda node: _Recurrence(node, kind).outputs()


class _Recurrence:
    """Converts one node; axes are (step, batch, feature) inside."""

    _hidden_axis = 2

    def __init__(self, node: Node, kind: _Kind) -> None:
        self.node, self.kind = node, kind
        self.is_batch_first = bool(node.attributes.get("layout", 0))
        self.data = node.required(0)
        self.dtype = dtype_of(self.data)
        if rank_of(self.data) != 3:
            raise node.error(f"expected an input of three axes; got {rank_of(self.data)}")
        if self.is_batch_first:
            self.data = node.emit(_op.permute_dims(self.data, [1, 0, 2]))
        self.steps, self.batch, self.features = shape_of(node, self.data, "an input")
        self.directions = shape_of(node, node.required(2), "recurrent weights")[0]
        self.hidden = shape_of(node, node.required(2), "recurrent weights")[self._hidden_axis]
        self.direction = node.text("direction", "forward")
        expected = 2 if self.direction == "bidirectional" else 1
        if self.direction not in ("forward", "reverse", "bidirectional") or self.directions != expected:
            raise node.error(
                f"expected weights of {expected} directions for direction={self.direction!r}; "
                f"got {self.directions}"
            )

    def outputs(self) -> tuple[Any, ...]:
        """Return Y, and the last state of all directions."""
        node = self.node
        found = [self._run(number) for number in range(self.directions)]
        # (step, direction, batch, hidden)
        sequences = [sequence for sequence, _ in found]
        outputs = [self._join(sequences, 1)]
        for which in range(self.kind.states):
            last = [node.emit(_op.expand_dims(state[which], 0)) for _, state in found]
            outputs.append(self._join(last, 0))
        if self.is_batch_first:
            outputs = [
                node.emit(_op.permute_dims(value, [2, 0, 1, 3] if number == 0 else [1, 0, 2]))
                for number, value in enumerate(outputs)
            ]
        return tuple(outputs)

    def _join(self, tensors: Sequence[Any], axis: int) -> Any:
        return tensors[0] if len(tensors) == 1 else self.node.emit(_op.concat(tensors, axis))

    def _run(self, number: int) -> tuple[Any, list[Any]]:
        """Return the outputs of one direction, (step, 1, batch, hidden), and its last state."""
        node, cell = self.node, self._cell(number)
        state = [self._initial(number, position) for position in self._state_inputs()]
        if not self.steps:
            return const(np.zeros((0, 1, self.batch, self.hidden)), self.dtype), state
        inputs = self._split_steps(self._project(number))
        order = range(self.steps)
        if self.direction == "reverse" or number == 1:
            order = order[::-1]
        results: dict[int, Any] = {}
        for step in order:
            new = self.kind.step(cell, inputs[step], state)
            results[step] = new[0]
            if (within := self._within(step)) is not None:
                zero = const(0, self.dtype)
                results[step] = node.emit(_op.where(within, new[0], zero))
                new = [
                    node.emit(_op.where(within, now, old)) for now, old in zip(new, state, strict=True)
                ]
            state = new
        sequence = [node.emit(_op.expand_dims(results[step], [0, 1])) for step in range(self.steps)]
        return self._join(sequence, 0), state

    def _split_steps(self, projected: Any) -> list[Any]:
        """Return each step's part, as a tensor of its own: then all steps have the same kernels."""
        if self.steps == 1:
            return [self.node.emit(_op.squeeze(projected, 0))]
        parts = self.node.emit(_op.split(projected, self.steps, 0))
        fields = [self.node.emit(relax.TupleGetItem(parts, step)) for step in range(self.steps)]
        return [self.node.emit(_op.squeeze(field, 0)) for field in fields]

    def _within(self, step: int) -> Any:
        """Return which sequences, (batch, 1), have this step; None where all have."""
        if self.node.optional(4) is None:
            return None
        lengths = self.node.constant(4)
        if lengths is not None:
            within = lengths.reshape(-1, 1) > step
            return None if within.all() else const(within, "bool")
        lengths = self.node.emit(_op.expand_dims(self.node.required(4), 1))
        return self.node.emit(_op.greater(lengths, const(step, dtype_of(lengths))))

    def _state_inputs(self) -> tuple[int, ...]:
        return (5, 6) if self.kind.states == 2 else (5,)

    def _initial(self, number: int, position: int) -> Any:
        given = self.node.optional(position)
        if given is None:
            return const(np.zeros((self.batch, self.hidden)), self.dtype)
        return self._of_direction(given, number, axis=1 if self.is_batch_first else 0)

    def _of_direction(self, tensor: Any, number: int, axis: int = 0) -> Any:
        """Return the part of a tensor that belongs to a direction."""
        if self.directions > 1:
            tensor = self.node.emit(_op.strided_slice(tensor, [axis], [number], [number + 1]))
        return self.node.emit(_op.squeeze(tensor, axis))

    def _project(self, number: int) -> Any:
        """Return the inputs of the gates, biases included: (step, batch, gates x hidden)."""
        node = self.node
        rows = node.emit(_op.reshape(self.data, [self.steps * self.batch, self.features]))
        projected = self._times_weights(rows, number)
        if node.optional(3) is not None:
            bias, recurrent = self._biases(number)
            if not self._keeps_recurrent_bias():
                bias = node.emit(_op.add(bias, recurrent))
            projected = node.emit(_op.add(projected, bias))
        shape = [self.steps, self.batch, self.kind.num_gates * self.hidden]
        return node.emit(_op.reshape(projected, shape))

    def _times_weights(self, rows: Any, number: int) -> Any:
        weights = self._of_direction(self.node.required(1), number)
        return self.node.emit(_op.matmul(rows, self.node.emit(_op.permute_dims(weights))))

    def _keeps_recurrent_bias(self) -> bool:
        return self.kind is _GRU and bool(self.node.attributes.get("linear_before_reset", 0))

    def _biases(self, number: int) -> tuple[Any, Any]:
        both = self._of_direction(self.node.required(3), number)
        size = self.kind.num_gates * self.hidden
        return (
            self.node.emit(_op.strided_slice(both, [0], [0], [size])),
            self.node.emit(_op.strided_slice(both, [0], [size], [2 * size])),
        )

    def _cell(self, number: int) -> Cell:
        node = self.node
        recurrent = node.emit(_op.permute_dims(self._of_direction(node.required(2), number)))
        bias = None
        if self._keeps_recurrent_bias() and node.optional(3) is not None:
            bias = self._biases(number)[1]
        peepholes = None
        if self.kind is _LSTM and node.optional(7) is not None:
            peepholes = self._of_direction(node.required(7), number)
        activations = _activations(node, self.kind.activations, self.directions)[number]
        return Cell(node, self.hidden, self.dtype, recurrent, bias, peepholes, activations)


class _QuantisedRecurrence(_Recurrence):
    """Converts ONNX Runtime's ``DynamicQuantizeLSTM``, whose weights stand (feature, gates x hidden)."""

    _hidden_axis = 1

    def _times_weights(self, rows: Any, number: int) -> Any:
        return self._product(rows, 1, 8, number)

    def _cell(self, number: int) -> Cell:
        return replace(super()._cell(number), product=lambda state: self._product(state, 2, 10, number))

    def _product(self, data: Any, weights: int, scale: int, number: int) -> Any:
        """Return a product with the weights of a direction; scale and zero point follow each other."""
        inputs = (self.node.optional(place) for place in (weights, scale, scale + 1))
        parts = [None if tensor is None else self._of_direction(tensor, number) for tensor in inputs]
        return dynamic_product(self.node, data, *parts)

    def _of_direction(self, tensor: Any, number: int, axis: int = 0) -> Any:
        value = constant_value(tensor)
        if value is None:
            return super()._of_direction(tensor, number, axis)
        return const(value.take(number, axis), dtype_of(tensor))


# Functions of a tensor and the parameters alpha and beta, with the defaults of these.
_ACTIVATIONS: dict[str, tuple[Callable[..., Any], tuple[float, ...]]] = {
    "relu": (lambda x: _op.nn.relu(x), ()),
    "tanh": (lambda x: _op.tanh(x), ()),
    "sigmoid": (lambda x: _op.sigmoid(x), ()),
    "softsign": (lambda x: _op.divide(x, _op.add(_op.abs(x), const(1, dtype_of(x)))), ()),
    "softplus": (lambda x: _op.nn.softplus(x), ()),
    "affine": (lambda x, a, b: _op.add(_op.multiply(x, _like(a, x)), _like(b, x)), (1.0, 0.0)),
    "leakyrelu": (lambda x, a: _op.nn.leakyrelu(x, a), (0.01,)),
    "thresholdedrelu": (
        lambda x, a: _op.where(_op.greater(x, _like(a, x)), x, _like(0, x)),
        (1.0,),
    ),
    "scaledtanh": (
        lambda x, a, b: _op.multiply(_op.tanh(_op.multiply(x, _like(b, x))), _like(a, x)),
        (1.0, 1.0),
    ),
    "hardsigmoid": (
        lambda x, a, b: _op.clip(_op.add(_op.multiply(x, _like(a, x)), _like(b, x)), 0, 1),
        (0.2, 0.5),
    ),
    "elu": (
        lambda x, a: _op.where(
            _op.less(x, _like(0, x)),
            _op.multiply(_op.subtract(_op.exp(_op.minimum(x, _like(0, x))), _like(1, x)), _like(a, x)),
            x,
        ),
        (1.0,),
    ),
}


def _like(value: float, tensor: Any) -> Any:
    return const(value, dtype_of(tensor))


def _activations(
    node: Node, defaults: tuple[str, ...], directions: int
) -> list[tuple[Callable[[Any], Any], ...]]:
    """Return the functions of each direction; parameters go to those that take them, in order."""
    given = [name.decode() for name in node.attributes.get("activations", ())] or [
        *defaults
    ] * directions
    # RNN declares two by default, whatever its directions are.
    if len(given) < len(defaults) * directions:
        raise node.error(f"expected {len(defaults) * directions} activations; got {len(given)}")
    alphas = list(node.attributes.get("activation_alpha", ()))
    betas = list(node.attributes.get("activation_beta", ()))
    functions = []
    for name in given[: len(defaults) * directions]:
        if name.lower() not in _ACTIVATIONS:
            raise node.error(f"unknown activation {name!r}; known: {', '.join(sorted(_ACTIVATIONS))}")
        function, parameters = _ACTIVATIONS[name.lower()]
        values = [
            list_.pop(0) if list_ else default
            for list_, default in zip((alphas, betas), parameters, strict=False)
        ]
        functions.append(_with(function, values))
    size = len(defaults)
    return [tuple(functions[size * number : size * (number + 1)]) for number in range(directions)]


def _with(function: Callable[..., Any], values: Sequence[float]) -> Callable[[Any], Any]:
    return lambda x: function(x, *values)


CONVERTERS: dict[tuple[str, str], Converter] = {
    (MICROSOFT, "DynamicQuantizeLSTM"): lambda node: _QuantisedRecurrence(node, _LSTM).outputs(),
    (STANDARD, "LSTM"): _converter(_LSTM),
    (STANDARD, "GRU"): _converter(_GRU),
    (STANDARD, "RNN"): _converter(_RNN),
}
