"""Each idiom of `torch_idioms` beside torch itself: right, or refused by name; a kind is one module."""

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

torch = pytest.importorskip("torch")

from tvm_sphinx.errors import ModelError  # noqa: E402 - torch may be missing
from tvm_sphinx.frontend.load import load_model  # noqa: E402 - as above

from .run_module import evaluate  # noqa: E402 - as above
from .torch_idioms import KINDS, REFUSED  # noqa: E402 - as above

_LOOSE = {torch.float16: 1e-2, torch.bfloat16: 1e-2}


class Idioms(torch.nn.Module):
    """Calls each function with its own inputs."""

    def __init__(self, functions, counts):
        super().__init__()
        self.functions, self.counts = functions, counts
        layers = [each for each in functions if isinstance(each, torch.nn.Module)]
        self.layers = torch.nn.ModuleList(layers)  # so that their weights are the program's

    def forward(self, *tensors):
        outputs, place = [], 0
        for function, count in zip(self.functions, self.counts, strict=True):
            outputs.append(function(*tensors[place : place + count]))
            place += count
        return outputs


def tensors_of(outputs):
    return [leaf for leaf in torch.utils._pytree.tree_leaves(outputs) if isinstance(leaf, torch.Tensor)]


@pytest.mark.filterwarnings(
    "ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning:torch"
)
@pytest.mark.parametrize("kind", KINDS)
def test_idioms_come_out_as_in_torch(kind):
    idioms = {name: idiom for name, idiom in KINDS[kind].items() if name not in REFUSED}
    functions = [function for function, *_ in idioms.values()]
    inputs = [tensor for _, *tensors in idioms.values() for tensor in tensors]
    module = Idioms(functions, [len(idiom) - 1 for idiom in idioms.values()]).eval()
    with torch.no_grad():
        names, want = [], []
        for name, (function, *tensors) in idioms.items():
            found = tensors_of(function(*tensors))
            names += [name] * len(found)
            want += found
    got = evaluate(load_model(torch.export.export(module, tuple(inputs))), inputs)
    assert len(got) == len(want)
    for name, right, mine in zip(names, want, got, strict=True):
        if right.dtype != torch.bfloat16:
            assert str(mine.dtype) == str(right.dtype).removeprefix("torch."), name
        # TVM leaves out the roundings to bfloat16 inside a kernel, and is nearer to the exact result.
        close = 1e-2 if "bf16" in name else _LOOSE.get(right.dtype, 2e-5)
        close = 1e-12 if kind == "doubles" else close
        right = right.double().numpy() if right.dtype.is_floating_point else right.numpy()
        assert mine.shape == right.shape, name
        np.testing.assert_allclose(
            mine.astype(right.dtype), right, rtol=close, atol=close, equal_nan=True, err_msg=name
        )


@pytest.mark.filterwarnings(
    "ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning:torch"
)
@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_counterpart_is_refused_by_name(name):
    ((function, *tensors),) = [idioms[name] for idioms in KINDS.values() if name in idioms]
    program = torch.export.export(Idioms([function], [len(tensors)]).eval(), tuple(tensors))
    with pytest.raises(ModelError, match=REFUSED[name]) as caught:
        load_model(program)
    assert "\n" not in str(caught.value)


def test_a_buffer_that_the_model_changes_is_refused():
    class Counter(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("count", torch.zeros(3))

        def forward(self, x):
            self.count.add_(1)
            return x + self.count

    program = torch.export.export(Counter(), (torch.ones(2, 3),))
    with pytest.raises(ModelError, match="changes its buffer 'count'"):
        load_model(program)


def test_an_operator_of_another_library_is_not_taken_for_torch_s_own():
    library = torch.library.Library("tvm_sphinx_tests", "DEF")
    library.define("relu(Tensor x) -> Tensor")
    library.impl("relu", lambda x: 3 * x.clamp(min=0), "CompositeExplicitAutograd")
    torch.library.register_fake("tvm_sphinx_tests::relu", torch.empty_like, lib=library)

    class Tripled(torch.nn.Module):
        def forward(self, x):
            return torch.ops.tvm_sphinx_tests.relu(x)

    program = torch.export.export(Tripled(), (torch.ones(2, 3),))
    with pytest.raises(ModelError, match=r"'tvm_sphinx_tests\.relu\.default'.*torch's own"):
        load_model(program)


def define(namespace, schema, function, shape_of):
    """Define an operator of another library, if that is not there itself."""
    name = schema.partition("(")[0]
    if hasattr(getattr(torch.ops, namespace), name):
        return
    library = torch.library.Library(namespace, "FRAGMENT")
    library.define(schema)
    library.impl(name, function, "CompositeExplicitAutograd")
    torch.library.register_fake(f"{namespace}::{name}", shape_of, lib=library)
    _LIBRARIES.append(library)


_DEFORMED = """deform_conv2d(Tensor input, Tensor weight, Tensor offset, Tensor mask, Tensor bias,
    SymInt stride_h, SymInt stride_w, SymInt pad_h, SymInt pad_w, SymInt dilation_h, SymInt dilation_w,
    SymInt groups, SymInt offset_groups, bool use_mask) -> Tensor"""


def _deformed(x, weight, offset, mask, bias, *numbers):
    """Return what onnx's evaluator makes of a deformable convolution."""
    names = ["x", "w", "o", "b", "m"] if numbers[8] else ["x", "w", "o", "b"]
    node = onnx.helper.make_node(
        "DeformConv", names, ["y"], strides=numbers[0:2], pads=[*numbers[2:4], *numbers[2:4]],
        dilations=numbers[4:6], group=numbers[6], offset_group=numbers[7],
    )  # fmt: skip
    value = onnx.helper.make_tensor_value_info
    given = dict(zip(names, (x, weight, offset, bias, mask), strict=False))
    inputs = [value(name, 1, tensor.shape) for name, tensor in given.items()]
    graph = onnx.helper.make_graph([node], "deformed", inputs, [value("y", 1, None)])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 22)])
    feeds = {name: tensor.detach().numpy() for name, tensor in given.items()}
    return torch.from_numpy(ReferenceEvaluator(model).run(None, feeds)[0])


@pytest.mark.parametrize("uses_mask", [True, False])
def test_deformable_convolutions_are_sampled_where_they_say(uses_mask):
    """As torchvision has them, by an operator that it defines."""
    define(
        "torchvision",
        _DEFORMED,
        _deformed,
        lambda x, w, o, *_: x.new_empty(x.shape[0], w.shape[0], *o.shape[2:]),
    )

    class Deformed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.bias = (torch.nn.Parameter(torch.randn(*s)) for s in ((6, 2, 3, 3), (6,)))

        def forward(self, x, offset, mask):
            numbers = (2, 1, 1, 1, 1, 2, 2, 1, uses_mask)
            return torch.ops.torchvision.deform_conv2d(x, self.weight, offset, mask, self.bias, *numbers)

    torch.manual_seed(0)
    module = Deformed().eval()
    inputs = torch.randn(1, 4, 8, 9), 2 * torch.randn(1, 18, 4, 7), torch.rand(1, 9, 4, 7)
    program = torch.export.export(module, inputs)
    loaded = load_model(program)
    used = inputs[: len(loaded["main"].params)]
    (got,) = evaluate(loaded, [tensor.numpy() for tensor in used])
    np.testing.assert_allclose(got, module(*inputs).detach().numpy(), rtol=1e-4, atol=1e-4)


# Groups that are empty, at the front, in the middle and at the end, and rows that belong to none.
@pytest.mark.parametrize("ends", [(2, 2, 7, 10), (0, 4, 10, 10), (0, 0, 0, 6), (10, 10, 10, 10)])
def test_groups_of_rows_are_multiplied_by_a_matrix_each(ends):
    """As networks of experts do it, by an operator that the package transformers defines."""
    define(
        "transformers",
        "grouped_mm_fallback(Tensor input, Tensor weight, Tensor offs) -> Tensor",
        _grouped,
        lambda rows, weights, _: rows.new_empty(rows.shape[0], weights.shape[2]),
    )

    class Experts(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.randn(4, 8, 16))

        def forward(self, x, offsets):
            return torch.ops.transformers.grouped_mm_fallback(x, self.weight, offsets)

    torch.manual_seed(0)
    module, inputs = Experts().eval(), (torch.randn(10, 8), torch.tensor(ends, dtype=torch.int32))
    (got,) = evaluate(load_model(torch.export.export(module, inputs)), inputs)
    right = _grouped(inputs[0], module.weight.detach(), inputs[1]).numpy()
    np.testing.assert_allclose(got, right, rtol=1e-5, atol=1e-5)


_LIBRARIES = []  # a library lives as long as its object


def _grouped(rows, weights, offsets):
    product = torch.zeros(rows.shape[0], weights.shape[2])
    begin = 0
    for weight, end in zip(weights, offsets.tolist(), strict=True):
        product[begin:end] = rows[begin:end] @ weight
        begin = end
    return product
