"""A small branching network, for what has to be quick."""

from __future__ import annotations

import numpy as np

from tvm_sphinx._tvm import relax, tvm

SHAPE = (1, 8, 12, 12)


def small_network() -> tvm.IRModule:
    """Return four branches of convolutions and pooling, and a dense layer; weights are seeded."""
    rng = np.random.default_rng(0)

    def weight(*shape: int) -> relax.Expr:
        return relax.const((rng.random(shape, dtype="float32") - 0.5) * 0.3)

    def convolve(data: relax.Expr, channels: int, inputs: int, size: int) -> relax.Expr:
        made = relax.op.nn.conv2d(data, weight(channels, inputs, size, size), padding=size // 2)
        return builder.emit(relax.op.nn.relu(made))

    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType(list(SHAPE), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            stem = convolve(x, 16, SHAPE[1], 3)
            branches = [
                convolve(convolve(stem, 8, 16, 1), channels, 8, size)
                for size, channels in ((1, 8), (3, 16), (5, 8))
            ]
            branches.append(
                builder.emit(relax.op.nn.max_pool2d(stem, (3, 3), strides=(1, 1), padding=(1, 1)))
            )
            pooled = builder.emit(relax.op.mean(relax.op.concat(branches, axis=1), axis=[2, 3]))
            scores = builder.emit(relax.op.matmul(pooled, weight(48, 10)))
            output = builder.emit_output(relax.op.nn.softmax(scores))
        builder.emit_func_output(output)
    return builder.get()


def small_input() -> np.ndarray:
    """Return an input, always the same."""
    return np.random.default_rng(1).random(SHAPE, dtype=np.float32)
