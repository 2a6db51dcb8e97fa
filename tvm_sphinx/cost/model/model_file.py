"""The cost model on disk: XGBoost's own JSON for the trees, and a small file that says what they are."""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...errors import ArtifactError
from ...platform.home import data_home
from .features import FEATURE_NAMES, FEATURE_VERSION, FloatArray
from .regression import HeldOut, predict_ns, predict_spread

#: Version of the meta file.
SCHEMA = 2
_KIND = "cpu"
_DIGEST = "meta_sha256"
#: The model that comes with the package, learned on the processor that its ``README.md`` names.
SHIPPED = Path(__file__).parent / "shipped" / f"{_KIND}-model.json"


@dataclass(frozen=True, eq=False)
class CostModel:
    """A trained model of one kind of device.

    Parameters
    ----------
    booster, spread
        Trees for the time and for its spread.
    tvm
        Version of apache-tvm whose kernels it has learned.
    training_fingerprint
        Of the training set, see `TrainingSet.fingerprint`.
    num_rows
        Rows of the training set.
    heldout
        Errors on kernels left out of training.
    """

    booster: Any
    spread: Any
    tvm: str
    training_fingerprint: str
    num_rows: int
    heldout: HeldOut

    def predict(self, features: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the time and the spread of each row of features, in ns, both of shape (N,)."""
        times = predict_ns(self.booster, features)
        return times, times * predict_spread(self.spread, features)


def default_model_path() -> Path:
    """Return where the model is kept by default: ``cpu-model.json`` in `data_home`."""
    return data_home() / f"{_KIND}-model.json"


def find_cost_model() -> Path:
    """Return the model to use where none is named: that of this machine, else the one that is shipped.

    A device's rates are among the features, so that the model of another machine tells something of this
    one, if less than its own would.
    """
    own = default_model_path()
    return own if any(path.exists() for path in _paths(own)) else SHIPPED


def fingerprint_of(path: Path) -> str:
    """Return the fingerprint that a model's file gives of its training set, "" if it gives none."""
    try:
        meta = _read_meta(_paths(path)[2])
    except ArtifactError:
        return ""
    return str(meta.get("training_fingerprint", ""))


def save_cost_model(model: CostModel, path: str | Path) -> None:
    """Write a model to ``NAME.json``, ``NAME.spread.json`` and ``NAME.meta.json``.

    The meta file comes last, so that a write that is cut short leaves a model that does not match it
    and is refused.

    Raises
    ------
    ArtifactError
        If a file cannot be written.
    """
    trees, spread, meta = _paths(path)
    try:
        trees.parent.mkdir(parents=True, exist_ok=True)
        digests = []
        for file, booster in ((trees, model.booster), (spread, model.spread)):
            raw = bytes(booster.save_raw("json"))
            _replace(file, raw)
            digests.append(hashlib.sha256(raw).hexdigest())
        content = {
            "schema": SCHEMA,
            "kind": _KIND,
            "feature_version": FEATURE_VERSION,
            "feature_names": list(FEATURE_NAMES),
            "tvm": model.tvm,
            "xgboost": _xgboost_version(),
            "training_fingerprint": model.training_fingerprint,
            "num_rows": model.num_rows,
            "heldout": asdict(model.heldout),
            "trees_sha256": digests[0],
            "spread_sha256": digests[1],
        }
        content[_DIGEST] = meta_digest(content)
        _replace(meta, (json.dumps(content, indent=1) + "\n").encode())
    except OSError as error:
        raise ArtifactError(f"Cannot write the cost model {str(path)!r}: {error.strerror}.") from error


def load_cost_model(path: str | Path, tvm_version: str) -> CostModel:
    """Read a model that `save_cost_model` wrote.

    Raises
    ------
    ArtifactError
        If there is none, a file is altered, or it is for other features or another version of TVM.
    """
    import xgboost

    trees, spread, meta_path = _paths(path)
    if not meta_path.is_file():
        raise ArtifactError(
            f"There is no cost model at {str(path)!r}; make one with: tvm-sphinx train -o {path}"
        )
    meta = _read_meta(meta_path)
    expected = {
        "schema": SCHEMA,
        "kind": _KIND,
        "feature_version": FEATURE_VERSION,
        "feature_names": list(FEATURE_NAMES),
        "tvm": tvm_version,
    }
    for key, value in expected.items():
        if meta.get(key) != value:
            shown = "others" if key == "feature_names" else repr(meta.get(key))
            wanted = "these of this version" if key == "feature_names" else repr(value)
            raise ArtifactError(
                f"The cost model {str(path)!r} does not match: expected {key} = {wanted}; got {shown}. "
                f"Make a new one with: tvm-sphinx train -o {path}"
            )
    if not _is_intact(meta):
        raise ArtifactError(
            f"The meta file {str(meta_path)!r} was altered: it does not match its {_DIGEST}. "
            f"Make a new one with: tvm-sphinx train -o {path}"
        )
    boosters = []
    for file, key in ((trees, "trees_sha256"), (spread, "spread_sha256")):
        raw = _read_bytes(file)
        if hashlib.sha256(raw).hexdigest() != meta.get(key):
            raise ArtifactError(
                f"The cost model file {str(file)!r} is not the one that {str(meta_path)!r} describes; "
                f"make a new one with: tvm-sphinx train -o {path}"
            )
        booster = xgboost.Booster()
        try:
            booster.load_model(bytearray(raw))
        except xgboost.core.XGBoostError as error:
            raise ArtifactError(
                f"XGBoost {_xgboost_version()} cannot read {str(file)!r}, which XGBoost "
                f"{meta.get('xgboost')} wrote; make a new one with: tvm-sphinx train -o {path}"
            ) from error
        boosters.append(booster)
    try:
        heldout = HeldOut(**{key: float(value) for key, value in meta["heldout"].items()})
        known = str(meta["training_fingerprint"]), int(meta["num_rows"])
        if not all(map(math.isfinite, asdict(heldout).values())):
            raise ValueError(f"expected finite errors; got {heldout}")
        if not isinstance(meta["training_fingerprint"], str):
            raise TypeError(f"expected a fingerprint; got {meta['training_fingerprint']}")
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ArtifactError(f"Not a cost model's meta file: {str(meta_path)!r}: {error!r}.") from error
    return CostModel(boosters[0], boosters[1], tvm_version, *known, heldout)


def meta_digest(content: dict[str, Any]) -> str:
    """Return the hex digest of what a meta file says, its digest left out."""
    said = {key: value for key, value in content.items() if key != _DIGEST}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _is_intact(meta: dict[str, Any]) -> bool:
    try:
        return bool(meta.get(_DIGEST) == meta_digest(meta))
    except RecursionError:  # deeper than what is written
        return False


def _paths(path: str | Path) -> tuple[Path, Path, Path]:
    trees = Path(path)
    stem = trees.name.removesuffix(".json")
    return trees, trees.with_name(f"{stem}.spread.json"), trees.with_name(f"{stem}.meta.json")


def _replace(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    partial = path.with_name(path.name + f".{os.getpid()}.partial")
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _read_bytes(path: Path) -> bytes:
    """Return what a file holds, or its gzipped form, as the shipped model has."""
    packed = path.with_name(f"{path.name}.gz")
    try:
        return gzip.decompress(packed.read_bytes()) if packed.exists() else path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"Cannot read the cost model {str(path)!r}: {error.strerror}.") from error


def _read_meta(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(_read_bytes(path))
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"Not a cost model's meta file: {str(path)!r}: {error}.") from error
    if not isinstance(content, dict):
        raise ArtifactError(f"Not a cost model's meta file: {str(path)!r} holds no object.")
    return content


def _xgboost_version() -> str:
    import xgboost

    return str(xgboost.__version__)
