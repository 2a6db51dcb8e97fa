"""How numbers are told to people."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """Return a number of something, such as ``"1 task"`` or ``"3 tasks"``."""
    return f"{number} {noun}{'s' * (number != 1)}"
