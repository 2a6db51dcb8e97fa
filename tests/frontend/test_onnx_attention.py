"""ONNX Runtime's fused layers of transformers beside ONNX Runtime, as the fuzzer draws them."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import onnx
import pytest

from tests.frontend.evaluate import evaluate, make_model, onnx_runtime
from tests.fuzz.graph import Graph, RejectedError
from tests.fuzz.microsoft import DRAWS
from tests.fuzz.run import difference
from tvm_sphinx.errors import ModelError
from tvm_sphinx.frontend.load import load_model, read_source

_DRAWN = 5
_MOST_SEEDS = 40


def drawn(op: str) -> list[Graph]:
    """Return some graphs of one node that ONNX Runtime takes."""
    found: list[Graph] = []
    for seed in range(_MOST_SEEDS):
        graph = Graph(np.random.default_rng(seed))
        graph.has_special = False
        try:
            DRAWS[op](graph)
        except RejectedError:
            continue
        found.append(graph)
        if len(found) == _DRAWN:
            break
    return found


@pytest.mark.parametrize(
    "op",
    "SkipLayerNormalization SkipSimplifiedLayerNormalization SimplifiedLayerNormalization "
    "EmbedLayerNormalization com.microsoft.Attention MultiHeadAttention GroupQueryAttention "
    "com.microsoft.RotaryEmbedding QuickGelu FusedMatMul".split(),
)
def test_layers_come_out_as_in_onnx_runtime(op: str) -> None:
    graphs = drawn(op)
    assert len(graphs) == _DRAWN
    for graph in graphs:
        assert difference(evaluate(graph.model(), graph.feeds()), graph.expected()) == ""


def attention(inputs: dict[str, Any], weights: dict[str, Any], **attributes: Any) -> onnx.ModelProto:
    names = ["x", "w", "b", "mask" if "mask" in inputs else "", "past" if "past" in inputs else ""]
    node = onnx.helper.make_node(
        "Attention", names, ["y", "present"], name="attend", domain="com.microsoft", **attributes
    )
    return make_model([node], inputs, ["y", "present"], weights)


def test_attention_as_the_optimiser_writes_it_for_a_decoder() -> None:
    """One direction, a past, and a mask that hides the first steps of one of the rows."""
    rng = np.random.default_rng(0)
    mask = np.ones((2, 5), np.int32)
    mask[1, :2] = 0
    feeds = {
        "x": rng.normal(size=(2, 2, 6)).astype(np.float32),
        "past": rng.normal(size=(2, 2, 3, 3, 4)).astype(np.float32),
        "mask": mask,
    }
    weights = {
        "w": rng.normal(size=(6, 36)).astype(np.float32),
        "b": rng.normal(size=36).astype(np.float32),
    }
    model = attention(feeds, weights, num_heads=3, unidirectional=1)
    for ours, theirs in zip(evaluate(model, feeds), onnx_runtime(model, feeds), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("past", [0, 3])
def test_a_mask_over_all_steps_that_there_might_be(past: int) -> None:
    """ONNX Runtime has it on GPUs alone; its CPU takes the rows and columns that are meant."""
    rng = np.random.default_rng(1)
    mask = (rng.random((2, 1, 8, 8)) < 0.7).astype(np.int32)
    feeds: dict[str, Any] = {"x": rng.normal(size=(2, 2, 6)).astype(np.float32), "mask": mask}
    if past:
        feeds["past"] = rng.normal(size=(2, 2, 3, past, 4)).astype(np.float32)
    weights = {
        "w": rng.normal(size=(6, 36)).astype(np.float32),
        "b": rng.normal(size=36).astype(np.float32),
    }
    plain = {**feeds, "mask": np.ascontiguousarray(mask[:, 0, past : past + 2, : past + 2])}
    ours = evaluate(attention(feeds, weights, num_heads=3), feeds)
    for mine, right in zip(
        ours, onnx_runtime(attention(plain, weights, num_heads=3), plain), strict=True
    ):
        np.testing.assert_allclose(mine, right, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("packs", ["queries", "keys"])
@pytest.mark.parametrize("has_bias", [False, True])
def test_packed_keys_and_values(packs: str, has_bias: bool) -> None:
    """ONNX Runtime has them on GPUs alone; its CPU takes the parts."""
    rng = np.random.default_rng(2)
    parts = [rng.normal(size=(2, 4, 3, 8)).astype(np.float32) for _ in range(3)]
    bias = {"b": rng.normal(size=72).astype(np.float32)} if has_bias else {}
    flat = {name: part.reshape(2, 4, 24) for name, part in zip("qkv", parts, strict=True)}
    if packs == "queries":
        feeds, names = {"q": np.stack(parts, 3)}, ["q", "", ""]
    else:
        feeds, names = {"q": flat["q"], "k": np.stack(parts[1:], 3)}, ["q", "k", ""]

    def model(inputs: list[str], given: dict[str, Any]) -> onnx.ModelProto:
        node = onnx.helper.make_node(
            "MultiHeadAttention", [*inputs, *bias], ["y"], domain="com.microsoft", num_heads=3
        )
        return make_model([node], given, ["y"], bias)

    (ours,) = evaluate(model(names, feeds), feeds)
    (right,) = onnx_runtime(model(["q", "k", "v"], flat), flat)
    np.testing.assert_allclose(ours, right, rtol=1e-4, atol=1e-5)
    if packs == "keys":
        feeds["k"] = feeds["k"][:, :, :2]
        with pytest.raises(
            ModelError, match=r"a packed tensor \[batch, steps, 3, 2, width\]; got \[2, 4, 2"
        ):
            load_model(model(names, feeds))


def test_what_is_not_known_is_refused_by_name() -> None:
    feeds = {"x": np.zeros((1, 2, 6), np.float32)}
    weights = {"w": np.zeros((6, 36), np.float32), "b": np.zeros(36, np.float32)}
    with pytest.raises(ModelError, match=r"'attend'.*do_rotary = 1 is not known") as caught:
        load_model(attention(feeds, weights, num_heads=3, do_rotary=1))
    assert "\n" not in str(caught.value)
    feeds["mask"] = np.zeros((1, 1, 1, 1), np.int32)
    with pytest.raises(ModelError, match=r"a mask of shape \[1\], .* got \[1, 1, 1, 1\]"):
        load_model(attention(feeds, weights, num_heads=3))


def test_a_branch_that_does_not_fit_names_the_choice_and_the_way_out() -> None:
    """Of a model for two rates, whose branch for the other one takes inputs of another shape."""
    narrow = onnx.helper.make_node("Squeeze", ["x", "axes"], ["t"], name="narrow")
    branches = {
        name: onnx.helper.make_graph(
            [node], name, [], [onnx.helper.make_empty_tensor_value_info(node.output[0])]
        )
        for name, node in (
            ("then_branch", onnx.helper.make_node("Identity", ["x"], ["e"])),
            ("else_branch", narrow),
        )
    }
    nodes = [
        onnx.helper.make_node("Equal", ["rate", "wanted"], ["is_wanted"]),
        onnx.helper.make_node("If", ["is_wanted"], ["y"], name="choose", **branches),
    ]
    feeds = {"x": np.ones((2, 3), np.float32), "rate": np.asarray(16_000)}
    weights = {"wanted": np.asarray(16_000), "axes": np.asarray([0])}
    model = make_model(nodes, feeds, ["y"], weights)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # onnx cannot infer the types of what does not fit
        with pytest.raises(
            ModelError, match=r"branch of the If 'choose', whose condition 'is_wanted'.*--fix-input"
        ):
            load_model(model)
        # What the message proposes.
        (found,) = evaluate(read_source(model, {"rate": 16_000}), {"x": feeds["x"]})
    np.testing.assert_array_equal(found, feeds["x"])
