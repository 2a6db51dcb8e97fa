"""The command under fire: Ctrl-C, closed and full outputs, damaged files, ASCII, no compiler."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import onnx.parser
import pytest
import tvm
from tvm import relax

import tvm_sphinx
from tests.processes import module_command
from tvm_sphinx.cli import main
from tvm_sphinx.cli.terminal import prepared_terminal
from tvm_sphinx.errors import ModelError, SphinxError
from tvm_sphinx.frontend.tensor_spec import TensorSpec
from tvm_sphinx.interrupt import raise_if_interrupted
from tvm_sphinx.platform import Device, Platform
from tvm_sphinx.platform.targets import device_target, host_target
from tvm_sphinx.program.array_files import read_inputs, write_outputs
from tvm_sphinx.program.build import library_bytes
from tvm_sphinx.program.compiled import CompiledModel
from tvm_sphinx.program.kinds import StockProgram
from tvm_sphinx.report.files import check_writable
from tvm_sphinx.runtime.artifact import write_artifact
from tvm_sphinx.runtime.kernels import compile_kernels

_ROOT = Path(__file__).parent.parent.parent


def small_model() -> onnx.ModelProto:
    return onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> net (float[2,3] x) => (float[2,3] y) { y = Tanh(x) }'
    )


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program that needs no costs, whose names are as those of TensorFlow, or Japanese."""
    target = device_target(Device("one", host_target(), "cpu:0", (0,)))
    x = relax.Var("x", relax.TensorType((2, 3), "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x]):
        builder.emit_func_output(builder.emit(relax.op.negative(x)))
    pipeline = relax.get_default_pipeline(target)
    executable = tvm.compile(builder.get(), target, relax_pipeline=pipeline)
    path = tmp_path_factory.mktemp("program") / "out.sphinx"
    CompiledModel(
        inputs=(TensorSpec("serving.x:0", (2, 3), "float32"),),
        outputs=(TensorSpec("出力/file", (2, 3), "float32"),),
        platform=Platform((Device("one", host_target(), "cpu:0", (0,)),)),
        program=StockProgram(library_bytes(executable), ("cpu:0",), "main"),
        reference=None,
        report=None,
    ).save(path)
    return path


def command(*args: object, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tvm_sphinx", *map(str, args)],
        cwd=_ROOT,
        text=True,
        timeout=300,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
    )


# -- names


def test_inputs_and_outputs_have_the_names_of_the_file(program: Path, tmp_path: Path) -> None:
    given, made = tmp_path / "in.npz", tmp_path / "out.npz"
    write_outputs(str(given), {"serving.x:0": np.arange(6, dtype=np.float32).reshape(2, 3)})
    assert main(["run", str(program), "-i", str(given), "-o", str(made)]) == 0
    assert list(read_inputs(str(made))) == ["出力/file"]
    np.testing.assert_array_equal(read_inputs(str(made))["出力/file"], -np.arange(6).reshape(2, 3))


def test_an_ascii_terminal_shows_other_letters_escaped(program: Path) -> None:
    environment = {**os.environ, "LANG": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    found = command("run", program, env=environment)
    assert found.returncode == 0, found.stderr
    assert "\\u51fa\\u529b/file" in found.stdout
    # Nothing but the result is on stdout, and nothing at all on stderr.
    assert found.stderr == ""
    assert len(found.stdout.splitlines()) == 1


# -- outputs


def test_a_full_or_closed_output_is_one_line_and_no_traceback(program: Path) -> None:
    with open("/dev/full", "w") as full:
        found = command("run", program, stdout=full)
    assert found.returncode == 4
    assert found.stderr == "error: Cannot read or write the output: No space left on device.\n"
    reader, writer = os.pipe()
    os.close(reader)
    found = command("run", program, stdout=writer)
    os.close(writer)
    assert (found.returncode, found.stderr) == (141, "")


def test_a_device_is_written_to_and_stays_one(program: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(program), "-o", "/dev/full"]) == 4
    assert "Cannot write '/dev/full': No space left on device." in capsys.readouterr().err
    with pytest.raises(SphinxError, match="Cannot write '/dev/full': No space left"):
        write_artifact("/dev/full", {}, {"a": b"content" * 9999})
    write_artifact("/dev/null", {}, {"a": b"content"})
    assert Path("/dev/full").is_char_device()
    assert Path("/dev/null").is_char_device()


def test_outputs_are_checked_before_the_work(tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    onnx.save(small_model(), model)
    content = model.read_bytes()
    with pytest.raises(SphinxError, match=r"another file .* which is read"):
        check_writable(str(model), besides=str(model))
    assert main(["compile", str(model), "-o", str(model)]) == 4
    assert main(["run", str(tmp_path / "none"), "-o", str(tmp_path / "no" / "out.npz")]) == 4
    assert model.read_bytes() == content
    read_only = tmp_path / "read-only"
    read_only.write_text("")
    read_only.chmod(0o444)
    if not os.access(read_only, os.W_OK):  # root may write to it all the same
        with pytest.raises(SphinxError, match="Permission denied"):
            check_writable(str(read_only))


def test_an_interrupted_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_artifact(tmp_path / "out.sphinx", {}, {"a": b"content"})
    with pytest.raises(KeyboardInterrupt):
        write_outputs(str(tmp_path / "out.npz"), {"a": np.zeros(3)})
    assert list(tmp_path.iterdir()) == []


# -- damaged and foreign files


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "npy", "text", "missing"])
def test_damaged_inputs_are_one_sentence(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "in.npz"
    write_outputs(str(path), {"x": np.arange(999.0)})
    content = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        content[300:400] = b"\xff" * 100
        path.write_bytes(content)
    elif damage == "npy":
        with open(path, "wb") as file:
            np.save(file, np.zeros(3))
    elif damage == "missing":
        path.unlink()
    else:
        path.write_bytes(b"" if damage == "empty" else b"x: [1, 2]\n")
    with pytest.raises(ModelError, match=r"as \.npz") as caught:
        read_inputs(str(path))
    assert "\n" not in str(caught.value)
    assert "pickle" not in str(caught.value)


@pytest.mark.parametrize("content", [b"\x08\x08:model", b"[[device]]\n", b"PK\x03\x04zip"])
def test_a_foreign_file_of_records_is_refused_and_not_appended_to(
    content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    foreign, model = tmp_path / "foreign", tmp_path / "model.onnx"
    foreign.write_bytes(content)
    onnx.save(small_model(), model)
    assert main(["compile", str(model), "--records", str(foreign)]) == 4
    assert "holds something else, and stays as it is" in capsys.readouterr().err
    assert foreign.read_bytes() == content
    assert main(["compile", str(model), "--records", "/dev/full"]) == 4
    assert "no plain file" in capsys.readouterr().err


def test_a_missing_compiler_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "model.onnx"
    onnx.save(small_model(), model)
    monkeypatch.setenv("PATH", str(tmp_path))
    arguments = ["compile", str(model), "--records", str(tmp_path / "r.jsonl"), "-q"]
    assert main([*arguments, "-o", str(tmp_path / "out")]) == 4
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: Expected a C compiler")
    assert not (tmp_path / "out").exists()


# -- Ctrl-C


def test_ctrl_c_inside_tvm_stays_what_it_is() -> None:
    """TVM would make a RuntimeError of it, and that a kernel that can never be built."""
    target = device_target(Device("one", host_target(), "cpu:0", (0,)))
    function = tvm.te.create_prim_func([tvm.te.placeholder((4,), name="x")])

    @tvm.transform.module_pass(opt_level=0, name="Interrupted")
    class Interrupted:
        def transform_module(self, mod: object, _ctx: object) -> object:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compile_kernels(
            {"f": function.with_attr("target", target)}, tvm.transform.Sequential([Interrupted()])
        )


def test_ctrl_c_while_kernels_are_linked_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model, out, records = tmp_path / "model.onnx", tmp_path / "out", tmp_path / "records.jsonl"
    onnx.save(small_model(), model)
    monkeypatch.setattr(
        tvm.support.cc, "create_shared", lambda *_, **__: os.kill(os.getpid(), signal.SIGINT)
    )
    before = signal.getsignal(signal.SIGINT)
    assert main(["compile", str(model), "--records", str(records), "-o", str(out), "-q"]) == 130
    assert capsys.readouterr().err == "interrupted\n"
    assert not out.exists()
    assert '"kind":"kernel"' not in records.read_text()
    assert signal.getsignal(signal.SIGINT) is before


def test_a_swallowed_ctrl_c_still_ends_the_command() -> None:
    with prepared_terminal():
        with contextlib.suppress(KeyboardInterrupt):  # as a library does that calls back into Python
            os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            raise_if_interrupted()
    with prepared_terminal():
        raise_if_interrupted()


def test_a_second_ctrl_c_ends_a_loop_that_would_never_end(tmp_path: Path) -> None:
    """A kernel that has begun cannot be stopped."""
    text = """<ir_version: 8, opset_import: ["": 17]> net (float[4] x) => (float[4] y) {
        zero = Constant <value = float {0}> () s = ReduceSum <keepdims = 0> (x) c = Greater (s, zero)
        y = Loop (, c, x) <body = b (int64 i, bool d, float[4] r) => (bool e, float[4] o)
            { o = Add (r, r) none = Constant <value = float {0}> () t = ReduceSum <keepdims = 0> (r)
              e = Greater (t, none) }> }"""
    model, program = onnx.parser.parse_model(text), tmp_path / "out.sphinx"
    names = {"negative": -1.0, "positive": 1.0}
    for name, value in names.items():
        np.savez(tmp_path / f"{name}.npz", x=np.full(4, value, np.float32))
    tvm_sphinx.compile(model, records=None, verify=False, measure_budget_s=0, output=program)
    command = module_command("tvm_sphinx", "run", str(program), "-i")
    assert subprocess.run([*command, str(tmp_path / "negative.npz")], check=False).returncode == 0
    child = subprocess.Popen([*command, str(tmp_path / "positive.npz")], stderr=subprocess.PIPE)
    try:
        while not _has_busy_thread(child.pid):
            assert child.poll() is None
            time.sleep(0.05)
        child.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(1.0)
        child.send_signal(signal.SIGINT)
        assert child.wait(60) == -signal.SIGINT  # a shell calls this 130
    finally:
        child.kill()
        child.wait()


def _has_busy_thread(process: int) -> bool:
    """Return whether a thread beside the main one has computed for half a second."""
    for path in Path(f"/proc/{process}/task").iterdir():
        with contextlib.suppress(OSError):
            ticks = int((path / "stat").read_text().rpartition(")")[2].split()[11])
            if path.name != str(process) and ticks > os.sysconf("SC_CLK_TCK") / 2:
                return True
    return False


# -- messages


def test_a_warning_is_one_line_and_quiet_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    with prepared_terminal():
        warnings.warn("the machine\n  was busy", stacklevel=1)
        warnings.warn("of a library's next version", FutureWarning, stacklevel=1)
    assert capsys.readouterr().err == "warning: the machine was busy\n"
    with prepared_terminal(quiet=True):
        warnings.warn("the machine was busy", stacklevel=1)
    assert capsys.readouterr().err == ""


def test_tvms_log_is_kept_away_and_all_else_is_not() -> None:
    code = (
        "import os\n"
        "from tvm_sphinx.cli.terminal import prepared_terminal\n"
        "with prepared_terminal():\n"
        "    os.write(2, b'[12:30:05] /project/src/relax/ir/block_builder.cc:67: Warning: chatter\\n')\n"
        "    os.write(2, b'gcc: error\\n[not] a log\\n')\n"
        "    print('ours', file=__import__('sys').stderr)\n"
        "os.write(2, b'after\\n')\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=_ROOT, check=True
    )
    assert sorted(found.stderr.splitlines()) == ["[not] a log", "after", "gcc: error", "ours"]


def test_a_fault_of_ours_is_one_line(
    monkeypatch: pytest.MonkeyPatch, program: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise LookupError("first\nsecond")

    monkeypatch.setattr(CompiledModel, "load", broken)
    assert main(["run", str(program)]) == 70
    told = "error: A fault of tvm-sphinx, or of TVM under it: LookupError: first second\n"
    assert capsys.readouterr().err == told
    monkeypatch.setenv("TVM_SPHINX_DEBUG", "1")
    with pytest.raises(LookupError):
        main(["run", str(program)])
