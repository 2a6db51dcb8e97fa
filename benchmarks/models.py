"""The model zoo of the benchmarks: real architectures with seeded random weights, batch 1.

Every model is built from its library's own source (torchvision, timm, transformers, the light
graphs of the onnx package); nothing is downloaded. `load(name)` returns a `Model`, which gives the
same network as a Relax module, as a torch module or ONNX bytes, and inputs to run it on. Libraries
are imported when a model needs them; a missing one raises `ModelError` with the package's name.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import tvm
from onnx_zoo import light_onnx, light_path

from tvm_sphinx.errors import ModelError, known_choices
from tvm_sphinx.frontend.load import load_model

SEED = 20
_TOKENS = 128


@dataclass(frozen=True)
class Model:
    """One network with its inputs, in the forms that the compared runtimes take.

    Attributes
    ----------
    name
        Key in the zoo.
    inputs
        Arrays by input name, in the order of the network's parameters.
    torch_module
        The network in evaluation mode, or None where its source is an ONNX graph.
    onnx_source
        Serialized ONNX graph, or None where its source is a torch module.
    """

    name: str
    inputs: dict[str, np.ndarray]
    torch_module: Any = None
    onnx_source: bytes | None = None

    def relax(self) -> tvm.IRModule:
        """Return the network as a Relax module whose weights are constants, as `compile` makes it.

        Returns
        -------
        The module; function "main" takes the arrays of `inputs` in order.
        """
        with _quiet():
            return load_model(self.source())

    def source(self) -> Any:
        """Return the network as `tvm_sphinx.compile` takes it: an ONNX model or an exported program."""
        if self.torch_module is None:
            return _require("onnx").load_from_string(self.onnx_source)
        torch = _require("torch")
        with torch.no_grad(), _quiet():
            return torch.export.export(self.torch_module, self.torch_inputs())

    def onnx(self) -> bytes:
        """Return the network as serialized ONNX, for ONNX Runtime.

        Raises
        ------
        ModelError
            If torch's exporter needs the onnxscript package and it is missing.
        """
        if self.onnx_source is not None:
            return self.onnx_source
        torch = _require("torch")
        buffer = io.BytesIO()
        args, names = self.torch_inputs(), list(self.inputs)
        torch.backends.mha.set_fastpath_enabled(False)  # its fused operator has no ONNX form
        with torch.no_grad(), _quiet():
            try:
                export = partial(torch.onnx.export, opset_version=17, dynamo=False)
                export(self.torch_module, args, buffer, input_names=names)
            except Exception:  # the legacy exporter lacks some operators: the newer one has them
                _require("onnxscript")
                program = torch.onnx.export(
                    self.torch_module, args, input_names=names, dynamo=True, verbose=False
                )
                buffer = io.BytesIO(program.model_proto.SerializeToString())
        return buffer.getvalue()

    def torch_inputs(self) -> tuple[Any, ...]:
        """Return `inputs` as torch tensors, in order."""
        torch = _require("torch")
        return tuple(torch.from_numpy(array) for array in self.inputs.values())

    def numpy_inputs(self) -> list[np.ndarray]:
        """Return `inputs` as arrays, in order."""
        return list(self.inputs.values())


def names() -> list[str]:
    """Return the zoo's model names, sorted."""
    return sorted(_ZOO)


def load(name: str) -> Model:
    """Build one model of the zoo, with weights and inputs drawn from a fixed seed.

    Raises
    ------
    ModelError
        If the name is unknown or a package that the model comes from is not installed.
    """
    if name not in _ZOO:
        raise ModelError(known_choices("benchmark model", name, names()))
    return _ZOO[name](name)


def _require(package: str) -> Any:
    if package.split(".")[0] in ("torchvision", "timm", "transformers"):  # the others import the first
        _make_torchvision_import()
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ModelError(
            f"This benchmark model needs the package {package}, which is not installed."
        ) from error


def _make_torchvision_import() -> None:
    """Let torchvision import beside a CPU torch: its compiled operators do not load there."""
    torch = _require("torch")
    try:
        importlib.import_module("torchvision")
        return
    except ImportError:
        return  # whoever needs it says so
    except RuntimeError:  # torch knows no operator torchvision::nms
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
    for signature in (
        "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
        "qnms(Tensor dets, Tensor scores, Tensor idxs, float iou_threshold) -> Tensor",
    ):
        operator, arguments = signature.split("(", 1)
        with contextlib.suppress(RuntimeError):  # already defined
            torch.library.define(f"torchvision::{operator}", f"({arguments}")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide the exporters' deprecation and tracing notes."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)


def _settle(module: Any) -> Any:
    """Replace the zeros and unit statistics that a trained network does not have."""
    torch = _require("torch")
    generator = torch.Generator().manual_seed(SEED)
    for part in module.modules():
        if isinstance(part, torch.nn.modules.batchnorm._BatchNorm):
            part.running_mean.normal_(0.0, 0.1, generator=generator)
            part.running_var.uniform_(0.5, 1.5, generator=generator)
    with torch.no_grad():
        for parameter in module.parameters():
            if not parameter.any():
                parameter.normal_(0.0, 0.02, generator=generator)
    return module.eval()


def _seeded(build: Callable[[], Any]) -> Any:
    torch = _require("torch")
    torch.manual_seed(SEED)
    return _settle(build())


def _image(size: int) -> np.ndarray:
    return np.random.default_rng(SEED).standard_normal((1, 3, size, size), dtype=np.float32)


def _ids(vocabulary: int, length: int) -> np.ndarray:
    return np.random.default_rng(SEED).integers(1, vocabulary, (1, length), dtype=np.int64)


def _torchvision(attribute: str, size: int, name: str, **kwargs: Any) -> Model:
    zoo = _require("torchvision").models
    with _quiet():
        module = _seeded(lambda: getattr(zoo, attribute)(weights=None, **kwargs))
    return Model(name, {"image": _image(size)}, module)


def _timm(attribute: str, name: str) -> Model:
    timm = _require("timm")
    return Model(
        name,
        {"image": _image(224)},
        _seeded(lambda: timm.create_model(attribute, pretrained=False)),
    )


def _nasnet(name: str) -> Model:
    """Build NASNet-A at its mobile width (44 filters), which timm's registry lacks."""
    cell = _require("timm.models.nasnet").NASNetALarge
    module = _seeded(lambda: cell(stem_size=32, num_features=1056, channel_multiplier=2))
    return Model(name, {"image": _image(224)}, module)


def _light(graph: str, name: str) -> Model:
    onnx = _require("onnx")
    source, shape = light_onnx(onnx, light_path(onnx, graph), SEED)
    image = np.random.default_rng(SEED).standard_normal(shape[1], dtype=np.float32)
    return Model(name, {shape[0]: image}, None, source)


def _branches(name: str) -> Model:
    """Build the situation of onnxruntime#16158: equal branches on a million whole numbers."""
    onnx = _require("onnx")
    branches, length = 10, 1_000_000
    helper, kind = onnx.helper, onnx.TensorProto.INT64
    nodes = []
    for branch in range(branches):
        value = "x"
        for step, operator in enumerate(("Add", "Mul", "Sub", "Mul", "Add", "Mul")):
            made = f"b{branch}_{step}"
            constant = onnx.numpy_helper.from_array(np.array([branch + step + 2]), f"{made}_by")
            nodes.append(helper.make_node("Constant", [], [constant.name], value=constant))
            nodes.append(helper.make_node(operator, [value, constant.name], [made]))
            value = made
        nodes.append(helper.make_node("ReduceMax", [value], [f"y{branch}"], keepdims=0))
    outputs = [helper.make_tensor_value_info(f"y{branch}", kind, []) for branch in range(branches)]
    graph = helper.make_graph(nodes, name, [helper.make_tensor_value_info("x", kind, [length])], outputs)
    opsets = [helper.make_opsetid("", 13)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    return Model(name, {"x": np.ones(length, np.int64)}, None, model.SerializeToString())


def _bilstm(name: str) -> Model:
    nn = _require("torch").nn
    length, features, hidden = 32, 128, 128

    class BiLSTM(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(features, hidden, bidirectional=True, batch_first=True)
            self.head = nn.Linear(2 * hidden, 64)

        def forward(self, sequence: Any) -> Any:
            return self.head(self.lstm(sequence)[0])

    sequence = np.random.default_rng(SEED).standard_normal((1, length, features), dtype=np.float32)
    return Model(name, {"sequence": sequence}, _seeded(BiLSTM))


def _transformers(
    build: Callable[[Any], Any],
    inputs: Callable[[], dict[str, np.ndarray]],
    outputs: list[str],
    name: str,
) -> Model:
    """Wrap a transformers network so that it takes and returns plain tensors."""
    library = _require("transformers")
    nn = _require("torch").nn
    arrays = inputs()

    class Positional(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.network = build(library)

        def forward(self, *tensors: Any) -> Any:
            result = self.network(**dict(zip(arrays, tensors, strict=True)))
            return tuple(getattr(result, output) for output in outputs)

    with _quiet():
        return Model(name, arrays, _seeded(Positional))


def _bert_inputs() -> dict[str, np.ndarray]:
    return {"input_ids": _ids(30000, _TOKENS), "attention_mask": np.ones((1, _TOKENS), np.int64)}


def _clip_inputs() -> dict[str, np.ndarray]:
    return {
        "input_ids": _ids(49000, 77),
        "pixel_values": _image(224),
        "attention_mask": np.ones((1, 77), np.int64),
    }


def _lxmert_inputs() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(SEED)
    return {
        "input_ids": _ids(30000, 20),
        "visual_feats": rng.standard_normal((1, 36, 2048), dtype=np.float32),
        "visual_pos": rng.random((1, 36, 4), dtype=np.float32),
    }


def _t5_inputs() -> dict[str, np.ndarray]:
    return {"input_ids": _ids(32000, 64), "decoder_input_ids": _ids(32000, 64)}


def _small_t5(library: Any) -> Any:
    config = library.T5Config(d_model=512, d_ff=2048, num_layers=6, num_heads=8, use_cache=False)
    return library.T5Model(config)


_ZOO: dict[str, Callable[[str], Model]] = {
    "googlenet": partial(_torchvision, "googlenet", 224, aux_logits=False, init_weights=False),
    "inception_v3": partial(_torchvision, "inception_v3", 299, aux_logits=False, init_weights=False),
    "resnet18": partial(_torchvision, "resnet18", 224),
    "resnet50": partial(_torchvision, "resnet50", 224),
    "squeezenet": partial(_torchvision, "squeezenet1_1", 224),
    "mobilenet_v2": partial(_torchvision, "mobilenet_v2", 224),
    "mobilenet_v3": partial(_torchvision, "mobilenet_v3_large", 224),
    "shufflenet": partial(_torchvision, "shufflenet_v2_x1_0", 224),
    "efficientnet_b0": partial(_torchvision, "efficientnet_b0", 224),
    "densenet121": partial(_torchvision, "densenet121", 224),
    "vgg19": partial(_torchvision, "vgg19", 224),
    "vit_b16": partial(_torchvision, "vit_b_16", 224),
    "swin_t": partial(_torchvision, "swin_t", 224),
    "hrnet_w18_small": partial(_timm, "hrnet_w18_small"),
    "nasnet": _nasnet,
    "bilstm": _bilstm,
    "branches": _branches,
    "bert_base": partial(
        _transformers, lambda t: t.BertModel(t.BertConfig()), _bert_inputs, ["last_hidden_state"]
    ),
    "clip": partial(
        _transformers,
        lambda t: t.CLIPModel(t.CLIPConfig()),
        _clip_inputs,
        ["logits_per_image", "text_embeds", "image_embeds"],
    ),
    "lxmert": partial(
        _transformers,
        lambda t: t.LxmertModel(t.LxmertConfig()),
        _lxmert_inputs,
        ["language_output", "vision_output", "pooled_output"],
    ),
    # Nothing was tuned on these five.
    "regnet_y_400mf": partial(_torchvision, "regnet_y_400mf", 224),
    "mnasnet": partial(_torchvision, "mnasnet1_0", 224),
    "convnext_tiny": partial(_torchvision, "convnext_tiny", 224),
    "dla34": partial(_timm, "dla34"),
    "distilbert": partial(
        _transformers,
        lambda t: t.DistilBertModel(t.DistilBertConfig()),
        _bert_inputs,
        ["last_hidden_state"],
    ),
    "t5_small": partial(_transformers, _small_t5, _t5_inputs, ["last_hidden_state"]),
    "inception_v1": partial(_light, "inception_v1"),
    "inception_v2": partial(_light, "inception_v2"),
    "squeezenet_onnx": partial(_light, "squeezenet"),
    "shufflenet_onnx": partial(_light, "shufflenet"),
    "resnet50_onnx": partial(_light, "resnet50"),
    "densenet121_onnx": partial(_light, "densenet121"),
    "vgg19_onnx": partial(_light, "vgg19"),
    "zfnet512": partial(_light, "zfnet512"),
    "alexnet_onnx": partial(_light, "bvlc_alexnet"),
}
