"""A page table where launchers read it."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._pages import PageTable
from ._pools import Place

Array = np.ndarray[Any, Any]


class Mirror:
    """The table of pages as launchers take it; on a GPU a copy, told of rows that changed when they are asked for."""

    def __init__(self, place: Place, pages: PageTable) -> None:
        self._place, self._pages = place, pages
        self._table: Any = None
        self._asked: Any = None
        self._rows: tuple[Any, Any] = None, None

    def rows(self, sequences: Array, backend: str) -> tuple[Any, Any]:
        """As many columns of the table as some sequences need, and their lengths.

        All layers ask for the same in turn, so the last answer is kept.
        """
        asked = self._pages.version, backend, sequences.tobytes()
        if asked != self._asked:
            self._rows = self._find(self._pages.slots_of(sequences), backend)
            self._asked = asked
        return self._rows

    def _find(self, slots: Array, backend: str) -> tuple[Any, Any]:
        lengths = self._pages.lengths[slots]
        width = -(-int(lengths.max(initial=1)) // self._pages.page_size)
        if self._place.backend == backend == "gpu":
            self._update(slots)
            where, counts = self._place.sent(np.stack([slots, lengths]))
            return self._table[:, :width][where], counts
        rows = self._pages.table[slots, :width]
        return self._place.launched(rows, backend), self._place.launched(lengths, backend)

    def _update(self, slots: Array) -> None:
        pages = self._pages
        if self._table is None or tuple(self._table.shape) != pages.table.shape:
            self._table = self._place.sent(pages.table.copy())
            pages.changed[:] = False
        stale = slots[pages.changed[slots]]
        if len(stale):
            self._table[self._place.sent(stale)] = self._place.sent(pages.table[stale])
            pages.changed[stale] = False
