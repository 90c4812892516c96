"""What a search was asked for, as the launchers of all backends pass it on."""

from __future__ import annotations

from typing import Any, NamedTuple


class Problem(NamedTuple):
    """The arguments of `reference.search` of that name, NumPy arrays or torch tensors."""

    q: Any
    x: Any
    scale: Any
    bias: Any
    rows: Any
    mask: Any

    @property
    def searched(self) -> int:
        """The number of rows that are searched."""
        return len(self.x if self.rows is None else self.rows)

    def part(self, some: slice) -> Problem:
        """The same for some of the queries."""
        return self._replace(q=self.q[some], mask=None if self.mask is None else self.mask[some])
