"""Kill `tune` with SIGKILL at random moments, again and again, and count the records that are lost.

A child is forked for each kill, so that it tunes at once and does not import first. After each kill
the files are repaired as the next run does it, and compared with what they held: no complete line may be
gone, MetaSchedule has to open them, and the next run has to add to them.

Usage: python -m benchmarks.tune_kills [--kills 50] [--longest 3] [--seed 0]
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import tempfile
import time
import warnings
from pathlib import Path

from tvm.s_tir.meta_schedule.database import JSONDatabase

from tests.tune.networks import one_core, product_net
from tvm_sphinx.tune import session, tune_model
from tvm_sphinx.tune.store import TuningStore


def tune(folder: Path, seed: int) -> None:
    config = session.TuneConfig(trials=1_000_000, seed=seed, sample_ms=0.5)
    tune_model(product_net(), one_core(), config, records=folder)


def lines(folder: Path) -> dict[Path, list[bytes]]:
    """Return the complete lines of each file, and what stands behind the last newline."""
    return {path: path.read_bytes().split(b"\n") for path in folder.glob("tuning/*/database_*.json")}


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("tuning/*/*_record.json"))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument(
        "--longest", type=float, default=3.0, help="seconds from a new record to the kill"
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    context = multiprocessing.get_context("fork")
    torn = lost = fruitful = 0
    before: dict[Path, list[bytes]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(args.kills):
            held = size(folder)
            child = context.Process(target=tune, args=(folder, number))
            child.start()
            # Every fifth child is killed at its start, the others while they write.
            while number % 5 and child.is_alive() and size(folder) <= held:
                time.sleep(0.01)
            time.sleep(rng.uniform(0, args.longest))
            child.kill()
            child.join()
            after = lines(folder)
            torn += any(content[-1] for content in after.values())
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what was torn is counted here
                for place in {path.parent for path in after}:
                    TuningStore(place)
            repaired = lines(folder)
            for path, content in after.items():
                lost += content[:-1] != repaired[path][:-1]
            for path, content in before.items():
                lost += content[:-1] != repaired[path][: len(content) - 1]
            for place in {path.parent for path in after}:
                opened = len(JSONDatabase(work_dir=str(place)))
                lost += opened != len(repaired[place / "database_tuning_record.json"]) - 1
            fruitful += sum(map(len, repaired.values())) > sum(map(len, before.values()))
            before = repaired
            records = sum(len(c) - 1 for p, c in before.items() if p.name.endswith("record.json"))
            print(
                f"{number + 1} kills: {records} records, {fruitful} runs added to them, {torn} left a "
                f"torn line, {lost} files lost a complete line",
                flush=True,
            )


if __name__ == "__main__":
    main()
