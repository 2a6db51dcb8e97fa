"""Each idiom of `torch_idioms` beside torch itself: right, or refused by name; a kind is one module."""

import numpy as np
import pytest

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
