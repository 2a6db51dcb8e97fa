"""Let torch export many small programs in one process without making the same tables each time."""

from __future__ import annotations

import functools
import typing

import torch
from torch._export import utils
from torch.export import decomp_utils, exported_program


def keep_tables() -> None:
    """Keep the table of composite operators, since none is registered while programs are drawn.

    What is exported does not change: making that table, and type annotations, took half of the time.
    """
    kept = functools.cache(utils._collect_all_valid_cia_ops)
    decomp_utils._collect_all_valid_cia_ops = kept  # type: ignore[attr-defined]
    exported_program._collect_all_valid_cia_ops = kept  # type: ignore[attr-defined]
    # The subscripts of this form are remembered, those of ``collections.abc`` are not.
    torch._ops.Callable = typing.Callable  # type: ignore[attr-defined]
