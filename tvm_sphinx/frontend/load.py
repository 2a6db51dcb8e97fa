"""Load a model: an ONNX file, a ``torch.export`` program, a Relax module, or a demo model. [TVM]"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .._tvm import relax, tvm
from ..errors import EnvironmentMismatchError, ModelError, SphinxError, known_choices
from .fixed_inputs import bind, fix_inputs
from .model_source import DEMO_MODELS, FORMATS, ModelSource, suffix_of
from .record_origins import recording_torch
from .signature import torch_signature
from .tensor_outputs import with_tensor_outputs


def load_model(
    model: Any,
    *,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    fixed_inputs: Mapping[str, Any] | None = None,
    function: str | None = None,
) -> Any:
    """Return the Relax IRModule of a model, whose outputs are tensors (see `with_tensor_outputs`).

    Parameters
    ----------
    model
        An IRModule, a ``torch.export.ExportedProgram``, an ``onnx.ModelProto``, the path of a ``.onnx``,
        ``.pt2`` or ``.json`` file, the name of a demo model (`DEMO_MODELS`), or a `ModelSource`.
    input_shapes
        Shapes for ONNX inputs whose shape the file leaves open.
    fixed_inputs, function
        As of `read_source`.

    Raises
    ------
    ModelError
        If the file is missing, corrupt or of an unknown form, or uses what TVM cannot import.
    EnvironmentMismatchError
        If the package that reads this form is not installed.
    """
    return with_tensor_outputs(_import(read_source(model, fixed_inputs, function), input_shapes))


def _import(source: ModelSource, input_shapes: Mapping[str, Sequence[int]] | None) -> Any:
    if source.kind == "onnx":
        return _from_onnx(source, input_shapes)
    if input_shapes:
        raise ModelError(
            f"Expected input shapes for an ONNX model alone, whose file may leave them open; "
            f"{source.where} has the shapes that it was made with: export it with those to run with."
        )
    return _from_torch(source) if source.kind == "torch" else source.model


def read_source(
    model: Any, fixed_inputs: Mapping[str, Any] | None = None, function: str | None = None
) -> ModelSource:
    """Return what `load_model` imports, for others to run it too; errors as there.

    Parameters
    ----------
    model
        As of `load_model`.
    fixed_inputs
        Values by the names of inputs, which become constants of the model; see
        `tvm_sphinx.frontend.fixed_inputs.fix_inputs`.
    function
        Of a Relax module: the function whose inputs are meant; by default as `entry_function` finds it.
    """
    source = _read_source(model)
    if not fixed_inputs:
        return source
    is_relax = source.kind == "relax"
    return fix_inputs(source, fixed_inputs, entry_function(source.model, function) if is_relax else "")


def _read_source(model: Any) -> ModelSource:
    if isinstance(model, ModelSource):
        return model
    if isinstance(model, tvm.IRModule):
        return ModelSource("relax", model, "the given IRModule")
    module_name = type(model).__module__.partition(".")[0]
    if module_name == "onnx":
        return ModelSource("onnx", model, "the given ONNX model")
    if module_name == "torch":
        return ModelSource("torch", model, "the given torch program")
    if not isinstance(model, str | Path):
        raise ModelError(
            f"Expected a model as the name of a file, an onnx.ModelProto, a torch.export program or an "
            f"IRModule; got {model!r:.80}."
        )
    if str(model) in DEMO_MODELS:
        return ModelSource("onnx", demo_onnx_model(str(model)), f"demo model {str(model)!r}")
    return _read_file(Path(model))


def _read_file(path: Path) -> ModelSource:
    where = f"model file {str(path)!r}"
    suffix = suffix_of(path)
    if suffix not in FORMATS:
        forms = ", ".join(f"{form} ({name})" for form, name in FORMATS.items())
        raise ModelError(
            f"Expected {where} to end in one of: {forms}; or one of the demo models: "
            f"{', '.join(DEMO_MODELS)}."
        )
    if not path.is_file():
        raise ModelError(f"No such {where}; give a file or a demo model: {', '.join(DEMO_MODELS)}.")
    if suffix == ".onnx":
        onnx = _need("onnx", where)
        try:
            loaded = onnx.load(str(path), load_external_data=False)
        except Exception as error:  # protobuf's and onnx's errors share no base class
            raise ModelError(f"Not an ONNX model: {where}: {_first_line(error)}") from error
        try:
            onnx.load_external_data_for_model(loaded, str(path.parent))
            onnx.checker.check_model(str(path))  # what is in memory would be made a string first
        except Exception as error:  # as above
            raise ModelError(f"ONNX cannot use {where}: {_first_line(error)}") from error
        return ModelSource("onnx", loaded, where, path)
    if suffix == ".pt2":
        torch = _need("torch", where)
        try:
            with _without_log():
                program = torch.export.load(str(path))
        except Exception as error:  # torch raises zip, pickle and its own errors alike
            raise ModelError(f"Not a torch.export program: {where}: {_first_line(error)}") from error
        return ModelSource("torch", program, where, path)
    try:
        module = tvm.ir.load_json(path.read_text())
    except Exception as error:  # TVM's loader raises whatever its reflection meets
        raise ModelError(f"Not a Relax IRModule: {where}: {_first_line(error)}") from error
    if not isinstance(module, tvm.IRModule):
        raise ModelError(f"Expected an IRModule in {where}; got {type(module).__name__}.")
    return ModelSource("relax", module, where, path)


@contextlib.contextmanager
def _without_log() -> Iterator[None]:
    """Keep loggers quiet: torch logs the traceback of an error that it then raises."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def _from_onnx(source: ModelSource, input_shapes: Mapping[str, Sequence[int]] | None) -> Any:
    where = source.where
    _need("onnx", where)
    from .onnx_import import import_onnx
    from .prepare_onnx import prepare_onnx

    prepared = prepare_onnx(source.model, input_shapes, where, source.fixed)
    try:
        return import_onnx(prepared.model, prepared.shapes)
    except ModelError as error:
        raise ModelError(f"Cannot import {where}: {error} {prepared.hint}".rstrip()) from error
    except Exception as error:  # TVM raises its own, onnx's and Python's errors alike
        raise ModelError(
            f"TVM cannot import {where}: {_first_line(error)} {prepared.hint}".rstrip()
        ) from error


def _from_torch(source: ModelSource) -> Any:
    program, where = source.model, source.where
    torch = _need("torch", where)
    from .import_torch import import_program

    if not isinstance(program, torch.export.ExportedProgram):
        raise ModelError(
            f"Expected {where} to be a torch.export.ExportedProgram; got {type(program).__name__}. "
            f"Call torch.export.export(module, example_inputs) first."
        )
    try:
        with recording_torch() as log:
            module = import_program(program)
        module = log.origins.attach(module, "main")
        params = map(str, (param.name for param in module["main"].params))
        names = zip(params, torch_signature(program).input_names, strict=True)
        return bind(
            module, "main", {own: source.fixed[name] for own, name in names if name in source.fixed}
        )
    except SphinxError as error:
        raise ModelError(f"Cannot import {where}: {error}") from error
    except Exception as error:  # the importer raises TVM's, torch's and Python's errors alike
        raise ModelError(f"TVM cannot import {where}: {_first_line(error)}") from error


def demo_onnx_model(name: str = "inception-v1") -> Any:
    """Return a demo model as an ``onnx.ModelProto``: a real graph with seeded random weights.

    ``inception-v1`` is the branching network of Szegedy et al. 2014 (GoogLeNet), as the onnx package
    ships it without its weights.

    Raises
    ------
    ModelError
        If there is no demo model of that name.
    EnvironmentMismatchError
        If the onnx package is not installed.
    """
    if name not in DEMO_MODELS:
        raise ModelError(known_choices("demo model", name, DEMO_MODELS))
    onnx = _need("onnx", f"demo model {name!r}")
    package = Path(next(iter(importlib.util.find_spec("onnx").submodule_search_locations or [])))  # type: ignore[union-attr]
    model = onnx.load(str(package / "backend/test/data/light/light_inception_v1.onnx"))
    randomize_weights(model, seed=0)
    return model


def randomize_weights(model: Any, seed: int) -> None:
    """Replace the constant weights of a "light" ONNX model by seeded random ones, in place.

    Light models hold ``ConstantOfShape`` nodes instead of weights. They become normal weights with
    standard deviation sqrt(2 / fan-in) (He et al. 2015), so that activations keep their scale.
    """
    from onnx import numpy_helper

    rng = np.random.default_rng(seed)
    shapes = {tensor.name: tensor for tensor in model.graph.initializer}
    kept = []
    for node in model.graph.node:
        if node.op_type != "ConstantOfShape" or node.input[0] not in shapes:
            kept.append(node)
            continue
        shape = numpy_helper.to_array(shapes[node.input[0]]).tolist()
        fan_in = max(1, int(np.prod(shape[1:])))
        weight = rng.normal(0.0, np.sqrt(2.0 / fan_in), shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(weight, node.output[0]))
    del model.graph.node[:]
    model.graph.node.extend(kept)
    # Before IR version 4 every weight had to be listed as an input too.
    model.ir_version = max(model.ir_version, 8)


def entry_function(module: Any, name: str | None = None) -> str:
    """Return the name of the Relax function to schedule: the given one, ``main``, or the only one.

    Raises
    ------
    ModelError
        If there is no such function, or no way to tell which one is meant.
    """
    functions = [
        str(var.name_hint)
        for var, function in module.functions.items()
        if isinstance(function, relax.Function)
    ]
    if name is None:
        name = functions[0] if len(functions) == 1 else "main"
    if name not in functions:
        raise ModelError(known_choices("Relax function of the module", name, sorted(functions)))
    return name


def public_functions(module: Any) -> list[str]:
    """Return the names of the Relax functions that a module exports.

    What an external code generator takes (BYOC) is no function any more once that has run.
    """
    return [
        str(var.name_hint)
        for var, function in module.functions.items()
        if isinstance(function, relax.Function)
        and function.attrs
        and "global_symbol" in function.attrs
        and "Codegen" not in function.attrs
    ]


def _need(package: str, where: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise EnvironmentMismatchError(
            f"Loading {where} needs the {package} package: pip install 'tvm-sphinx[{package}]'"
        ) from error


def _first_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1].strip() if lines else 'no message'}"
