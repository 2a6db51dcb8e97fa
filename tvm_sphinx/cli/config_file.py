"""``--config FILE.json``: options from a file, in the place of the words of a command line."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..errors import SphinxError, known_choices

#: Keys that tvmc's files have for things that TVM has no longer.
_GONE = ("executor", "runtime", "executors", "runtimes")


def add_config_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--config``, which `expand_config` has taken away before the parser sees the rest."""
    parser.add_argument(
        "--config",
        metavar="FILE.json",
        help='options by their long names, {"input-shapes": "x:[1,3]", "targets": [{"kind": "llvm"}]}; '
        "those of the command line count more",
    )


def expand_config(parser: argparse.ArgumentParser, argv: Sequence[str]) -> list[str]:
    """Return the words with those of the file of options before the others, but for the command.

    Raises
    ------
    SphinxError
        If the file is no JSON object, or has a key that is no option.
    """
    words = list(argv)
    path = None
    for place, word in enumerate(words):
        if word == "--config" and place + 1 < len(words):
            path = words[place + 1]
            del words[place : place + 2]
            break
        if word.startswith("--config="):
            path = word.partition("=")[2]
            del words[place]
            break
    if path is None:
        return words
    command = next((place for place, word in enumerate(words) if not word.startswith("-")), None)
    chosen = None if command is None else _subparser(parser, words[command])
    if chosen is None or command is None:
        return words
    added = list(_words(_read(path), chosen, path))
    return [*words[: command + 1], *added, *words[command + 1 :]]


def _subparser(parser: argparse.ArgumentParser, name: str) -> argparse.ArgumentParser | None:
    for action in parser._subparsers._group_actions if parser._subparsers else ():
        if isinstance(action.choices, dict) and name in action.choices:
            found: argparse.ArgumentParser = action.choices[name]
            return found
    return None


def _read(path: str) -> dict[str, Any]:
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise SphinxError(f"Cannot read file of options {path!r}: {error.strerror}.") from error
    except ValueError as error:
        raise SphinxError(f"File of options {path!r} is not JSON: {error}.") from error
    if not isinstance(content, dict):
        raise SphinxError(f"Expected one JSON object in file of options {path!r}.")
    return content


def _words(content: dict[str, Any], parser: argparse.ArgumentParser, path: str) -> Iterator[str]:
    known = {option: action for action in parser._actions for option in action.option_strings}
    for key, value in content.items():
        name = "target" if key == "targets" else key.lstrip("-").replace("_", "-")
        if name in _GONE:
            raise SphinxError(f"File of options {path!r}: TVM has no {key!r} any more; leave it out.")
        action = known.get(f"--{name}")
        if action is None or name == "config":
            names = sorted(option[2:] for option in known if option.startswith("--"))
            raise SphinxError(known_choices(f"option in {path!r}:", key, names))
        yield from _option(name, value, action)


def _option(name: str, value: Any, action: argparse.Action) -> Iterator[str]:
    if action.nargs == 0:  # a flag
        if value is True or f"--no-{name}" in action.option_strings:
            yield f"--{name}" if value else f"--no-{name}"
        return
    repeated = isinstance(action, argparse._AppendAction)
    values = value if isinstance(value, list) else [value]
    texts = [json.dumps(item) if isinstance(item, dict) else str(item) for item in values]
    for text in texts if repeated else [",".join(texts)]:
        yield f"--{name}={text}"
