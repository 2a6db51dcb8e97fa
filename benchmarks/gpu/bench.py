"""Latency of models at batch 1: ours on CPU and GPU, on one of them; torch and ONNX Runtime.

    python benchmarks/gpu/bench.py --out OUT --work WORK --seconds 400 --models bilstm googlenet

Two processes for each model, one for ours and one for what else runs it, so that a crash costs one; one
JSON line in OUT/bench.jsonl per result, written when it is known. All make ready side by side what needs
no measuring: models, kernels, machine code. Then they measure in turn, alone on the machine. Records of
kernels, with which machines without this GPU can schedule for it, go to WORK/records; a trace of each
model, and its kernels alone beside the same in place, to WORK/logs, with what the processes say. Times
are of a call from host arrays to host arrays.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from turns import Child, take_turns, wait_until_ready

_HERE = Path(__file__).parent
_POLL_S = 0.2
MODELS = (
    "googlenet nasnet inception_v3 lxmert clip bilstm bert_base resnet50 mobilenet_v2 vit_b16".split()
)


def start(model: str, stage: str, args: argparse.Namespace) -> Child:
    """Start the process of a model and stage."""
    options = ["--stage", stage, "--out", str(args.out), "--work", str(args.work)]
    options += ["--streams", *map(str, args.streams)]
    command = [str(_HERE / "one_model.py"), model, *options]
    return Child(f"{model}_{stage}", command, args.work / "logs")


def write_ended(out: Path, child: Child, status: int | str) -> None:
    """Write down how a process ended, if not well."""
    if status:
        model, _, stage = child.name.rpartition("_")
        row = {"model": model, "what": stage, "ok": False, "error": f"ended with {status}"}
        with open(out / "bench.jsonl", "a") as file:
            file.write(json.dumps(row) + "\n")


def print_table(path: Path) -> None:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        value = f"{row['median_us']:.1f} us" if "median_us" in row else row.get("error", "")[:80]
        predicted = f"   predicted {row['predicted_us']:.1f}" if "predicted_us" in row else ""
        print(f"{row['model']:14} {row['what']:28} {value}{predicted}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--turn-seconds", type=float, default=60, help="that a process measures at most")
    parser.add_argument("--after", type=Path, help="file that is there once the machine is quiet")
    parser.add_argument("--models", nargs="*", default=MODELS)
    parser.add_argument("--peers", nargs="*", help="models whose peers are timed; by default all")
    parser.add_argument("--streams", nargs="*", type=int, default=[2, 4], help="of the GPU, beside 3")
    args = parser.parse_args()
    end = time.monotonic() + args.seconds
    (args.work / "logs").mkdir(parents=True, exist_ok=True)
    (args.out / "bench.jsonl").touch()
    with_peers = args.models if args.peers is None else args.peers
    children = [
        start(model, stage, args)
        for model in args.models
        for stage in ("peers", "ours")
        if stage == "ours" or model in with_peers
    ]
    wait_until_ready(children, args.seconds / 3)
    while args.after and not args.after.exists() and time.monotonic() < end:
        time.sleep(_POLL_S)
    print(f"{sum(child.may_go for child in children)} of {len(children)} are ready", flush=True)
    take_turns(children, args.turn_seconds, end, lambda *how: write_ended(args.out, *how))
    print_table(args.out / "bench.jsonl")


if __name__ == "__main__":
    main()
