"""ONNX Runtime's fused layers of transformers as products, softmax and norms. [TVM]

What its optimiser writes for BERT and GPT-2, and what exporters of decoders write: attention with masks
of all kinds, a past, a bias, one of several outputs; norms of sums; rotations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._tvm import relax
from .onnx_node import MICROSOFT, STANDARD, Converter, Node, cast, const, dtype_of, rank_of, shape_of

_op = relax.op
_LOWEST = -3.4028234663852886e38
_LOWEST_HALF = -65504.0


# -- norms


def _norm_of_sum(node: Node, *, centred: bool) -> tuple[Any, ...]:
    """Return the norm of input plus skip plus bias, and the sum itself as the fourth output."""
    data, skip, gamma = (node.required(position) for position in range(3))
    beta, bias = (node.optional(3), node.optional(4)) if centred else (None, node.optional(3))
    shape = shape_of(node, data, "input")
    if rank_of(skip) < len(shape):
        skip = node.emit(_op.expand_dims(skip, 0))
    total = node.emit(_op.add(data, skip))
    if bias is not None:
        total = node.emit(_op.add(total, bias))
    return _normalised(node, total, gamma, beta, centred=centred), None, None, total


def _normalised(node: Node, data: Any, gamma: Any, beta: Any, *, centred: bool) -> Any:
    epsilon = float(node.attributes.get("epsilon", 1e-12 if centred else 1e-5))
    if not centred:
        return node.emit(_op.nn.rms_norm(data, gamma, axes=[-1], epsilon=epsilon))
    if beta is None:
        beta = const(np.zeros(shape_of(node, gamma, "gamma")), dtype_of(gamma))
    return node.emit(_op.nn.layer_norm(data, gamma, beta, axes=[-1], epsilon=epsilon))


def _skip_layer_norm(node: Node) -> Any:
    return _norm_of_sum(node, centred=True)


def _skip_simplified_layer_norm(node: Node) -> Any:
    return _norm_of_sum(node, centred=False)


def _simplified_layer_norm(node: Node) -> Any:
    data, gamma = node.required(0), node.required(1)
    first = int(node.attributes.get("axis", -1)) % rank_of(data)
    axes = list(range(first, rank_of(data)))
    epsilon = float(node.attributes.get("epsilon", 1e-5))
    return (node.emit(_op.nn.rms_norm(data, gamma, axes=axes, epsilon=epsilon)), None)


def _embed_layer_norm(node: Node) -> Any:
    """Return the norm of summed embeddings, how long each row of the mask is, and the sum."""
    ids, segments = node.required(0), node.optional(1)
    words, positions, of_segments = node.required(2), node.required(3), node.optional(4)
    gamma, beta, mask, places = (node.optional(position) for position in (5, 6, 7, 8))
    batch, steps = shape_of(node, ids, "input_ids")
    if places is None:
        places = const(np.arange(steps)[None], "int32")
    total = node.emit(_op.add(_rows(node, words, ids), _rows(node, positions, places)))
    if segments is not None and of_segments is not None:
        total = node.emit(_op.add(total, _rows(node, of_segments, segments)))
    if mask is None:
        lengths = const(np.zeros(batch), "int32")
    else:
        lengths = node.emit(_op.sum(cast(node, mask, "int32"), [1]))
    return _normalised(node, total, gamma, beta, centred=True), lengths, total


def _rows(node: Node, table: Any, places: Any) -> Any:
    return node.emit(_op.take(table, places, axis=0))


# -- attention


@dataclass(frozen=True)
class _Scores:
    """What is done to the products of queries and keys: a scale, terms that are added, a soft cap."""

    scale: float
    terms: tuple[Any, ...] = ()
    softcap: float = 0.0


def _attend(node: Node, query: Any, key: Any, value: Any, how: _Scores) -> Any:
    """Return [batch, steps, heads x width] of queries, keys and values [batch, heads, steps, width]."""
    dtype = dtype_of(query)
    query = node.emit(_op.multiply(query, const(how.scale, dtype)))
    scores = node.emit(_op.matmul(query, node.emit(_op.permute_dims(key, [0, 1, 3, 2]))))
    if how.softcap:
        capped = node.emit(_op.tanh(node.emit(_op.divide(scores, const(how.softcap, dtype)))))
        scores = node.emit(_op.multiply(capped, const(how.softcap, dtype)))
    for term in how.terms:
        scores = node.emit(_op.add(scores, cast(node, term, dtype)))
    found = node.emit(_op.matmul(node.emit(_op.nn.softmax(scores, -1)), value))
    batch, heads, steps, width = shape_of(node, found, "attention")
    found = node.emit(_op.permute_dims(found, [0, 2, 1, 3]))
    return node.emit(_op.reshape(found, [batch, steps, heads * width]))


def _heads(node: Node, data: Any, heads: int) -> Any:
    """Return [batch, heads, steps, width] of [batch, steps, heads x width]."""
    batch, steps, width = shape_of(node, data, "queries, keys and values")
    if width % heads:
        raise node.error(f"expected a width that {heads} heads divide; got {width}")
    split = node.emit(_op.reshape(data, [batch, steps, heads, width // heads]))
    return node.emit(_op.permute_dims(split, [0, 2, 1, 3]))


def _lowest(dtype: str) -> float:
    return _LOWEST_HALF if dtype == "float16" else _LOWEST


def _causal(steps: int, total: int, dtype: str) -> Any:
    """Return a term that hides what comes after each step."""
    places = np.arange(total)[None] > np.arange(steps)[:, None] + (total - steps)
    return const(np.where(places, _lowest(dtype), 0)[None, None], dtype)


def _mask_term(node: Node, mask: Any, batch: int, steps: int, total: int, dtype: str) -> Any:
    """Return a term for a mask of any kind: lengths, ends and starts, or zeros where nothing is seen."""
    hidden = float(node.attributes.get("mask_filter_value", -10000.0))
    shape = shape_of(node, mask, "a mask")
    if len(shape) == 4 and shape[:2] == [batch, 1] and shape[2] == shape[3] >= total:
        if int(node.attributes.get("unidirectional", 0)):
            raise node.error("expected no mask of four axes beside unidirectional = 1")
        # All steps that there might be: these are the last of those so far.
        mask = node.emit(_op.strided_slice(mask, [2, 3], [total - steps, 0], [total, total]))
        mask = node.emit(_op.reshape(mask, [batch, steps, total]))
        shape = [batch, steps, total]
    kinds = {
        (batch, total): (batch, 1, 1, total),
        (1, total): (1, 1, 1, total),
        (batch, steps, total): (batch, 1, steps, total),
        (1, steps, total): (1, 1, steps, total),
    }
    if tuple(shape) in kinds and not (shape == [batch] or shape == [2 * batch]):
        seen = node.emit(_op.greater(mask, const(0, dtype_of(mask))))
        seen = node.emit(_op.reshape(seen, list(kinds[tuple(shape)])))
    elif shape in ([batch], [2 * batch]):
        places = const(np.arange(total)[None], dtype_of(mask))
        ends = node.emit(_op.strided_slice(mask, [0], [0], [batch]))
        seen = node.emit(_op.less(places, node.emit(_op.reshape(ends, [batch, 1]))))
        if shape != [batch]:
            starts = node.emit(_op.strided_slice(mask, [0], [batch], [2 * batch]))
            after = node.emit(_op.greater_equal(places, node.emit(_op.reshape(starts, [batch, 1]))))
            seen = node.emit(_op.logical_and(seen, after))
        seen = node.emit(_op.reshape(seen, [batch, 1, 1, total]))
    else:
        raise node.error(
            f"expected a mask of shape [{batch}], [{2 * batch}], [{batch}, {total}], "
            f"[{batch}, {steps}, {total}] or [{batch}, 1, M, M] with M >= {total}; got {shape}"
        )
    return node.emit(_op.where(seen, const(0, dtype), const(hidden, dtype)))


def _refuse(node: Node, inputs: dict[str, int], attributes: tuple[str, ...] = ()) -> None:
    """Refuse inputs and attributes that change what is computed in ways that are not known here."""
    for name, position in inputs.items():
        if node.optional(position) is not None:
            raise node.error(f"its input {name!r} is not known")
    for name in attributes:
        if int(node.attributes.get(name, 0)) not in (0, -1):
            raise node.error(f"its attribute {name} = {node.attributes[name]} is not known")


def _scale_of(node: Node, width: int) -> float:
    """Return the factor of the products: where 0 is given, or nothing, that of the width."""
    return float(node.attributes.get("scale", 0.0)) or 1 / math.sqrt(width)


def _scores(
    node: Node, mask: Any, extra: Any, sizes: tuple[int, int, int], dtype: str, width: int
) -> _Scores:
    """Return what a node does to its products: a mask, what comes after each step, what it is given.

    ``sizes`` are the batch, the steps and all keys; ``width`` is that of a head.
    """
    _, steps, total = sizes
    terms = [] if mask is None else [_mask_term(node, mask, *sizes, dtype)]
    if int(node.attributes.get("unidirectional", 0)):
        terms.append(_causal(steps, total, dtype))
    if extra is not None:
        terms.append(extra)
    return _Scores(_scale_of(node, width), tuple(terms))


def _attention(node: Node) -> Any:
    """Convert Attention: one product makes queries, keys and values, which may come after a past."""
    _refuse(node, {"past_sequence_length": 6}, ("past_present_share_buffer",))
    if int(node.attributes.get("do_rotary", 0)):
        raise node.error(
            "its attribute do_rotary = 1 is not known; write the rotations as RotaryEmbedding before "
            "MultiHeadAttention"
        )
    data, weights, bias = node.required(0), node.required(1), node.optional(2)
    mask, past, extra = (node.optional(position) for position in (3, 4, 5))
    heads, dtype = int(node.attributes["num_heads"]), dtype_of(data)
    batch, steps, _ = shape_of(node, data, "input")
    width = shape_of(node, weights, "weights")[1]
    sizes = [int(size) for size in node.attributes.get("qkv_hidden_sizes", ())] or [width // 3] * 3
    if sum(sizes) != width or sizes[0] != sizes[1]:
        raise node.error(f"expected three widths of {width} in all, the first two alike; got {sizes}")
    made = node.emit(_op.matmul(data, weights))
    if bias is not None:
        made = node.emit(_op.add(made, bias))
    parts = node.emit(_op.split(made, np.cumsum(sizes)[:2].tolist(), 2))
    query, key, value = (
        _heads(node, node.emit(relax.TupleGetItem(parts, place)), heads) for place in range(3)
    )
    if past is not None:
        pair = [node.emit(_op.strided_slice(past, [0], [n], [n + 1])) for n in (0, 1)]
        key, value = (
            node.emit(_op.concat([node.emit(_op.squeeze(old, [0])), new], 2))
            for old, new in zip(pair, (key, value), strict=True)
        )
    total = shape_of(node, key, "keys")[2]
    how = _scores(node, mask, extra, (batch, steps, total), dtype, sizes[0] // heads)
    found = _attend(node, query, key, value, how)
    if node.num_outputs < 2:
        return found
    both = [node.emit(_op.expand_dims(each, 0)) for each in (key, value)]
    return found, node.emit(_op.concat(both, 0))


def _multi_head_attention(node: Node) -> Any:
    """Convert MultiHeadAttention, whose queries, keys and values are there already, or packed."""
    _refuse(node, {"past_sequence_length": 8, "cache_indirection": 9})
    heads = int(node.attributes["num_heads"])
    query, key, value = node.required(0), node.optional(1), node.optional(2)
    bias, padding, extra = (node.optional(position) for position in (3, 4, 5))
    past = node.optional(6), node.optional(7)
    dtype = dtype_of(query)
    query, key, value = _unpacked(node, query, key, value)
    if rank_of(query) != 3:
        raise node.error(
            f"expected queries [batch, steps, width], or [batch, steps, {heads}, 3, width] with keys "
            f"and values in them; got {query.ty}"
        )
    batch, steps, width = shape_of(node, query, "query")
    parts = [query, key, value]
    if bias is not None:
        widths = [width, width, shape_of(node, bias, "bias")[0] - 2 * width]
        cuts = [0, *np.cumsum(widths).tolist()]
        for place, part in enumerate(parts):
            if rank_of(part) == 3:
                own = node.emit(_op.strided_slice(bias, [0], [cuts[place]], [cuts[place + 1]]))
                parts[place] = node.emit(_op.add(part, own))
    query, key, value = (part if rank_of(part) == 4 else _heads(node, part, heads) for part in parts)
    if past[0] is not None and past[1] is not None:
        key, value = (
            node.emit(_op.concat([old, new], 2)) for old, new in zip(past, (key, value), strict=True)
        )
    total = shape_of(node, key, "keys")[2]
    how = _scores(node, padding, extra, (batch, steps, total), dtype, width // heads)
    return _attend(node, query, key, value, how), key, value, None


def _unpacked(node: Node, query: Any, key: Any, value: Any) -> tuple[Any, Any, Any]:
    """Return queries, keys and values [batch, steps, width], which may be packed head by head.

    That is queries [batch, steps, heads, 3, width], or keys [batch, steps, heads, 2, width].
    """
    if key is None and value is None and rank_of(query) == 5:
        query, key, value = _each_packed(node, query, 3)
    elif key is not None and value is None and rank_of(key) == 5:
        key, value = _each_packed(node, key, 2)
    if key is None or value is None:
        raise node.error("expected keys and values, or queries or keys that hold them")
    return query, key, value


def _each_packed(node: Node, packed: Any, count: int) -> list[Any]:
    batch, steps, heads, held, width = shape_of(node, packed, "packed queries, keys and values")
    if heads != int(node.attributes["num_heads"]) or held != count:
        raise node.error(
            f"expected a packed tensor [batch, steps, {node.attributes['num_heads']}, {count}, width]; "
            f"got {[batch, steps, heads, held, width]}"
        )
    parts = [node.emit(_op.strided_slice(packed, [3], [at], [at + 1])) for at in range(count)]
    return [node.emit(_op.reshape(part, [batch, steps, heads * width])) for part in parts]


def _group_query_attention(node: Node) -> Any:
    """Convert GroupQueryAttention: fewer keys than queries, a past in a buffer, rotations."""
    _refuse(
        node,
        {"position_ids": 9, "head_sink": 11, "k_scale": 12, "v_scale": 13, "q_norm_weight": 14,
         "k_norm_weight": 15, "query_seqlens": 16},
        ("smooth_softmax", "qk_output", "kv_cache_bit_width", "sliding_window_cache"),
    )  # fmt: skip
    if not int(node.attributes.get("causal", 1)):
        raise node.error("one that looks ahead is not known")
    heads, groups = int(node.attributes["num_heads"]), int(node.attributes["kv_num_heads"])
    query, key, value = node.required(0), node.optional(1), node.optional(2)
    past = node.optional(3), node.optional(4)
    lengths, extra = node.required(5), node.optional(10)
    total_given = node.constant(6)
    dtype = dtype_of(query)
    batch, steps, width = shape_of(node, query, "query")
    if key is None or value is None:
        size = width // (heads + 2 * groups)
        parts = node.emit(_op.split(query, [heads * size, (heads + groups) * size], 2))
        query, key, value = (node.emit(relax.TupleGetItem(parts, place)) for place in range(3))
    query, key, value = (
        _heads(node, query, heads), _heads(node, key, groups), _heads(node, value, groups)
    )  # fmt: skip
    held = shape_of(node, past[0], "past_key")[2] if past[0] is not None else 0
    if held and total_given is None:
        raise node.error("expected a total_sequence_length that is known")
    total = int(np.asarray(total_given).reshape(-1)[0]) if total_given is not None else steps
    present = max(held, total)
    # How many steps came before these, by batch; a prompt that is all there is comes first.
    before = const(np.zeros((batch, 1)), "int64")
    if steps != total:
        ends = node.emit(_op.reshape(cast(node, lengths, "int64"), [batch, 1]))
        before = node.emit(_op.add(ends, const(1 - steps, "int64")))
    places = node.emit(_op.add(before, const(np.arange(steps)[None], "int64")))
    if int(node.attributes.get("do_rotary", 0)):
        tables = node.required(7), node.required(8)
        interleaved = bool(int(node.attributes.get("rotary_interleaved", 0)))
        turned = [_rotated(node, each, places, tables, interleaved) for each in (query, key)]
        query, key = turned
    if held:
        key, value = (
            _in_buffer(node, old, new, before, present)
            for old, new in zip(past, (key, value), strict=True)
        )
    elif present != steps:
        raise node.error(f"expected a past for {present} steps of which {steps} are given")
    columns = const(np.arange(present)[None, None], "int64")
    rows = node.emit(_op.reshape(places, [batch, steps, 1]))
    seen = node.emit(_op.less_equal(columns, rows))
    window = int(node.attributes.get("local_window_size", -1))
    if window > 0:
        least = node.emit(_op.subtract(rows, const(window, "int64")))
        seen = node.emit(_op.logical_and(seen, node.emit(_op.greater(columns, least))))
    hidden = node.emit(_op.where(seen, const(0, dtype), const(_lowest(dtype), dtype)))
    terms = [node.emit(_op.reshape(hidden, [batch, 1, steps, present]))]
    if extra is not None:
        terms.insert(0, extra)
    wide = [_repeated(node, each, heads // groups) for each in (key, value)]
    softcap = float(node.attributes.get("softcap", 0.0))
    how = _Scores(_scale_of(node, shape_of(node, query, "query")[3]), tuple(terms), softcap)
    return _attend(node, query, wide[0], wide[1], how), key, value, None


def _in_buffer(node: Node, old: Any, new: Any, before: Any, present: int) -> Any:
    """Return a buffer of ``present`` steps: the old ones before a place, from there on the new ones."""
    batch, groups, held, size = shape_of(node, old, "a past")
    steps = shape_of(node, new, "keys")[2]
    joined = node.emit(_op.concat([old, new], 2))
    columns = const(np.arange(present)[None], "int64")
    after = node.emit(_op.add(node.emit(_op.subtract(columns, before)), const(held, "int64")))
    after = node.emit(_op.minimum(after, const(held + steps - 1, "int64")))
    place = node.emit(_op.where(node.emit(_op.less(columns, before)), columns, after))
    place = node.emit(_op.reshape(place, [batch, 1, present, 1]))
    place = node.emit(_op.broadcast_to(place, [batch, groups, present, size]))
    return node.emit(_op.gather_elements(joined, place, 2))


def _repeated(node: Node, data: Any, times: int) -> Any:
    """Return each head so many times, one after the other."""
    return data if times == 1 else node.emit(_op.repeat(data, times, 1))


def _rotated(node: Node, data: Any, places: Any, tables: tuple[Any, Any], interleaved: bool) -> Any:
    """Return [batch, heads, steps, width] of which pairs are turned by the angles of their places.

    Parameters
    ----------
    places
        int64 [batch, steps], rows of the tables.
    tables
        Cosines and sines [places, pairs]; what is behind twice as many elements stays.
    """
    batch, heads, steps, width = shape_of(node, data, "data to rotate")
    pairs = shape_of(node, tables[0], "cosines")[1]
    cos, sin = (node.emit(_op.expand_dims(_rows(node, table, places), 1)) for table in tables)

    def part(begin: int, end: int, step: int = 1) -> Any:
        return node.emit(_op.strided_slice(data, [3], [begin], [end], [step]))

    bounds = [(0, 2 * pairs, 2), (1, 2 * pairs, 2)] if interleaved else [(0, pairs), (pairs, 2 * pairs)]
    first, second = (part(*bound) for bound in bounds)

    def product(left: Any, right: Any) -> Any:
        return node.emit(_op.multiply(left, right))

    turned = [
        node.emit(_op.subtract(product(first, cos), product(second, sin))),
        node.emit(_op.add(product(first, sin), product(second, cos))),
    ]
    if interleaved:
        turned = [node.emit(_op.stack(turned, 4))]
        turned = [node.emit(_op.reshape(turned[0], [batch, heads, steps, 2 * pairs]))]
    if 2 * pairs < width:
        turned.append(part(2 * pairs, width))
    return turned[0] if len(turned) == 1 else node.emit(_op.concat(turned, 3))


def _rotary_embedding(node: Node) -> Any:
    """Convert RotaryEmbedding of [batch, steps, width] or [batch, heads, steps, width]."""
    _refuse(node, {}, ("is_packed_batching",))
    data, places = node.required(0), node.required(1)
    tables = node.required(2), node.required(3)
    shape = shape_of(node, data, "input")
    pairs = shape_of(node, tables[0], "cosines")[1]
    turned = int(node.attributes.get("rotary_embedding_dim", 0))
    heads = int(node.attributes.get("num_heads", 0)) if turned else shape[-1] // (2 * pairs)
    if rank_of(data) == 3:
        if not heads:
            raise node.error("expected num_heads beside rotary_embedding_dim")
        data = _heads(node, data, heads)
    batch, _, steps, _ = shape_of(node, data, "input")
    places = cast(node, places, "int64")
    if rank_of(places) == 1:
        places = node.emit(_op.add(places, const(np.arange(steps), "int64")))
        places = node.emit(_op.broadcast_to(places, [batch, steps]))
    interleaved = bool(int(node.attributes.get("interleaved", 0)))
    found = _rotated(node, data, places, tables, interleaved)
    if len(shape) == 3:
        found = node.emit(_op.reshape(node.emit(_op.permute_dims(found, [0, 2, 1, 3])), shape))
    return found


# -- small ones


def _quick_gelu(node: Node) -> Any:
    data = node.required(0)
    alpha = const(float(node.attributes.get("alpha", 1.702)), dtype_of(data))
    return node.emit(_op.multiply(data, node.emit(_op.sigmoid(node.emit(_op.multiply(data, alpha))))))


def _fused_matmul(node: Node) -> Any:
    """Convert FusedMatMul: either operand may be transposed, the product scaled."""
    _refuse(node, {}, ("transBatchA", "transBatchB"))
    operands = []
    for position, name in enumerate(("transA", "transB")):
        data = node.required(position)
        if int(node.attributes.get(name, 0)) and rank_of(data) > 1:
            order = list(range(rank_of(data)))
            order[-2:] = order[:-3:-1]
            data = node.emit(_op.permute_dims(data, order))
        operands.append(data)
    made = node.emit(_op.matmul(*operands))
    alpha = float(node.attributes.get("alpha", 1.0))
    return made if alpha == 1.0 else node.emit(_op.multiply(made, const(alpha, dtype_of(made))))


CONVERTERS: dict[tuple[str, str], Converter] = {
    (MICROSOFT, "SkipLayerNormalization"): _skip_layer_norm,
    (MICROSOFT, "SkipSimplifiedLayerNormalization"): _skip_simplified_layer_norm,
    (MICROSOFT, "EmbedLayerNormalization"): _embed_layer_norm,
    (MICROSOFT, "Attention"): _attention,
    (MICROSOFT, "MultiHeadAttention"): _multi_head_attention,
    (MICROSOFT, "GroupQueryAttention"): _group_query_attention,
    (MICROSOFT, "RotaryEmbedding"): _rotary_embedding,
    (MICROSOFT, "QuickGelu"): _quick_gelu,
    (MICROSOFT, "FusedMatMul"): _fused_matmul,
    (STANDARD, "SimplifiedLayerNormalization"): _simplified_layer_norm,
}
