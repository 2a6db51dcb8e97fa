"""Real networks with seeded weights: a branching and a residual CNN, a transformer, a recurrent net."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import onnx
import tvm
from tvm import relax
from tvm.relax.frontend import nn

from tvm_sphinx.frontend.load import demo_onnx_model, load_model, randomize_weights


def light_onnx(name: str) -> onnx.ModelProto:
    """Return one of the ONNX zoo's graphs that the onnx package ships, with seeded weights."""
    (package,) = importlib.util.find_spec("onnx").submodule_search_locations
    model = onnx.load(str(Path(package) / f"backend/test/data/light/light_{name}.onnx"))
    randomize_weights(model, seed=1)
    return model


def inception() -> tvm.IRModule:
    """Inception v1."""
    return load_model(demo_onnx_model())


def branching_cnn() -> tvm.IRModule:
    """SqueezeNet, whose parts have two branches."""
    return load_model(light_onnx("squeezenet"))


def residual_cnn() -> tvm.IRModule:
    """ShuffleNet, with residual additions, groups and depthwise convolutions."""
    return load_model(light_onnx("shufflenet"))


class _BiLstm(nn.Module):
    """A bidirectional LSTM (Hochreiter, Schmidhuber 1997), unrolled, and a dense layer on its states."""

    def __init__(self, steps: int, inputs: int, hidden: int) -> None:
        self.steps, self.hidden = steps, hidden
        self.ahead = nn.Linear(inputs + hidden, 4 * hidden)
        self.back = nn.Linear(inputs + hidden, 4 * hidden)
        self.scores = nn.Linear(2 * hidden, 10)

    def _direction(self, cell: nn.Linear, rows: list[nn.Tensor]) -> list[nn.Tensor]:
        state = memory = nn.op.zeros((1, self.hidden))
        states = []
        for row in rows:
            gates = nn.op.split(cell(nn.op.concat([row, state], dim=1)), 4, axis=1)
            keep, add, show = (nn.op.sigmoid(gate) for gate in gates[:3])
            memory = keep * memory + add * nn.op.tanh(gates[3])
            state = show * nn.op.tanh(memory)
            states.append(state)
        return states

    def forward(self, x: nn.Tensor) -> nn.Tensor:
        rows = list(nn.op.split(x, self.steps, axis=0))
        ahead = self._direction(self.ahead, rows)
        back = self._direction(self.back, rows[::-1])[::-1]
        states = [nn.op.concat([a, b], dim=1) for a, b in zip(ahead, back, strict=True)]
        return nn.op.softmax(self.scores(nn.op.concat(states, dim=0)), axis=-1)


def recurrent_net(steps: int = 6, inputs: int = 16, hidden: int = 24) -> tvm.IRModule:
    """A bidirectional LSTM."""
    return _with_weights(_BiLstm(steps, inputs, hidden), (steps, inputs), seed=3)


class _EncoderLayer(nn.Module):
    """One pre-norm encoder layer (Vaswani et al. 2017)."""

    def __init__(self, width: int, heads: int) -> None:
        self.heads, self.depth = heads, width // heads
        self.query, self.key, self.value, self.output = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: nn.Tensor) -> nn.Tensor:
        batch, length, width = x.shape
        y = self.norm1(x)

        def split(projected: nn.Tensor) -> nn.Tensor:
            return nn.op.permute_dims(
                nn.op.reshape(projected, (batch, length, self.heads, self.depth)), [0, 2, 1, 3]
            )

        query, key, value = split(self.query(y)), split(self.key(y)), split(self.value(y))
        scores = nn.op.matmul(query, nn.op.permute_dims(key, [0, 1, 3, 2])) * (self.depth**-0.5)
        mixed = nn.op.matmul(nn.op.softmax(scores, axis=-1), value)
        merged = nn.op.reshape(nn.op.permute_dims(mixed, [0, 2, 1, 3]), (batch, length, width))
        x = x + self.output(merged)
        return x + self.down(nn.op.gelu(self.up(self.norm2(x))))


class _Encoder(nn.Module):
    def __init__(self, layers: int, width: int, heads: int) -> None:
        self.layers = nn.ModuleList([_EncoderLayer(width, heads) for _ in range(layers)])

    def forward(self, x: nn.Tensor) -> nn.Tensor:
        return self.layers(x)


def transformer(layers: int = 3, length: int = 17, width: int = 48, heads: int = 4) -> tvm.IRModule:
    """An encoder with a length that no vector width divides."""
    return _with_weights(_Encoder(layers, width, heads), (1, length, width), seed=5)


def _with_weights(network: nn.Module, shape: tuple[int, ...], seed: int) -> tvm.IRModule:
    spec = {"forward": {"x": nn.spec.Tensor(shape, "float32")}}
    module, params = network.export_tvm(spec=spec)
    rng = np.random.default_rng(seed)
    weights = {
        name: rng.normal(0, 0.2, [int(extent) for extent in param.shape]).astype(np.float32)
        for name, param in params
    }
    bound = relax.transform.BindParams("forward", weights)(module)
    return tvm.IRModule({"main": bound["forward"].with_attr("global_symbol", "main")})
