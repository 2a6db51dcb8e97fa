"""Torch operators that neither TVM's importer nor torch's tables take apart, in simpler operators."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.utils import _pytree as pytree

from ..errors import ModelError
from .torch_special import FORMULAS as SPECIAL

Tensor = Any

_aten, _prims = torch.ops.aten, torch.ops.prims
_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


# -- of single elements


def _signbit(x: Tensor) -> Tensor:
    if not x.dtype.is_floating_point:
        return x < 0 if x.dtype.is_signed else torch.zeros_like(x, dtype=torch.bool)
    if x.dtype == torch.bfloat16:
        x = x.to(torch.float32)
    return x.view(_BITS[x.dtype.itemsize]) < 0


def _copysign(x: Tensor, sign: Any) -> Tensor:
    dtype = torch.result_type(x, sign)
    dtype = dtype if dtype.is_floating_point else torch.get_default_dtype()
    if not isinstance(sign, torch.Tensor):
        sign = torch.full_like(x, sign, dtype=dtype)
    size = x.to(dtype).abs()
    return torch.where(torch.signbit(sign), -size, size)


def _fmax(x: Tensor, y: Tensor) -> Tensor:
    return torch.where((x >= y) | torch.isnan(y), x, y)


def _fmin(x: Tensor, y: Tensor) -> Tensor:
    return torch.where((x <= y) | torch.isnan(y), x, y)


def _nextafter(x: Tensor, y: Tensor) -> Tensor:
    if x.dtype not in (torch.float32, torch.float64):
        raise ModelError(f"nextafter in {x.dtype} has no counterpart in TVM.")
    x, y = torch.broadcast_tensors(x, y)
    bits = _BITS[x.dtype.itemsize]
    number = x.view(bits)
    moved = torch.where((y > x) == (x > 0), number + 1, number - 1)
    least = torch.where(
        y > 0, torch.ones_like(number), torch.full_like(number, torch.iinfo(bits).min + 1)
    )
    found = torch.where(x == 0, least, moved).view(x.dtype)
    return torch.where(torch.isnan(x) | torch.isnan(y), x + y, torch.where(x == y, y, found))


def _frexp(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mantissa and exponent, from the bits of a double."""
    wide = x.to(torch.float64)
    is_tiny = wide.abs() < 2.0**-1000
    bits = torch.where(is_tiny, wide * 2.0**100, wide).view(torch.int64)
    exponent = ((bits >> 52) & 0x7FF) - 1022 - torch.where(is_tiny, 100, 0)
    mantissa = ((bits & ~(0x7FF << 52)) | (1022 << 52)).view(torch.float64)
    is_kept = (x == 0) | ~torch.isfinite(x)
    exponent = torch.where(is_kept, torch.zeros_like(exponent), exponent)
    return torch.where(is_kept, x, mantissa.to(x.dtype)), exponent.to(torch.int32)


def _angle(x: Tensor) -> Tensor:
    dtype = x.dtype if x.dtype.is_floating_point else torch.get_default_dtype()
    half_turn = torch.full((), math.pi, dtype=dtype)  # a number by itself would be of single precision
    found = torch.where(x < 0, half_turn, torch.zeros_like(half_turn))
    return torch.where(torch.isnan(x), x, found) if x.dtype.is_floating_point else found


def _rrelu(
    x: Tensor,
    noise: Tensor,
    lower: float = 0.125,
    upper: float = 1 / 3,
    training: bool = False,
    _: Any = None,
) -> tuple[Tensor, Tensor]:
    if training:
        raise ModelError("rrelu draws numbers while training; export the model in eval mode.")
    return torch.where(x <= 0, x * ((lower + upper) / 2), x), noise


# -- along an axis


def _unfold(x: Tensor, dim: int, size: int, step: int) -> Tensor:
    """Return windows along an axis, their elements along a last one."""
    if not x.dim():
        return x.reshape(1)[:size]
    dim %= x.dim()
    begins = torch.arange(0, x.shape[dim] - size + 1, step, device=x.device)
    places = (begins[:, None] + torch.arange(size, device=x.device)).reshape(-1)
    windows = torch.index_select(x, dim, places).unflatten(dim, (begins.shape[0], size))
    return windows.movedim(dim + 1, -1)


def _scanned(
    combine: Callable[..., list[Tensor]], tensors: list[Tensor], dim: int, extent: int
) -> list[Tensor]:
    """Return inclusive scans of an associative function of tensors, in log2 of the extent steps."""
    step = 1
    while step < extent:
        before = [each.narrow(dim, 0, extent - step) for each in tensors]
        after = [each.narrow(dim, step, extent - step) for each in tensors]
        made = combine(before, after)
        tensors = [
            torch.cat([each.narrow(dim, 0, step), new], dim)
            for each, new in zip(tensors, made, strict=True)
        ]
        step *= 2
    return tensors


def _cumulative(*, most: bool) -> Callable[..., tuple[Tensor, Tensor]]:
    """Return ``cummax`` or ``cummin``: of equal numbers the last one counts, and NaN from there on."""

    def convert(x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
        if not x.dim():
            return x.clone(), torch.zeros_like(x, dtype=torch.int64)
        dim %= x.dim()
        shape = [-1 if axis == dim else 1 for axis in range(x.dim())]
        places = torch.arange(x.shape[dim]).reshape(shape).expand(x.shape)

        def later(before: list[Tensor], after: list[Tensor]) -> list[Tensor]:
            (x, i), (y, j) = before, after
            takes = y >= x if most else y <= x
            if x.dtype.is_floating_point:
                takes = torch.isnan(y) | (takes & torch.logical_not(torch.isnan(x)))
            return [torch.where(takes, y, x), torch.where(takes, j, i)]

        # Bools have no order in TVM.
        found, at = _scanned(later, [_ordered(x), places], dim, x.shape[dim])
        return found.to(x.dtype), at.clone()

    return convert


def _ordered(x: Tensor) -> Tensor:
    return x.to(torch.int8) if x.dtype == torch.bool else x


def _logcumsumexp(x: Tensor, dim: int) -> Tensor:
    if not x.dim():
        return x.clone()
    wide = x.to(torch.float32) if x.dtype.itemsize < 4 else x

    def added(before: list[Tensor], after: list[Tensor]) -> list[Tensor]:
        (x,), (y,) = before, after
        most = torch.where(x >= y, x, y)
        gap = torch.where(x == y, torch.zeros_like(x), -(x - y).abs())
        return [most + torch.log1p(torch.exp(gap))]

    return _scanned(added, [wide], dim % x.dim(), x.shape[dim])[0].to(x.dtype)


def _kthvalue(x: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    if not x.dim():
        return x.clone(), torch.zeros_like(x, dtype=torch.int64)
    values, places = torch.sort(x, dim)
    if keepdim:
        return values.narrow(dim, k - 1, 1), places.narrow(dim, k - 1, 1)
    return values.select(dim, k - 1), places.select(dim, k - 1)


def _nanmedian(x: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    """Return the lower median of what is no NaN, and where it is."""
    if not x.dim():
        return tuple(_of_scalar(torch.median)(x, 0))
    if not x.dtype.is_floating_point:
        return tuple(torch.median(x, dim, keepdim))
    is_nan = torch.isnan(x)
    values, places = torch.sort(torch.where(is_nan, torch.full_like(x, math.inf), x), dim)
    count = torch.logical_not(is_nan).to(torch.int64).sum(dim, keepdim=True)
    middle = torch.clamp((count - 1) // 2, min=0)
    found, at = values.gather(dim, middle), places.gather(dim, middle)
    found = torch.where(count == 0, torch.full_like(found, math.nan), found)
    return (found, at) if keepdim else (found.squeeze(dim), at.squeeze(dim))


def _histc(x: Tensor, bins: int = 100, min: float = 0, max: float = 0) -> Tensor:
    x = x.reshape(-1)
    if min == max:
        low, high = x.amin(), x.amax()
        low, high = torch.where(low == high, low - 1, low), torch.where(low == high, high + 1, high)
    else:
        low, high = torch.full((), min, dtype=x.dtype), torch.full((), max, dtype=x.dtype)
    place = torch.floor((x - low) / (high - low) * bins).to(torch.int64)
    place = torch.where(place == bins, bins - 1, place)
    is_in = (x >= low) & (x <= high)
    hits = (place[:, None] == torch.arange(bins)) & is_in[:, None]
    return hits.to(x.dtype).sum(0)


def _searchsorted(
    edges: Tensor,
    values: Tensor,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Tensor | None = None,
) -> Tensor:
    """Return how many edges come before each value; NaN comes after all."""
    if sorter is not None:
        edges = edges.gather(-1, sorter)
    right = right or side == "right"
    if edges.dim() > 1:
        edges = edges.unsqueeze(-2)
    given = values.unsqueeze(-1)
    before = torch.logical_not(edges > given if right else edges >= given)
    return before.sum(-1).to(torch.int32 if out_int32 else torch.int64)


def _searchsorted_of_number(edges: Tensor, value: Any, **options: Any) -> Tensor:
    return _searchsorted(edges, torch.full((), value, dtype=edges.dtype), **options)


# -- distances and products


def _cdist(left: Tensor, right: Tensor, p: float, _: Any = None) -> Tensor:
    gaps = left.unsqueeze(-2) - right.unsqueeze(-3)
    return torch.linalg.vector_norm(gaps, p, -1)


def _pdist(x: Tensor, p: float = 2.0) -> Tensor:
    row, column = torch.triu_indices(x.shape[0], x.shape[0], 1)
    return torch.linalg.vector_norm(x[row] - x[column], p, -1)


def _addmv(base: Tensor, matrix: Tensor, vector: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    return _sum_of(base, torch.mv(matrix, vector), beta, alpha)


def _addbmm(base: Tensor, left: Tensor, right: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    if base.dtype in (torch.float16, torch.bfloat16):  # torch adds up in single precision
        wide = (each.to(torch.float32) for each in (base, left, right))
        return _addbmm(*wide, beta=beta, alpha=alpha).to(base.dtype)
    product = torch.bmm(left, right)
    return _sum_of(base, product.sum(0, dtype=product.dtype), beta, alpha)


def _sum_of(base: Tensor, product: Tensor, beta: Any, alpha: Any) -> Tensor:
    if not base.dtype.is_floating_point:  # torch takes the factors for whole numbers, too
        alpha, beta = int(alpha), int(beta)
    product = product if alpha == 1 else product * alpha
    if beta == 0:
        return product  # whatever the base holds, NaN too
    return (base if beta == 1 else base * beta) + product


def _trilinear(
    first: Tensor,
    second: Tensor,
    third: Tensor,
    expand1: list[int],
    expand2: list[int],
    expand3: list[int],
    sumdim: list[int],
    _unroll_dim: int = 1,
) -> Tensor:
    wide = []
    for tensor, axes in ((first, expand1), (second, expand2), (third, expand3)):
        for axis in axes:
            tensor = tensor.unsqueeze(axis)
        wide.append(tensor)
    product = wide[0] * wide[1] * wide[2]
    return product.sum(sumdim, dtype=product.dtype)


def _conv_tbc(x: Tensor, weight: Tensor, bias: Tensor, pad: int = 0) -> Tensor:
    found = torch.conv1d(x.permute(1, 2, 0), weight.permute(2, 1, 0), bias, padding=pad)
    return found.permute(2, 0, 1)


# -- lookups


def _embedding_bag(
    weight: Tensor,
    indices: Tensor,
    offsets: Tensor,
    _by_frequency: bool = False,
    mode: int = 0,
    _sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int = -1,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return sums (0), means (1) or the largest (2) of the rows of bags; then what is no output."""
    count = offsets.shape[0] - int(include_last_offset)
    places = torch.arange(indices.shape[0], dtype=offsets.dtype)
    starts = offsets[:count]
    bag = _searchsorted(starts, places, right=True) - 1
    belongs = bag == torch.arange(count)[:, None]
    if include_last_offset:
        belongs = belongs & (places < offsets[count])
    if padding_idx >= 0:
        belongs = belongs & (indices != padding_idx)
    rows = torch.nn.functional.embedding(indices.to(torch.int64), weight)
    if per_sample_weights is not None:
        rows = rows * per_sample_weights[:, None]
    sizes = belongs.to(torch.int64).sum(1)
    if mode == 2:
        masked = torch.where(belongs[:, :, None], rows, torch.full((), -math.inf, dtype=rows.dtype))
        found = torch.where(sizes[:, None] == 0, torch.zeros((), dtype=rows.dtype), masked.amax(1))
    else:
        found = torch.matmul(belongs.to(rows.dtype), rows)
        if mode == 1:
            found = found / torch.clamp(sizes, min=1).to(rows.dtype)[:, None]
    return found, bag, sizes, offsets.clone()


def _masked_scatter(x: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    x, mask = torch.broadcast_tensors(x, mask)
    flat = mask.reshape(-1)
    if not source.numel() or not flat.numel():
        return x.clone()
    places = torch.clamp(torch.cumsum(flat.to(torch.int64), 0) - 1, 0, source.numel() - 1)
    return torch.where(flat, source.reshape(-1)[places], x.reshape(-1)).reshape(x.shape)


def _one_hot(x: Tensor, num_classes: int = -1) -> Any:
    """Compare with all classes; torch asserts beside it that none is out of range."""
    if num_classes < 1:
        return NotImplemented
    return (x[..., None] == torch.arange(num_classes)).to(torch.int64)


def _put(x: Tensor, index: Tensor, source: Tensor, accumulate: bool = False) -> Tensor:
    flat = x.reshape(-1)
    return flat.index_put((index.reshape(-1),), source.reshape(-1), accumulate).reshape(x.shape)


def _diagonal_scatter(
    x: Tensor, source: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1
) -> Tensor:
    dim1, dim2 = dim1 % x.dim(), dim2 % x.dim()
    rows, columns = torch.arange(x.shape[dim1])[:, None], torch.arange(x.shape[dim2])
    is_on = columns - rows == offset
    # Along the diagonal the source runs with the rows, or with the columns left of it.
    along = torch.minimum(rows + min(offset, 0), columns - max(offset, 0))
    along = torch.clamp(along, 0, max(source.shape[-1] - 1, 0))
    order = [axis for axis in range(x.dim()) if axis not in (dim1, dim2)] + [dim1, dim2]
    moved = x.permute(order)
    found = torch.where(is_on, source[..., along], moved) if source.numel() else moved
    return found.permute([order.index(axis) for axis in range(x.dim())]).clone()


def _scatter_reduce(
    x: Tensor, dim: int, index: Tensor, source: Tensor, reduce: str, *, include_self: bool = True
) -> Any:
    """Reduce to means, or without what was there; the rest is an operator of TVM's."""
    if not x.dim():
        function = _of_scalar(torch.scatter_reduce)
        return function(x, dim, index, source, reduce, include_self=include_self)
    if include_self and reduce != "mean":
        return NotImplemented
    ones = torch.ones(index.shape, dtype=torch.int64)
    count = torch.zeros(x.shape, dtype=torch.int64).scatter_add(dim, index, ones)
    base = x
    if not include_self:
        start = torch.full((), _neutral(reduce, x.dtype), dtype=x.dtype)
        base = torch.where(count > 0, start, x)
    if reduce != "mean":
        return base.scatter_reduce(dim, index, source, reduce, include_self=True)
    # One, too, where nothing is added and nothing counts.
    count = count + 1 if include_self else torch.where(count == 0, 1, count)
    total = base.scatter_add(dim, index, source)
    rounding = None if x.dtype.is_floating_point else "floor"
    return torch.div(total, count.to(x.dtype), rounding_mode=rounding)


def _neutral(reduce: str, dtype: torch.dtype) -> Any:
    """Return the number that changes no result of a reduction."""
    if reduce in ("sum", "mean", "prod"):
        return int(reduce == "prod")
    if dtype.is_floating_point:
        return -math.inf if reduce == "amax" else math.inf
    return torch.iinfo(dtype).min if reduce == "amax" else torch.iinfo(dtype).max


def _index_reduce(
    x: Tensor, dim: int, index: Tensor, source: Tensor, reduce: str, *, include_self: bool = True
) -> Tensor:
    dim %= max(x.dim(), 1)
    shape = [-1 if axis == dim else 1 for axis in range(x.dim())]
    wide = index.to(torch.int64).reshape(shape).expand(source.shape)
    return x.scatter_reduce(dim, wide, source, reduce, include_self=include_self)


def _multilabel_margin_loss(x: Tensor, target: Tensor, reduction: int) -> tuple[Tensor, Tensor]:
    """Compute hinges of all classes beside each target; torch's takes what follows -1 for some."""
    wide, targets = torch.atleast_2d(x), torch.atleast_2d(target)
    classes = torch.arange(wide.shape[1])
    end = torch.amin(torch.where(targets == -1, classes, wide.shape[1]), dim=-1, keepdim=True)
    is_named = classes < end
    place = torch.where(is_named, targets, 0)
    is_target = torch.any((place[..., None] == classes) & is_named[..., None], dim=1)
    known = torch.gather(wide, -1, place)[..., None]
    hinge = torch.clamp(1.0 - known + wide[:, None, :], 0) / wide.shape[1]
    loss = torch.where(is_named[..., None] & ~is_target[:, None, :], hinge, 0.0).sum((1, 2))
    loss = loss.reshape(target.shape[:-1]) if not reduction else (loss.mean(), loss.sum())[reduction - 1]
    return loss, is_target.to(x.dtype).reshape(target.shape)


def _empty_permuted(size: list[int], _layout: list[int], **options: Any) -> Tensor:
    return torch.zeros(size, dtype=options.get("dtype"))


def _of_scalar(function: Any) -> Callable[..., Any]:
    """Return a formula of an operator along axes for a tensor that has none, as one of one element."""

    def formula(x: Tensor, *args: Any, **kwargs: Any) -> Any:
        if x.dim():
            return NotImplemented
        args = tuple(
            each[None] if isinstance(each, torch.Tensor) and not each.dim() else each for each in args
        )
        return pytree.tree_map(lambda made: made.reshape(()), function(x[None], *args, **kwargs))

    return formula


# Operators along axes, which torch takes to be there for a tensor without any.
_ALONG_AXES = (
    *(_aten.sum.dim_IntList, _aten.mean.dim, _aten.prod.dim_int, _aten.amax.default, _aten.amin.default),
    *(_aten.any.dim, _aten.any.dims, _aten.all.dim, _aten.all.dims, _aten.argmax.default),
    *(_aten.argmin.default, _aten.max.dim, _aten.min.dim, _aten.var.correction, _aten.std.correction),
    *(_aten.linalg_vector_norm.default, _aten.median.dim, _aten.topk.default, _aten.sort.default),
    *(_aten.sort.stable, _aten.cumsum.default, _aten.cumprod.default, _aten.flip.default),
    *(_aten._softmax.default, _aten._log_softmax.default, _aten.squeeze.dims, _aten.gather.default),
    *(_aten.index_select.default, _aten.scatter.src, _aten.scatter.value, _aten.scatter_add.default),
)

#: By overload; each takes what torch's does and returns what it does.
FORMULAS: dict[Any, Callable[..., Any]] = {
    **SPECIAL,
    **{op: _of_scalar(op) for op in _ALONG_AXES},
    _aten.unfold.default: _unfold,
    _aten.signbit.default: _signbit,
    _prims.signbit.default: _signbit,
    _aten.copysign.Tensor: _copysign,
    _aten.copysign.Scalar: _copysign,
    _aten.fmax.default: _fmax,
    _aten.fmin.default: _fmin,
    _prims.fmax.default: _fmax,
    _prims.fmin.default: _fmin,
    _aten.nextafter.default: _nextafter,
    _prims.nextafter.default: _nextafter,
    _aten.frexp.Tensor: _frexp,
    _prims.frexp.default: _frexp,
    _aten.angle.default: _angle,
    _aten.rrelu_with_noise_functional.default: _rrelu,
    _prims.where.default: torch.where,
    _aten.cummax.default: _cumulative(most=True),
    _aten.cummin.default: _cumulative(most=False),
    _aten.logcumsumexp.default: _logcumsumexp,
    _aten.kthvalue.default: _kthvalue,
    _aten.nanmedian.dim: _nanmedian,
    _aten.nanmedian.default: lambda x: _nanmedian(x.reshape(-1), 0)[0],
    _aten.histc.default: _histc,
    _aten.searchsorted.Tensor: _searchsorted,
    _aten.searchsorted.Scalar: _searchsorted_of_number,
    _aten._cdist_forward.default: _cdist,
    _aten._pdist_forward.default: _pdist,
    _aten.addmv.default: _addmv,
    _aten.addbmm.default: _addbmm,
    _aten._trilinear.default: _trilinear,
    _aten.conv_tbc.default: _conv_tbc,
    _aten._embedding_bag.default: _embedding_bag,
    _aten._embedding_bag_forward_only.default: _embedding_bag,
    _aten.masked_scatter.default: _masked_scatter,
    _aten.one_hot.default: _one_hot,
    _aten.put.default: _put,
    _aten.scatter_reduce.two: _scatter_reduce,
    _aten.index_reduce.default: _index_reduce,
    _aten.diagonal_scatter.default: _diagonal_scatter,
    _aten.multilabel_margin_loss_forward.default: _multilabel_margin_loss,
    _aten.empty_permuted.default: _empty_permuted,
    _prims.convert_element_type.default: lambda x, dtype: x.to(dtype),
}
