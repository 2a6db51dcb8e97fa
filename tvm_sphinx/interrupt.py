"""Ctrl-C while something is made that must be whole or not at all.

A library that calls back into Python may swallow the KeyboardInterrupt that is raised there. Who handles
the signal notes it here, and who is about to write a file asks.
"""

from __future__ import annotations

import threading

_noted = threading.Event()
_done = threading.Event()


def start() -> None:
    """Begin anew: nothing is noted, nothing done."""
    _noted.clear()
    _done.clear()


def note() -> bool:
    """Note Ctrl-C; return whether it still comes in time."""
    if not _done.is_set():
        _noted.set()
    return not _done.is_set()


def raise_if_interrupted() -> None:
    """Raise KeyboardInterrupt if Ctrl-C was noted: nothing is to be written."""
    if _noted.is_set():
        raise KeyboardInterrupt


def finish() -> None:
    """Let what is running end as it would, now that its file is written."""
    _done.set()
