"""The ONNX standard's own tests of single operators: what comes out right, is refused, or is wrong.

    python -m tests.fuzz.onnx_node_tests              # all 1,884 of onnx 1.23, some ten minutes
    python -m tests.fuzz.onnx_node_tests attention resize

They come with the package onnx. An operator that needs the value of an input before it runs (axes,
shapes, scales) has it made a weight. Every test that is refused is named with its reason; the last line
counts, and the exit status is 1 if anything is wrong or ends otherwise.
"""

from __future__ import annotations

import collections
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test.case.node import collect_testcases

from tests.frontend.evaluate import build
from tvm_sphinx.errors import SphinxError

# Where ONNX Runtime takes the whole number of elements that a scale gives, as we do, and the standard's
# own evaluator what it was before it was rounded.
DIFFERS = frozenset(
    f"test_resize_downsample_scales_{kind}_align_corners" for kind in ("linear", "cubic")
)
# Inputs of these names are read before an operator runs, if they are floats too.
_KNOWN_BEFORE = ("scales", "roi", "values", "depth")

Arrays = Mapping[str, np.ndarray]


def main(words: list[str]) -> int:
    """Run the tests whose names hold one of the words, all without any; return the exit status."""
    counts: collections.Counter[str] = collections.Counter()
    for case in collect_testcases(None):
        if words and not any(word in case.name for word in words):
            continue
        outcome, reason = _outcome(case)
        counts[outcome] += 1
        if outcome != "right":
            print(f"{outcome:10} {case.name}: {reason}", flush=True)
    print(", ".join(f"{count} {outcome}" for outcome, count in counts.most_common()))
    return int(bool(counts["wrong"] or counts["error"]))


def _outcome(case: Any) -> tuple[str, str]:
    feeds, wanted = ([_array(value) for value in values] for values in case.data_sets[0])
    if any(value is None for value in (*feeds, *wanted)):
        return "no array", "sequences and optional values have no counterpart in a call"
    named = {value.name: feed for value, feed in zip(case.model.graph.input, feeds, strict=False)}
    try:
        found = _run(case.model, named)
    except SphinxError as error:
        return "refused", str(error).partition("\n")[0]
    except Exception as error:  # whatever it is, it is told
        return "error", f"{type(error).__name__}: {error}"
    wrong = [
        f"output {number}: {ours.ravel()[:6]} for {right.ravel()[:6]}"
        for number, (ours, right) in enumerate(zip(found, wanted, strict=True))
        if not _agree(ours, right, case)
    ]
    if case.name in DIFFERS:
        return "differs", "; ".join(wrong)
    return ("wrong", "; ".join(wrong)) if wrong else ("right", "")


def _array(value: Any) -> Any:
    """Return a value as an array; None if it is none."""
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    return np.asarray(value) if isinstance(value, np.ndarray | np.generic) else None


def _run(model: Any, feeds: Arrays) -> list[np.ndarray]:
    try:
        return build(model, falls_back=True)(feeds)
    except SphinxError:
        known = {name: feed for name, feed in feeds.items() if _is_read_before(name, feed)}
        if not known or len(known) == len(feeds):
            raise
        fixed = onnx.ModelProto()
        fixed.CopyFrom(model)
        inputs = [value for value in fixed.graph.input if value.name not in known]
        del fixed.graph.input[:]
        fixed.graph.input.extend(inputs)
        fixed.graph.initializer.extend(numpy_helper.from_array(v, name) for name, v in known.items())
        rest = {name: feed for name, feed in feeds.items() if name not in known}
        return build(fixed, falls_back=True)(rest)


def _is_read_before(name: str, feed: np.ndarray) -> bool:
    return name in _KNOWN_BEFORE or feed.ndim == 0 or (feed.ndim == 1 and feed.dtype.kind in "iub")


def _agree(ours: np.ndarray, right: np.ndarray, case: Any) -> bool:
    if (ours.shape, str(ours.dtype)) != (right.shape, str(right.dtype)):
        return False
    if right.dtype.kind in "iub":
        return bool(np.array_equal(ours, right))
    is_half = right.dtype.itemsize < 4
    least = (2e-2, 2e-3) if is_half else (1e-5, 1e-6)
    relative, absolute = max(case.rtol, least[0]), max(case.atol, least[1])
    wide = ours.astype(np.float64), right.astype(np.float64)
    return bool(np.allclose(*wide, rtol=relative, atol=absolute, equal_nan=True))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
