"""Open the source of a model: the one place that knows which framework runs which kind."""

from __future__ import annotations

from ...frontend.model_source import ModelSource
from .source import NotVerifiedError, RunnableSource


def open_source(source: ModelSource) -> RunnableSource:
    """Return a source that runs.

    Raises
    ------
    NotVerifiedError
        If nothing here can run it.
    """
    if source.kind == "onnx":
        from .onnx_source import OnnxSource

        return OnnxSource(source.model, source.path, source.fixed)
    if source.kind == "torch":
        from .torch_source import TorchSource

        return TorchSource(source.model, source.fixed)
    raise NotVerifiedError("an IRModule has no source framework to compare with")
