"""Record the operators of a source while TVM imports it, and name what they make. [TVM]

A method of TVM's is wrapped, the one that makes a variable, which then gets the name of the operator at
hand, and one of its importer of torch programs, that converts an operator.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from .._tvm import relax
from .origins import Operator, Origins, numbers_of, variable_name

# The importers are modules of TVM, one for all threads.
_IMPORTING = threading.Lock()


class OriginLog:
    """The operators that were converted so far, and the variables of their values."""

    def __init__(self) -> None:
        self._operators: list[Operator] = []
        self._variables: dict[str, str] = {}
        self._at: list[int] = []  # operators being converted, each for the one before
        self._thread = threading.get_ident()

    @property
    def origins(self) -> Origins:
        """What was recorded."""
        return Origins(tuple(self._operators), tuple(self._variables.items()))

    @property
    def hint(self) -> str:
        """The name for a variable that is made now, empty outside of operators."""
        is_ours = self._at and threading.get_ident() == self._thread
        return variable_name(self._at[:1]) if is_ours else ""

    @property
    def is_converting(self) -> bool:
        """Whether an operator is being converted."""
        return bool(self._at)

    @property
    def is_nested(self) -> bool:
        """Whether an operator is being converted for another one."""
        return len(self._at) > 1

    @contextmanager
    def converting(self, operator: Operator) -> Iterator[None]:
        """Name what is made in this context by an operator; one inside another counts as that."""
        if not self._at:
            self._operators.append(operator)
        self._at.append(len(self._operators) - 1)
        try:
            yield
        finally:
            self._at.pop()

    def note(self, value: str, expr: Any) -> None:
        """Note which variable holds a value of the source; constants are none, nor those of branches."""
        if not self.is_nested and isinstance(expr, relax.Var):
            self._variables[value] = str(expr.name)


@contextmanager
def recording() -> Iterator[OriginLog]:
    """Name what is made in this context by the operators that the log is told of."""
    log = OriginLog()
    with _IMPORTING, _naming(log):
        yield log


@contextmanager
def recording_torch() -> Iterator[OriginLog]:
    """Record what `from_exported_program` imports in this context."""
    from tvm.relax.frontend.torch import exported_program_translator as translator

    log = OriginLog()
    base: Any = translator.ExportedProgramImporter

    class Importer(base):  # type: ignore[misc]
        """Names what each node makes; a branch of a condition belongs to the node as a whole."""

        convert_map: dict[str, Callable[..., Any]]

        def _translate_fx_graph(self, module: Any, nodes: Any, variables: Any, *rest: Any) -> Any:
            if not log.is_nested and not isinstance(self.convert_map, _Converters):
                self.convert_map = _Converters(self.convert_map, log)
            return super()._translate_fx_graph(module, nodes, variables, *rest)

    with _IMPORTING, _naming(log), _replaced(translator, "ExportedProgramImporter", Importer):
        yield log


class _Converters(dict[str, Callable[..., Any]]):
    """Torch converters by name, each of which names what it makes."""

    def __init__(self, converters: dict[str, Callable[..., Any]], log: OriginLog) -> None:
        super().__init__(converters)
        self._log = log

    def __getitem__(self, name: str) -> Callable[..., Any]:
        convert, log = super().__getitem__(name), self._log

        def converted(node: Any, *rest: Any) -> Any:
            with log.converting(torch_operator(node)):
                made = convert(node, *rest)
            if not log.is_converting:
                log.note(str(node.name), made)
            return made

        return converted


@contextmanager
def _naming(log: OriginLog) -> Iterator[None]:
    """Let each variable that is made in this context have the name of the operator at hand."""
    emit = relax.BlockBuilder.emit

    def named(self: Any, expr: Any, name_hint: str = "") -> Any:
        return emit(self, expr, log.hint or name_hint)

    output = relax.BlockBuilder.emit_output

    def named_output(self: Any, expr: Any, name_hint: str = "") -> Any:
        # The operator's own variable goes when bindings are made canonical, and this one stays.
        numbers = numbers_of(str(expr.name)) if isinstance(expr, relax.Var) else []
        return output(self, expr, name_hint or (variable_name(numbers) if numbers else ""))

    builder = relax.BlockBuilder
    with _replaced(builder, "emit", named), _replaced(builder, "emit_output", named_output):
        yield


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def holds_tensors(ty: Any) -> bool:
    """Return whether a type is of a tensor, or of a tuple of tensors alone."""
    if isinstance(ty, relax.TupleType):
        return all(map(holds_tensors, ty.fields))
    return isinstance(ty, relax.TensorType)


def onnx_operator(node: Any) -> Operator:
    """Return what a node of an ONNX graph is known by."""
    outputs = tuple(str(name) for name in node.output if name)
    label = str(node.name) or (outputs[0] if outputs else str(node.op_type))
    return Operator(label, f"{node.op_type} {label}", outputs)


def torch_operator(node: Any) -> Operator:
    """Return what a node of a torch program is known by."""
    target = str(getattr(node.target, "__name__", node.target)).removesuffix(".default")
    line = source_line(str(node.meta.get("stack_trace") or ""))
    text = f"{target} ({line})" if line else f"{target} {node.name}"
    return Operator(str(node.name), text, (str(node.name),))


_FRAME = re.compile(r'File "([^"]+)", line (\d+), in \S+\s*\n\s*([^\n]*)')


def source_line(stack_trace: str) -> str:
    """Return ``model.py:12: y = self.fc(x)`` of a stack trace: the innermost line outside of torch."""
    frames = _FRAME.findall(stack_trace)
    # Of code that torch has made itself there is no file.
    written = [frame for frame in frames if not frame[0].startswith("<")]
    own = [frame for frame in written if "/torch/" not in frame[0]] or written
    if not own:
        return ""
    path, number, code = own[-1]
    return f"{path.rpartition('/')[2]}:{number}: {code.strip()}"
