"""A progress bar on standard error: redrawn on a terminal, an occasional line elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TextIO

_WIDTH = 30
_QUIET_SECONDS = {True: 0.1, False: 10.0}


class Progress:
    """Counts `total` steps under a `label`; nothing is shown in the first second."""

    def __init__(self, label: str, total: int, stream: TextIO | None = None) -> None:
        self.label, self.total, self.done = label, total, 0
        self._stream = stream or sys.stderr
        self._terminal = self._stream.isatty()
        self._start = self._shown = time.monotonic()
        self._drawn = False

    def step(self, note: str = "", count: int = 1) -> None:
        """Record `count` finished steps; `note` says what is being done."""
        self.done += count
        self.show(note)

    def show(self, note: str = "") -> None:
        """Redraw, unless the last drawing is recent; on a terminal `note` is visible while the step runs."""
        now = time.monotonic()
        if now - self._start < 1 or now - self._shown < _QUIET_SECONDS[self._terminal]:
            return
        self._shown, self._drawn = now, True
        if self._terminal:
            filled = _WIDTH * self.done // max(self.total, 1)
            line = f"{self.label} [{'#' * filled}{'.' * (_WIDTH - filled)}] {self.done}/{self.total} {note}"
            self._stream.write(f"\r\033[K{line[:110]}")
        else:
            self._stream.write(f"{self.label} {self.done}/{self.total} {now - self._start:.0f} s {note}\n")
        self._stream.flush()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Wipe the bar from a terminal."""
        if self._drawn and self._terminal:
            self._stream.write("\r\033[K")
            self._stream.flush()
