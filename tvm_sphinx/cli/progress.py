"""Progress on stderr: one line that is rewritten on a terminal, one line per stage elsewhere."""

from __future__ import annotations

import sys
import time


class ProgressLine:
    """A progress callback; ``quiet`` prints nothing."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self._stage = ""
        self._begin = 0.0

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` steps of a stage are done."""
        if self.quiet:
            return
        if stage != self._stage:
            self._stage, self._begin = stage, time.monotonic()
        if sys.stderr.isatty():
            end = "\n" if done == total else ""
            left = self._left(done, total)
            print(f"\r\033[K{stage}: {done}/{total}{left}", end=end, file=sys.stderr, flush=True)
        elif done == total:
            print(f"{stage}: {done}/{total}", file=sys.stderr)

    def _left(self, done: int, total: int) -> str:
        if not 0 < done < total:
            return ""
        seconds = (time.monotonic() - self._begin) / done * (total - done)
        return f", about {seconds:.0f} s left"
