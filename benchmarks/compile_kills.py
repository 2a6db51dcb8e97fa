"""Kill `compile` with SIGKILL at random moments, two at a time on one home, and count what is lost.

    python benchmarks/compile_kills.py model.onnx [--kills 30] [--longest 12] [--seed 0]

Each turn two commands compile the same model with the same records and the same code; after a random
time one of them is killed, or both. What they kept is then looked at: code that does not match its
digest, lines of records that do not end, and complete lines that were there before and are gone. Now and
then a file of code is damaged, too; it has to be made again, or not to be used. Where a command came to
its end all begins anew. At last the model is compiled to the end, and verified against its source.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tvm_sphinx.kernels.code_cache import CACHE_VARIABLE, read_cached

# One of so many turns damages a file of code.
_DAMAGE = 5


def start(model: str, home: Path, output: Path) -> subprocess.Popen[bytes]:
    env = {**os.environ, "TVM_SPHINX_HOME": str(home)}
    command = [sys.executable, "-m", "tvm_sphinx", "compile", model, "-o", str(output), "--json"]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def lines(home: Path) -> dict[str, tuple[list[bytes], bytes]]:
    """Return the complete lines of each file of records, and what stands behind the last newline."""
    found = {}
    for path in home.glob("*.jsonl"):
        *complete, rest = path.read_bytes().split(b"\n")
        found[path.name] = complete, rest
    return found


def files_of_code(home: Path) -> list[Path]:
    """Return the files of code; what begins with a dot was still being written."""
    return [path for path in (home / "code").glob("*") if not path.name.startswith(".")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--longest", type=float, default=12.0, help="seconds to a kill, at most")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng, seen = random.Random(args.seed), Counter[str]()
    before: dict[str, tuple[list[bytes], bytes]] = {}
    damaged: dict[Path, bytes] = {}
    with tempfile.TemporaryDirectory(prefix="tvm-sphinx-") as name:
        home = Path(name)
        os.environ[CACHE_VARIABLE] = str(home / "code")
        while seen["killed"] < args.kills:
            running = [start(args.model, home, home / f"{n}.sphinx") for n in range(2)]
            time.sleep(rng.uniform(0, args.longest))
            for process in running[: rng.choice((1, 2, 2))]:
                seen["killed"] += process.poll() is None
                process.kill()
            for process in running:
                _, told = process.communicate()
                seen["ended by themselves"] += process.returncode == 0
                if process.returncode not in (0, -9):
                    seen["failed"] += 1
                    print(told.decode().strip()[-500:])
            after = lines(home)
            seen["torn lines"] += sum(bool(rest) for _, rest in after.values())
            for file, (complete, _) in before.items():
                kept = Counter(after.get(file, ([], b""))[0])
                seen["lost lines"] += sum((Counter(complete) - kept).values())
            code = files_of_code(home)
            broken = [path for path in code if read_cached(path.name) is None]
            seen["code that is not whole"] += sum(p.read_bytes() != damaged.get(p) for p in broken)
            if code and rng.randrange(_DAMAGE) == 0:
                path = rng.choice(code)
                damaged[path] = path.read_bytes()[: rng.randrange(200)]
                path.write_bytes(damaged[path])
                seen["damaged by us"] += 1
            before = after
            records = sum(len(complete) for complete, _ in after.values())
            print(f"{dict(seen)}, {len(code)} files of code, {records} records", flush=True)
            if any(process.returncode == 0 for process in running):
                shutil.rmtree(home / "code")
                for file in after:
                    (home / file).unlink()
                before, damaged = {}, {}
        last = start(args.model, home, home / "last.sphinx")
        told, errors = last.communicate()
        if last.returncode:
            sys.exit(f"The last compilation failed: {errors.decode()[-500:]}")
        print(json.loads(told)["summary"])


if __name__ == "__main__":
    main()
