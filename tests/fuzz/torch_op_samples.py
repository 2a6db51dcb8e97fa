"""Torch's own samples of its operators: what comes out right, is refused, or is wrong.

    python -m tests.fuzz.torch_op_samples                     # all 702 of torch 2.13, an hour and a half
    python -m tests.fuzz.torch_op_samples softmax nn.functional.interpolate --dtypes float32 uint8
    python -m tests.fuzz.torch_op_samples --part 0 4          # every fourth, from the first on

They come with torch, for its own tests, and need the package expecttest. The first samples of an
operator with elements of one type are one program; where that is refused, each is one by itself. What
draws random numbers, ends with an error in torch, or is of complex numbers is passed over. Every refusal
is named with its reason; the last line counts, and the exit status is 1 if anything is wrong or ends
otherwise.
"""

from __future__ import annotations

import argparse
import collections
import itertools
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.testing._internal.common_methods_invocations import op_db
from torch.utils import _pytree as pytree

from tests.frontend.evaluate import build
from tvm_sphinx.errors import SphinxError

DTYPES = ("float32", "float64", "bfloat16", "float16", "int64", "int32", "uint8", "bool")
# Of these, torch leaves open which of equal elements comes first.
_TIES = ("topk", "kthvalue", "sort", "argsort", "msort", "mode", "median", "nanmedian")
# Of new tensors whose elements nobody has set.
_UNSET = ("empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "empty_permuted")
_CLOSE = {"float64": 1e-9, "float32": 2e-4, "float16": 1e-2, "bfloat16": 2e-2}


class _Sample(torch.nn.Module):
    """Calls a function with the arguments of samples, whose tensors are its inputs."""

    def __init__(self, function: Callable[..., Any], samples: Sequence[Any]) -> None:
        super().__init__()
        self.function = function
        self.tensors: list[torch.Tensor] = []
        self.calls: list[tuple[Any, Any]] = []
        for sample in samples:
            leaves, spec = pytree.tree_flatten(((sample.input, *sample.args), sample.kwargs))
            self.calls.append(([self._placed(leaf) for leaf in leaves], spec))

    def _placed(self, leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor):
            return leaf
        self.tensors.append(leaf.detach().clone())
        return _Place(len(self.tensors) - 1)

    def forward(self, *tensors: torch.Tensor) -> list[torch.Tensor]:
        found = []
        for leaves, spec in self.calls:
            given = [tensors[leaf.index] if isinstance(leaf, _Place) else leaf for leaf in leaves]
            args, kwargs = pytree.tree_unflatten(given, spec)
            made = self.function(*args, **kwargs)
            found += [leaf for leaf in pytree.tree_leaves(made) if isinstance(leaf, torch.Tensor)]
        return found


class _Place:
    """Stands for a tensor that is an input."""

    def __init__(self, index: int) -> None:
        self.index = index


def outcomes(operator: Any, dtype: str, most: int) -> Iterator[tuple[str, str, int]]:
    """Yield what came of the samples of an operator: the outcome, a reason, and of how many."""
    try:
        drawn = operator.sample_inputs("cpu", getattr(torch, dtype))
        samples = list(itertools.islice(filter(_is_small, drawn), most))
    except Exception as error:  # torch has none for this type
        yield "no samples", type(error).__name__, 1
        return
    settled = [sample for sample in samples if _is_settled(operator, sample)]
    if len(samples) > len(settled):
        yield "passed over", "", len(samples) - len(settled)
    if not settled:
        return
    outcome, reason = _outcome(operator, settled)
    if outcome == "right" or len(settled) == 1:
        yield outcome, reason, len(settled)
        return
    for sample in settled:
        yield *_outcome(operator, [sample]), 1


def _is_small(sample: Any) -> bool:
    leaves = pytree.tree_leaves((sample.input, sample.args, sample.kwargs))
    return all(leaf.numel() <= 1 << 16 for leaf in leaves if isinstance(leaf, torch.Tensor))


def _is_settled(operator: Any, sample: Any) -> bool:
    """Return whether torch computes it, the same each time, without complex numbers."""
    module = _Sample(operator.op, [sample])
    made = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        try:
            made.append(module(*[tensor.clone() for tensor in module.tensors]))
        except Exception:  # whatever it is, it is torch's
            return False
    found = [*made[0], *module.tensors]
    if not made[0] or any(leaf.is_complex() or leaf.layout != torch.strided for leaf in found):
        return False
    return all(torch.equal(*_bits(*pair)) for pair in zip(*made, strict=True))


def _bits(*pair: torch.Tensor) -> list[torch.Tensor]:
    return [torch.nan_to_num(each, 7.0) if each.is_floating_point() else each for each in pair]


def _outcome(operator: Any, samples: Sequence[Any]) -> tuple[str, str]:
    module = _Sample(operator.op, samples).eval()
    given = tuple(module.tensors)
    wanted = module(*[tensor.clone() for tensor in given])
    try:
        program = torch.export.export(module, given)
    except Exception as error:  # whatever it is, it is torch's
        return "not exported", f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    try:
        run = build(program, falls_back=True)
        names = [
            spec.arg.name
            for spec in program.graph_signature.input_specs
            if spec.kind.name == "USER_INPUT"
        ]
        found = run(dict(zip(names, map(_to_numpy, given), strict=True)))
    except SphinxError as error:
        return "refused", str(error).partition("\n")[0]
    except Exception as error:  # whatever it is, it is told
        return "error", f"{type(error).__name__}: {error}"
    if len(found) != len(wanted):
        return "wrong", f"{len(found)} outputs for {len(wanted)}"
    exact = _in_single(module, wanted)
    wrong = {
        number: f"output {number} {tuple(right.shape)}: {difference}"
        for number, (ours, right, wide) in enumerate(zip(found, wanted, exact, strict=True))
        if (difference := _difference(ours, right)) and _difference(ours, wide)
    }
    if not wrong:
        return "right", ""
    are_pairs = len(wanted) == 2 * len(samples)  # of values and places
    are_places = operator.name == "argsort" or (are_pairs and all(number % 2 for number in wrong))
    is_tied = operator.name in _TIES and are_places
    return "ties" if is_tied else "wrong", "; ".join(wrong.values())


def _in_single(module: _Sample, wanted: list[torch.Tensor]) -> list[torch.Tensor]:
    """Return what torch makes of halves in single precision, rounded; what it made, where it cannot.

    Kernels leave roundings to halves out, and may so be nearer to what is exact.
    """
    halves = (torch.float16, torch.bfloat16)
    try:
        made = module(*[t.float() if t.dtype in halves else t.clone() for t in module.tensors])
        return [wide.to(right.dtype) for wide, right in zip(made, wanted, strict=True)]
    except Exception:  # whatever it is, it is torch's
        return wanted


def _to_numpy(tensor: torch.Tensor) -> Any:
    tensor = tensor.detach().contiguous()
    if tensor.dtype is torch.bfloat16:
        import ml_dtypes

        return tensor.view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def _difference(ours: Any, right: torch.Tensor) -> str:
    """Return how an output differs from torch's, nothing if it does not."""
    dtype = str(right.dtype).removeprefix("torch.")
    if (tuple(ours.shape), str(ours.dtype)) != (tuple(right.shape), dtype):
        return f"{ours.dtype} {tuple(ours.shape)} for {dtype}"
    wide = right.double().numpy() if dtype in _CLOSE else right.numpy()
    mine = ours.astype(wide.dtype)
    if dtype not in _CLOSE:
        return "" if np.array_equal(mine, wide) else f"{mine.ravel()[:4]} for {wide.ravel()[:4]}"
    close = _CLOSE[dtype]
    scale = np.abs(wide[np.isfinite(wide)]).max(initial=0)
    if np.allclose(mine, wide, rtol=close, atol=close * max(1e-3, min(1, scale)), equal_nan=True):
        return ""
    return f"{mine.ravel()[:4]} for {wide.ravel()[:4]}, differ by {np.nanmax(np.abs(mine - wide)):.2g}"


def main() -> int:
    """Run what is asked for; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("operators", nargs="*", help="parts of names; by default all")
    parser.add_argument("--dtypes", nargs="+", default=DTYPES, choices=DTYPES)
    parser.add_argument("--most", type=int, default=8, help="samples of an operator and type")
    parser.add_argument("--part", nargs=2, type=int, default=(0, 1), metavar=("I", "N"))
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    counts: collections.Counter[str] = collections.Counter()
    chosen = [
        each
        for each in op_db
        if each.name not in _UNSET
        and (not args.operators or any(w in each.name for w in args.operators))
    ]
    for operator in chosen[args.part[0] :: args.part[1]]:
        for dtype in args.dtypes:
            if getattr(torch, dtype) not in operator.supported_dtypes("cpu"):
                continue
            for outcome, reason, count in outcomes(operator, dtype, args.most):
                counts[outcome] += count
                if outcome not in ("right", "ties", "passed over", "no samples"):
                    name = " ".join(filter(None, (operator.name, operator.variant_test_name)))
                    print(f"{outcome:12} {name} of {dtype}: {reason}", flush=True)
    print(", ".join(f"{count} {outcome}" for outcome, count in counts.most_common()))
    return int(bool(counts["wrong"] or counts["error"]))


if __name__ == "__main__":
    with torch.no_grad():
        sys.exit(main())
