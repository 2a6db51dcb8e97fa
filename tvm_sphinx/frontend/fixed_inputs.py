"""Inputs that have a value when a model is compiled: constants of it, which no caller gives. [TVM]"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from .._tvm import relax, tvm
from ..errors import ModelError, known_choices
from .index_ranges import with_index_ranges
from .model_source import ModelSource
from .signature import Declared, function_signature, source_signature
from .tensor_spec import TensorSpec, outside_range, show_type

Array = npt.NDArray[Any]

# What a number without a type may become: bools, whole numbers and floats, by NumPy's letters.
_MAY_BECOME = {"b": "b", "i": "iuf", "u": "iuf", "f": "f"}


def fix_inputs(source: ModelSource, values: Mapping[str, Any], function: str) -> ModelSource:
    """Return a source some of whose inputs have values.

    An ONNX model and a torch program stay as they were given, so that their own framework is fed with
    the values; a Relax module, which no framework runs, is one with constants in their place.

    Parameters
    ----------
    values
        By the names of inputs: arrays of the declared types, or numbers and lists of them, which take
        the declared type where that holds them. A single number also stands for a tensor of one element.
    function
        Of a Relax module: the function whose inputs are meant.

    Raises
    ------
    ModelError
        If there is no such input, or a value is not of its type or shape, or an index out of range.
    """
    if not isinstance(values, Mapping):
        raise ModelError(
            f"Expected the values of fixed inputs as a mapping by name; got {values!r:.80}."
        )
    inputs = {declared.name: declared for declared in _declared(source, function)}
    found = {}
    for name, value in values.items():
        if name not in inputs:
            raise ModelError(known_choices(f"input of {source.where}", name, inputs))
        found[name] = _as_declared(value, inputs[name], source.where)
    if found and len(found) == len(inputs):
        raise ModelError(
            f"Expected an input of {source.where} that is not fixed; all are: {', '.join(inputs)}."
        )
    _check_indices(source, found)
    if source.kind == "relax":
        source = replace(source, model=bind(source.model, function, found))
    return replace(source, fixed={**source.fixed, **found})


def bind(module: Any, function: str, values: Mapping[str, Array]) -> Any:
    """Return a Relax module with constants in the place of arguments of a function, by their names."""
    constants = {name: tvm.runtime.tensor(value) for name, value in values.items()}
    return relax.transform.BindParams(function, constants)(module)


def _declared(source: ModelSource, function: str) -> Sequence[Declared]:
    if source.kind != "relax":
        return source_signature(source, None).inputs
    return function_signature(source.model[function]).inputs


def _as_declared(value: Any, declared: Declared, where: str) -> Array:
    """Return a value as an array of the declared type.

    Raises
    ------
    ModelError
        If it is of another.
    """
    if hasattr(value, "detach"):
        value = value.detach()
    if hasattr(value, "numpy"):
        value = value.numpy()
    try:
        array = np.asarray(value)
    except ValueError as error:  # lists of unlike lengths
        raise ModelError(
            f"Expected input {declared.name!r} fixed at numbers; got {value!r:.80}."
        ) from error
    if array.dtype.kind == "O" and all(isinstance(number, int) for number in array.flat):
        raise ModelError(
            f"Expected input {declared.name!r} of {where} fixed at numbers of up to 64 bits; got "
            f"{value!r:.80}."
        )
    if declared.dtype is not None and str(array.dtype) != declared.dtype:
        array = _cast(array, declared.dtype, has_type=isinstance(value, np.ndarray | np.generic))
    shape = declared.shape
    if shape is not None and not array.ndim and set(shape) == {1}:
        array = array.reshape([1] * len(shape))
    fits = shape is None or (
        len(shape) == array.ndim
        and all(want in (None, got) for want, got in zip(shape, array.shape, strict=True))
    )
    if array.dtype.kind in "OUSM" or not fits or declared.dtype not in (None, str(array.dtype)):
        shown = f"{value!r:.40}, " if array.size == 1 else ""
        raise ModelError(
            f"Expected input {declared.name!r} of {where} fixed at a value of type "
            f"{show_type(shape, declared.dtype)}; got {shown}{show_type(array.shape, str(array.dtype))}."
        )
    return np.array(array, order="C")


def _cast(array: Array, dtype: str, *, has_type: bool) -> Array:
    """Return an array in a type that holds its values; as it is where that does not, or it has its own.

    NumPy's files have no name for bfloat16, and hold its bits.
    """
    wanted = np.dtype(dtype)
    if has_type:
        is_unnamed = dtype == "bfloat16" and array.dtype.str == "|V2"
        return array.view(wanted) if is_unnamed else array
    kind = "f" if dtype == "bfloat16" else wanted.kind
    if kind not in _MAY_BECOME.get(array.dtype.kind, ""):
        return array
    with np.errstate(over="ignore"):
        made = array.astype(wanted)
    if array.dtype.kind == "f":
        is_held = bool((np.isfinite(made) == np.isfinite(array)).all())
    else:
        is_held = bool((made.astype(array.dtype) == array).all())
    return made if is_held else array


def _check_indices(source: ModelSource, values: Mapping[str, Array]) -> None:
    specs = [TensorSpec(name, value.shape, str(value.dtype)) for name, value in values.items()]
    for spec in with_index_ranges(source, specs):
        if wrong := outside_range(spec, values[spec.name]):
            raise ModelError(wrong)
