"""The parser of the command: wrong usage is one line that says what was meant and where to look."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

_CHOICES = re.compile(r"invalid choice: '?([^' ]+)'? \(choose from (.*)\)")


class Parser(argparse.ArgumentParser):
    """A parser, and with it those of its subcommands, whose errors are one line."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Parse as `argparse` does; words that are left over are an error of the command they follow."""
        given, rest = super().parse_known_args(args, namespace)
        if rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        return given, rest

    def error(self, message: str) -> NoReturn:
        """Print what is wrong and exit with 2."""
        meant = self._meant(message)
        hint = f" Did you mean {meant!r}?" if meant else ""
        told = f"error: {self.prog}: {message}.{hint} See '{self.prog} --help'."
        print(" ".join(told.split()), file=sys.stderr, flush=True)
        raise SystemExit(2)

    def _meant(self, message: str) -> str:
        """Return the option or the choice that is spelt much like the one that was given; or ""."""
        if found := _CHOICES.search(message):
            return _nearest(found[1], re.split(r"[', ]+", found[2]))
        options = [name for name in self._option_string_actions if name.startswith("--")]
        words = message.partition("unrecognized arguments: ")[2].split()
        wrong = next((word.partition("=")[0] for word in words if word.startswith("--")), "")
        return _nearest(wrong, options) if wrong else ""


def _nearest(name: str, known: Sequence[str]) -> str:
    return next(iter(difflib.get_close_matches(name, known, n=1)), "")


def names_of(text: str | None) -> tuple[str, ...]:
    """Return the names in ``"NAME,NAME"``; none of nothing."""
    return tuple(name.strip() for name in (text or "").split(",") if name.strip())
