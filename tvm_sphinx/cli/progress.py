"""Progress on stderr: a bar that is redrawn on a terminal, one line per stage elsewhere."""

from __future__ import annotations

import shutil
import sys
import time

from .output import style

_WIDTH = 24
# A bar is redrawn no more often than this: a terminal behind a slow line is no brake.
_LEAST_S = 0.05


class ProgressLine:
    """A progress callback; ``quiet`` prints nothing."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self._stage = ""
        self._begin = 0.0
        self._drawn = 0.0

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` steps of a stage are done."""
        if self.quiet:
            return
        now = time.monotonic()
        if stage != self._stage:
            self._stage, self._begin, self._drawn = stage, now, 0.0
        if not sys.stderr.isatty():
            if done == total:
                print(f"{stage}: {done}/{total}", file=sys.stderr)
        elif done == total or now - self._drawn >= _LEAST_S:
            self._drawn = now
            end = "\n" if done == total else ""
            print(f"\r\033[K{self._bar(stage, done, total)}", end=end, file=sys.stderr, flush=True)

    def _bar(self, stage: str, done: int, total: int) -> str:
        filled = _WIDTH * done // max(1, total)
        bar = style("=" * filled, "green", sys.stderr) + style(
            "-" * (_WIDTH - filled), "dim", sys.stderr
        )
        tail = f"{done}/{total}{self._left(done, total)}"
        room = shutil.get_terminal_size().columns - _WIDTH - len(tail) - 5
        return f"[{bar}] {tail} {stage[: max(8, room)]}"

    def _left(self, done: int, total: int) -> str:
        if not 0 < done < total:
            return ""
        seconds = (time.monotonic() - self._begin) / done * (total - done)
        return f", about {seconds:.0f} s left"
