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

    def rows(self, slots: Array, backend: str) -> tuple[Any, Any]:
        """As many columns of the table as some slots need, and their lengths."""
        lengths = self._pages.lengths[slots]
        width = -(-int(lengths.max(initial=1)) // self._pages.page_size)
        if self._place.backend == backend == "gpu":
            self._update(slots)
            where, counts = self._place.indices(slots, lengths)
            return self._table[:, :width][where], counts
        rows = self._pages.table[slots, :width]
        return self._place.launched(rows, backend), self._place.launched(lengths, backend)

    def _update(self, slots: Array) -> None:
        pages = self._pages
        if self._table is None or tuple(self._table.shape) != pages.table.shape:
            (self._table,) = self._place.indices(pages.table)
            pages.changed[:] = False
        stale = slots[pages.changed[slots]]
        if len(stale):
            (where,), (rows,) = self._place.indices(stale), self._place.indices(pages.table[stale])
            self._table[where] = rows
            pages.changed[stale] = False
