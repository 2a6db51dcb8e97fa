"""Targets as users write them, as canonical JSON."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping

from ..errors import PlatformError

#: Target kinds that compute on the host's cores.
CPU_KINDS = ("llvm", "c")


def parse_target(value: object, where: str = "target") -> str:
    """Return a target as canonical JSON from a dict, a kind, or the form ``"llvm -mcpu=znver4"``.

    Only the form is checked here; TVM checks the rest when the platform is loaded.

    Raises
    ------
    PlatformError
        If it has another form.
    """
    if isinstance(value, Mapping):
        config = dict(value)
    elif isinstance(value, str) and value.strip().startswith("{"):
        try:
            config = json.loads(value)
        except json.JSONDecodeError as error:
            raise PlatformError(f"Expected {where} to be JSON; got {value!r}: {error}.") from error
    elif isinstance(value, str) and value.strip():
        kind, *options = shlex.split(value)
        config = {"kind": kind}
        for option in options:
            match = re.fullmatch(r"--?([A-Za-z][\w-]*)(?:=(.*))?", option)
            if match is None:
                raise PlatformError(
                    f"Expected {where} options in the form -key=value; got {option!r} in {value!r}."
                )
            config[match[1]] = _option_value(match[1], match[2])
    else:
        raise PlatformError(f"Expected {where} as a dict or a string; got {value!r}.")
    if not isinstance(config.get("kind"), str):
        raise PlatformError(f"Expected a 'kind' in {where}, such as 'llvm' or 'cuda'; got {value!r}.")
    return json.dumps(config, sort_keys=True)


def default_runtime(target: str) -> str:
    """Return the first runtime device of a target's kind; the target is canonical JSON."""
    kind = json.loads(target)["kind"]
    return "cpu:0" if kind in CPU_KINDS else f"{kind}:0"


def _option_value(key: str, text: str | None) -> object:
    if text is None:
        return True
    if key in ("mattr", "keys", "libs"):
        return text.split(",")
    return int(text) if re.fullmatch(r"-?\d+", text) else text
