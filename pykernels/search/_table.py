"""Rows with ids that come and go, in buffers that are only ever appended to."""

from __future__ import annotations

from threading import Lock
from typing import Any, NamedTuple

import numpy as np

from ._rows import ID_LIMIT, home

Array = np.ndarray[Any, Any]


class View(NamedTuple):
    """What a table held at one moment; nothing in it is ever written again.

    `columns` holds rows of which `numbers`, ascending, are the table's (None: all of them are); `next_id`
    is the smallest above every id there ever was.
    """

    columns: dict[str, Any]
    numbers: Any
    next_id: int

    def column(self, name: str) -> Any:
        """A column of the table's rows alone."""
        column = self.columns[name]
        return column if self.numbers is None else column[self.numbers]

    def __len__(self) -> int:
        return len(self.columns["ids"] if self.numbers is None else self.numbers)


class Table:
    """Columns of one length, NumPy arrays or torch tensors, one of them `ids`; safe for concurrent threads.

    A new vector of a row is appended and the old one retired, as is that of a removed row, so that views
    stay as they are. When more than half of the rows are retired, the others move to buffers of their own.
    Every change happens at once, and not at all where it raises an error.
    """

    def __init__(self, columns: dict[str, Any], next_id: int = 0) -> None:
        self._lock = Lock()
        self._next_id = next_id
        self._buffers: dict[str, Any]
        self._count: int
        self._alive: Array
        self._row_of: dict[int, int]
        self._view: View | None
        self._own(columns)

    def __len__(self) -> int:
        return len(self._row_of)

    def __contains__(self, id: int) -> bool:
        return id in self._row_of

    def view(self) -> View:
        with self._lock:
            if self._view is None:
                numbers = None
                if len(self) < self._count:
                    numbers = self._on_device(np.flatnonzero(self._alive[: self._count]))
                self._view = View(self._written(), numbers, self._next_id)
            return self._view

    def select(self, ids: Array) -> dict[str, Any]:
        """The columns of some rows, in the order of `ids`."""
        with self._lock:
            rows = np.array(self._rows_of(ids), np.int64)
            return {name: buffer[self._on_device(rows)] for name, buffer in self._buffers.items()}

    def add(self, ids: Array | None, columns: dict[str, Any]) -> Array:
        """Append rows whose ids are new, by default consecutive numbers that never were one; return the ids."""
        with self._lock:
            if ids is None:
                count = len(columns["vectors"])
                if self._next_id > ID_LIMIT - count:
                    raise ValueError(f"ids=None: the next numbers, from {self._next_id}, do not fit int64")
                ids = np.arange(self._next_id, self._next_id + count, dtype=np.int64)
            for id in ids.tolist():
                if id in self._row_of:
                    raise ValueError(f"ids has {id}, which is in the index: expected new ids, or `update`")
            self._switch(ids, self._append(ids, columns), [])
            self._next_id = max(self._next_id, int(ids.max(initial=-1)) + 1)
        return ids

    def remove(self, ids: Array) -> None:
        with self._lock:
            rows = self._rows_of(ids)
            self._switch(ids, None, rows)

    def replace(self, ids: Array, columns: dict[str, Any]) -> None:
        with self._lock:
            rows = self._rows_of(ids)
            self._switch(ids, self._append(ids, columns), rows)

    def _rows_of(self, ids: Array) -> list[int]:
        try:
            return [self._row_of[id] for id in ids.tolist()]
        except KeyError as error:
            raise ValueError(f"ids has {error}, which is not in the index") from None

    def _append(self, ids: Array, columns: dict[str, Any]) -> range:
        """Write rows, retired as yet, behind the others."""
        first, buffers, alive = self._count, self._buffers, self._alive
        count = first + len(ids)
        if count > len(alive):
            capacity = max(count, 2 * len(alive))
            alive = _grown(alive, first, capacity)
            buffers = {name: _grown(buffer, first, capacity) for name, buffer in buffers.items()}
        for name, rows in {"ids": self._on_device(ids), **columns}.items():
            buffers[name][first:count] = rows
        alive[first:count] = False
        self._buffers, self._alive, self._count, self._view = buffers, alive, count, None
        return range(first, count)

    def _switch(self, ids: Array, born: range | None, retired: list[int]) -> None:
        """Bring the rows `born` to life and retire others, all of them rows of `ids`."""
        count = self._count
        compact = 2 * (len(self) - len(retired) + len(born or ())) < count
        alive = self._alive[:count].copy() if compact else self._alive
        alive[retired] = False
        if born is not None:
            alive[born.start : born.stop] = True
        if compact:
            kept = View(self._written(), self._on_device(np.flatnonzero(alive)), self._next_id)
            self._own({name: kept.column(name) for name in kept.columns})
            return
        if born is None:
            for id in ids.tolist():
                del self._row_of[id]
        else:
            self._row_of.update(zip(ids.tolist(), born, strict=True))
        self._view = None

    def _own(self, columns: dict[str, Any]) -> None:
        """Hold these columns and nothing else."""
        ids = home(columns["ids"], _HOST).tolist()
        self._row_of = dict(zip(ids, range(len(ids)), strict=True))
        self._buffers, self._count, self._alive = columns, len(ids), np.ones(len(ids), bool)
        self._view = None

    def _written(self) -> dict[str, Any]:
        return {name: buffer[: self._count] for name, buffer in self._buffers.items()}

    def _on_device(self, numbers: Array) -> Any:
        return home(numbers, self._buffers["ids"])


def _grown(buffer: Any, used: int, capacity: int) -> Any:
    """A copy of the `used` first rows, with room for `capacity`."""
    shape = (capacity, *buffer.shape[1:])
    grown = np.empty(shape, buffer.dtype) if isinstance(buffer, np.ndarray) else buffer.new_empty(shape)
    grown[:used] = buffer[:used]
    return grown


_HOST = np.empty(0)
