"""What the stages of a compilation take: the first on a new machine, and the second of the same model.

    python benchmarks/stages.py --json stages.json
    python benchmarks/stages.py --python ../older/.venv/bin/python   # another version
    python benchmarks/stages.py --also=--leave-out                   # the first, with an option too

Each model is written to an ONNX file once, and compiled by the command, as a user does, twice: with
nothing on record and no code kept, and again. Both are processes of their own; what is printed are the
seconds of each stage, and the whole with imports. ``tvm.compile`` of the same module, for the same
target with its default pipeline, stands beside them: its own seconds, and those of a process that
reads the same file, compiles it and writes a library, with imports. A benchmark never fails on a time.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import models
import onnx

_MODELS = "inception_v1 squeezenet_onnx densenet121_onnx resnet50_onnx shufflenet_onnx bert_base".split()
_DEFAULT = """
import sys, time
import tvm
from tvm import relax
from tvm_sphinx.frontend.load import load_model
from tvm_sphinx.platform import Device
from tvm_sphinx.platform.targets import device_target, host_target
module = load_model(sys.argv[1])
target = device_target(Device("reference", host_target(), "cpu:0", (0,)))
begin = time.perf_counter()
compiled = tvm.compile(module, target, relax_pipeline=relax.get_default_pipeline(target))
print(time.perf_counter() - begin)
compiled.export_library(sys.argv[2])
"""


def main() -> None:
    args = _parse()
    rows = []
    for name in args.models:
        with tempfile.TemporaryDirectory(prefix="tvm-sphinx-") as folder:
            file = Path(folder) / f"{name}.onnx"
            model = onnx.load_from_string(models.load(name).onnx())
            model.ir_version = max(8, model.ir_version)  # before 4, weights have to be inputs as well
            onnx.save(model, file)
            row: dict[str, Any] = {"model": name}
            begin = time.perf_counter()
            library = f"{folder}/library.so"
            row["tvm.compile"] = float(_run(args.python, ["-c", _DEFAULT, str(file), library], folder))
            row["tvm.compile, process"] = time.perf_counter() - begin
            for turn in ("first", "second"):
                row[turn] = _compile(args.python, file, args.platform, folder)
                _print_row(name, turn, row)
            for option in args.also:
                turn = f"first, {option}"
                with tempfile.TemporaryDirectory(prefix="tvm-sphinx-") as fresh:
                    row[turn] = _compile(args.python, file, args.platform, fresh, option)
                _print_row(name, turn, row)
        rows.append(row)
        if args.json:
            Path(args.json).write_text(json.dumps(rows, indent=1), encoding="utf-8")


def _compile(python: str, file: Path, platform: str, folder: str, *options: str) -> dict[str, float]:
    """Return seconds by stage, and ``"all"``, of one compilation by the command."""
    output = f"{folder}/model.sphinx"
    command = ["-m", "tvm_sphinx", "compile", str(file), "--platform", platform, "-o", output, "--json"]
    command += options
    begin = time.perf_counter()
    told = json.loads(_run(python, command, folder))
    stages: dict[str, float] = told["stages_s"]
    return {**stages, "all": time.perf_counter() - begin}


def _run(python: str, arguments: list[str], folder: str) -> str:
    env = {**os.environ, "TVM_SPHINX_HOME": f"{folder}/home", "TVM_SPHINX_CODE": f"{folder}/code"}
    env.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package has its bytecode
    done = subprocess.run([python, *arguments], env=env, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(arguments[-6:])}: {done.stderr.strip()[-2000:]}")
    return done.stdout


def _print_row(name: str, turn: str, row: dict[str, Any]) -> None:
    stages = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in row[turn].items())
    tvm = f"tvm.compile {row['tvm.compile']:.1f} s, {row['tvm.compile, process']:.1f} s in all"
    print(f"{name}, {turn} ({tvm}): {stages}", flush=True)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--models", nargs="+", default=_MODELS, choices=models.names(), metavar="MODEL")
    parser.add_argument("--platform", default="detect")
    parser.add_argument("--also", nargs="+", default=[], help="options of a further first compilation")
    parser.add_argument("--python", default=sys.executable, help="whose tvm_sphinx is measured")
    parser.add_argument("--json", help="write the figures to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
