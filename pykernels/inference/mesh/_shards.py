"""A tensor in pieces, and the chips that have them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Sharded:
    """One array for each chip, together a tensor of `shape`.

    Attributes
    ----------
    shards : the chips' arrays, chip (x, y, z) at (x Y + y) Z + z
    spec : for each dimension the axes that split it, the major one first: ("x", "", "zy") is B_x L F_zy. Chips that
        differ in other axes only hold the same block
    shape : of the whole
    partial : axes over which the shards are still to be summed
    sharing : how many neighbours, in the order of the last dimension's axes, hold the same block of it
    """

    shards: tuple[Array, ...]
    spec: tuple[str, ...]
    shape: tuple[int, ...]
    partial: str = ""
    sharing: int = 1


class Chips:
    """The chips of a torus X x Y x Z by number, (x Y + y) Z + z, and their places along axes."""

    def __init__(self, torus: tuple[int, int, int]) -> None:
        self.torus = torus
        self.count = math.prod(torus)
        self._sizes = dict(zip("xyz", torus, strict=True))
        places = np.unravel_index(np.arange(self.count), torus)
        self._places = [dict(zip("xyz", map(int, place), strict=True)) for place in zip(*places, strict=True)]

    def extent(self, axes: str) -> int:
        return math.prod(self._sizes[axis] for axis in axes)

    def rank(self, chip: int, axes: str) -> int:
        """The place of a chip along `axes`, the major one first."""
        rank = 0
        for axis in axes:
            rank = rank * self._sizes[axis] + self._places[chip][axis]
        return rank

    def groups(self, axes: str) -> list[list[int]]:
        """The chips that differ along `axes` only, by rank."""
        rest = "".join(axis for axis in "xyz" if axis not in axes)
        groups: list[list[int]] = [[] for _ in range(self.extent(rest))]
        for chip in sorted(range(self.count), key=lambda chip: self.rank(chip, axes)):
            groups[self.rank(chip, rest)].append(chip)
        return groups

    def block(self, chip: int, tensor: Sharded) -> tuple[slice, ...]:
        """Where a chip's shard lies in the whole; ValueError for one of another shape."""
        found = []
        for dim, (size, axes) in enumerate(zip(tensor.shape, tensor.spec, strict=True)):
            sharing = tensor.sharing if dim == len(tensor.shape) - 1 else 1
            parts = self.extent(axes) // sharing
            if size % parts:
                raise ValueError(
                    f"dimension {dim} of {tensor.shape}: expected a multiple of {parts} chips along {axes}"
                )
            start = self.rank(chip, axes) // sharing * (size // parts)
            found.append(slice(start, start + size // parts))
        expected = tuple(part.stop - part.start for part in found)
        if len(tensor.shards) == self.count and tensor.shards[chip].shape != expected:
            raise ValueError(f"chip {chip} holds {tensor.shards[chip].shape}: expected {expected} of {tensor.shape}")
        return tuple(found)
