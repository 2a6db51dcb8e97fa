"""What people assign through masks, and classes as ones among zeros; see `torch_idioms`."""

import torch
import torch.nn.functional as F

_seeded = torch.Generator().manual_seed(5)


def _r(*shape):
    return torch.randn(*shape, generator=_seeded)


X, ROWS, DEEP = _r(5, 3), _r(5), _r(5, 3, 4, 2)


def _set(place, value):
    """Return what assigns to a copy of its first input; each of the two is a function or a constant."""

    def idiom(x, *others):
        x = x.clone()
        x[place(x, *others)] = value(x, *others) if callable(value) else value
        return x

    return idiom


def _scaled(x):
    x = x.clone()
    x[x > 0] *= 2
    x[x < -0.5] += 1
    return x


def _as_srgb(x):
    x, small = x.clone(), x <= 0.04
    x[~small] = 1.055 * x[~small] ** (1 / 2.4) - 0.055
    x[small] *= 12.92
    return x


def _within(x):
    x = x.clone()
    found = x[x > 0]
    found[found > 1] = 0.5
    x[x > 0] = found
    return x


MASKS = {
    "where": (_set(lambda x: torch.where(x > 0), 1.5), X),
    "nonzero as tuple": (_set(lambda x: (x > 0).nonzero(as_tuple=True), -1.0), X),
    "rows by nonzero": (_set(lambda x: torch.nonzero(x[:, 0] > 0)[:, 0], 0.0), X),
    "rows by squeezed nonzero": (_set(lambda x: torch.nonzero(x[:, 0] > 0).squeeze(-1), 0.0), X),
    "rows read by where": (
        _set(lambda x: torch.where(x[:, 0] > 0)[0], lambda x: x[torch.where(x[:, 0] > 0)[0]] + 1),
        X,
    ),
    "rows from a vector": (_set(lambda x, v: x[:, 0] > 0, lambda x, v: v), X, _r(3)),
    "rows from a row": (_set(lambda x, v: x[:, 0] > 0, lambda x, v: v), X, _r(1, 3)),
    "columns": (_set(lambda x, v: (slice(None), x[0] > 0), lambda x, v: v), X, _r(5, 1)),
    "two middle axes": (_set(lambda x, m: (slice(None), m > 0), 2.0), DEEP, _r(3, 4)),
    "middle axis from vectors": (
        _set(lambda x, m, v: (slice(None), m > 0), lambda x, m, v: v),
        DEEP,
        _r(3),
        _r(5, 1, 4, 2),
    ),
    "added to": (lambda x, v: x.clone().index_put_((v > 0,), torch.tensor(1.0), True), X, ROWS),
    "scaled in place": (_scaled, X),
    "from two tensors": (_set(lambda x, y: x > 0, lambda x, y: x[x > 0] * y[x > 0]), X, _r(5, 3)),
    "from another tensor": (_set(lambda x, y: x > 0, lambda x, y: torch.exp(-y[x > 0])), X, _r(5, 3)),
    "rows by a vector": (_set(lambda x, m, v: m > 0, lambda x, m, v: x[m > 0] * v), X, ROWS, _r(3)),
    "rows by a row": (_set(lambda x, m, v: m > 0, lambda x, m, v: x[m > 0] * v), X, ROWS, _r(1, 3)),
    "all that is masked by an embedding": (
        _set(lambda x, e, m: m > 0, lambda x, e, m: e),
        _r(2, 5, 3),
        _r(3),
        _r(2, 5),
    ),
    "whole numbers": (_set(lambda x: x == 3, -100), torch.arange(6).reshape(2, 3)),
    "srgb": (_as_srgb, torch.rand(3, 4, 4, generator=_seeded)),
    "one_hot": (lambda k: F.one_hot(k, 4), torch.tensor([[1, 0, 3]])),
    "one_hot of the largest": (lambda x, w: F.one_hot(x.argmax(-1), 3).float() @ w, X, _r(3, 2)),
    "rows as nonzero gives them": (_set(lambda x: torch.nonzero(x[:, 0] > 0), 0.5), X),
    "within what a mask selects": (_within, X),
}
#: What is refused, and the name in the message.
REFUSED = dict.fromkeys(
    ("rows as nonzero gives them", "within what a mask selects"), "as many places as the model finds"
)
