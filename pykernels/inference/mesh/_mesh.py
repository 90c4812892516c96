"""Chips that compute on what they hold, and collectives that count what they move."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..._options import integer
from ._shards import Array, Chips, Sharded


@dataclass(frozen=True)
class Traffic:
    """What one collective moved: bytes that left and that reached each chip (int64 of one number per chip)."""

    kind: str
    axes: str
    group: int
    where: str
    sent: Array
    received: Array

    def send(self, source: int, target: int, piece: Array) -> Array:
        """The piece as the target has it; what a chip has already is not sent."""
        if source != target:
            self.sent[source] += piece.nbytes
            self.received[target] += piece.nbytes
        arrived: Array = piece.copy()
        return arrived


class Mesh:
    """A torus of X x Y x Z virtual chips.

    `split` and `join` place a tensor and read it back, uncounted. Collectives take tensors that travel in one message,
    axes in the order major to minor, and a name; each appends its `Traffic` to `log`, unless it is of one chip.
    ValueError for an axis below 1, and for tensors that are not split as a collective needs them.

    >>> import numpy as np
    >>> mesh = Mesh(2, 2, 1)
    >>> x = mesh.split(np.arange(8.0), ("xy",))
    >>> x.shards[2], mesh.all_gather([x], "y", "example")[0].shards[2]
    (array([4., 5.]), array([4., 5., 6., 7.]))
    >>> mesh.log[0].received
    array([16, 16, 16, 16])
    """

    def __init__(self, X: int, Y: int = 1, Z: int = 1) -> None:
        sizes = [integer(f"torus axis {axis}", size, 1) for axis, size in zip("XYZ", (X, Y, Z), strict=True)]
        self.torus = (sizes[0], sizes[1], sizes[2])
        self.chips = Chips(self.torus)
        self.log: list[Traffic] = []

    def split(self, array: Array, spec: tuple[str, ...]) -> Sharded:
        """The tensor as chips hold it; every dimension must be divisible by the chips that split it."""
        blocks = Sharded((), spec, array.shape)
        shards = tuple(array[self.chips.block(chip, blocks)].copy() for chip in range(self.chips.count))
        return Sharded(shards, spec, array.shape)

    def join(self, tensor: Sharded) -> Array:
        """The whole tensor; ValueError where chips differ in a block that they share, or that is still to be summed."""
        if tensor.partial:
            raise ValueError(f"tensor is a partial sum over {tensor.partial}: expected none")
        whole = np.empty(tensor.shape, tensor.shards[0].dtype)
        for chip, shard in enumerate(tensor.shards):
            whole[self.chips.block(chip, tensor)] = shard
        for chip, shard in enumerate(tensor.shards):
            if not np.array_equal(whole[self.chips.block(chip, tensor)], shard):
                raise ValueError(f"chip {chip} differs from others in a block that they share")
        return whole

    def cut(self, tensor: Sharded, spec: tuple[str, ...]) -> Sharded:
        """Each chip's block of a tensor that every chip holds whole."""
        if any(tensor.spec):
            raise ValueError(f"tensor is split as {tensor.spec}: expected one that every chip holds whole")
        blocks = Sharded((), spec, tensor.shape)
        shards = tuple(shard[self.chips.block(chip, blocks)] for chip, shard in enumerate(tensor.shards))
        return Sharded(shards, spec, tensor.shape)

    def each(
        self,
        function: Callable[..., Array],
        *tensors: Sharded,
        spec: Sequence[str],
        partial: str = "",
        sharing: int = 1,
    ) -> Sharded:
        """`function` of the shards of each chip, as a tensor split as `spec`."""
        shards = tuple(function(*pieces) for pieces in zip(*(tensor.shards for tensor in tensors), strict=True))
        if len({shard.shape for shard in shards}) > 1:
            raise ValueError(f"shards of shapes {sorted({shard.shape for shard in shards})}: expected one shape")
        parts = [self.chips.extent(axes) for axes in spec]
        parts[-1] //= sharing
        shape = tuple(size * part for size, part in zip(shards[0].shape, parts, strict=True))
        return Sharded(shards, tuple(spec), shape, partial, sharing)

    def all_gather(self, tensors: Sequence[Sharded], axes: str, where: str) -> list[Sharded]:
        """No dimension is split over `axes` any more; they must be the minor ones where they occur."""
        traffic = self._open("all_gather", axes, where)
        return [self._gather(tensor, axes, traffic) for tensor in tensors]

    def _gather(self, tensor: Sharded, axes: str, traffic: Traffic) -> Sharded:
        kept = tuple(split.rstrip(axes) for split in tensor.spec)
        gone = [split[len(rest) :] for split, rest in zip(tensor.spec, kept, strict=True)]
        if sorted("".join(gone)) != sorted(axes):
            raise ValueError(f"tensor is split as {tensor.spec}: expected {axes} as the minor axes")
        sizes = tensor.shards[0].shape
        shards: list[Any] = [None] * self.chips.count
        for group in self.chips.groups(axes):
            for target in group:
                shape = [size * self.chips.extent(more) for size, more in zip(sizes, gone, strict=True)]
                shards[target] = np.empty(shape, tensor.shards[target].dtype)
                for source in group:
                    starts = [self.chips.rank(source, more) * size for size, more in zip(sizes, gone, strict=True)]
                    block = tuple(slice(start, start + size) for start, size in zip(starts, sizes, strict=True))
                    shards[target][block] = traffic.send(source, target, tensor.shards[source])
        return Sharded(tuple(shards), kept, tensor.shape, tensor.partial)

    def share(self, tensors: Sequence[Sharded], axes: str, sharing: int, where: str) -> list[Sharded]:
        """An all-gather of the last dimension among every `sharing` neighbours along `axes`, which split it."""
        traffic = self._open("all_gather", axes, where, sharing)
        results = []
        for tensor in tensors:
            if tensor.spec[-1] != axes or self.chips.extent(axes) % sharing:
                raise ValueError(f"tensor is split as {tensor.spec}: expected {axes} last, a multiple of {sharing}")
            shards: list[Any] = [None] * self.chips.count
            for group in self.chips.groups(axes):
                for rank, target in enumerate(group):
                    near = group[rank - rank % sharing :][:sharing]
                    shards[target] = np.concatenate([traffic.send(c, target, tensor.shards[c]) for c in near], -1)
            results.append(Sharded(tuple(shards), tensor.spec, tensor.shape, tensor.partial, sharing))
        return results

    def reduce_scatter(self, tensors: Sequence[Sharded], axes: str, where: str) -> list[Sharded]:
        """Partial sums over `axes` are summed, and the last dimension split over them."""
        traffic = self._open("reduce_scatter", axes, where)
        results = []
        for tensor in tensors:
            partial = self._summed(tensor, axes)
            spec = (*tensor.spec[:-1], tensor.spec[-1] + axes)
            shards = tuple(self._scatter(tensor.shards, axes, traffic))
            results.append(Sharded(shards, spec, tensor.shape, partial))
        return results

    def _scatter(self, shards: Sequence[Array], axes: str, traffic: Traffic) -> list[Array]:
        sums: list[Any] = [None] * self.chips.count
        for group in self.chips.groups(axes):
            pieces = [np.split(shards[source], len(group), -1) for source in group]
            for rank, target in enumerate(group):
                sent = [traffic.send(source, target, own[rank]) for source, own in zip(group, pieces, strict=True)]
                sums[target] = np.sum(sent, axis=0)
        return sums

    def all_reduce(self, tensor: Sharded, axes: str, where: str) -> Sharded:
        """Partial sums over `axes` are summed: a reduce-scatter and an all-gather of the numbers in a row, which is
        padded with zeros to a multiple of the chips."""
        traffic = self._open("all_reduce", axes, where)
        partial = self._summed(tensor, axes)
        padding = -tensor.shards[0].size % traffic.group
        sums = self._scatter([np.pad(shard.ravel(), (0, padding)) for shard in tensor.shards], axes, traffic)
        shards: list[Any] = [None] * self.chips.count
        for group in self.chips.groups(axes):
            for target in group:
                row = np.concatenate([traffic.send(c, target, sums[c]) for c in group])
                shards[target] = row[: tensor.shards[target].size].reshape(tensor.shards[target].shape)
        return Sharded(tuple(shards), tensor.spec, tensor.shape, partial)

    def all_to_all(self, tensors: Sequence[Sharded], axes: str, split: int, join: int, where: str) -> list[Sharded]:
        """Dimension `split` gets split over `axes`; `join`, whose minor axes are these in any order, is whole again."""
        traffic = self._open("all_to_all", axes, where)
        return [self._exchange(tensor, axes, split, join, traffic) for tensor in tensors]

    def _exchange(self, tensor: Sharded, axes: str, split: int, join: int, traffic: Traffic) -> Sharded:
        spec = list(tensor.spec)
        spec[join] = tensor.spec[join].rstrip(axes)
        order = tensor.spec[join][len(spec[join]) :]
        if sorted(order) != sorted(axes):
            raise ValueError(f"dimension {join} is split over {tensor.spec[join]}: expected {axes} as its minor axes")
        spec[split] += axes
        shards: list[Any] = [None] * self.chips.count
        for group in self.chips.groups(order):
            pieces = [np.split(tensor.shards[source], len(group), split) for source in group]
            for target in group:
                rank = self.chips.rank(target, axes)
                sent = [traffic.send(source, target, own[rank]) for source, own in zip(group, pieces, strict=True)]
                shards[target] = np.concatenate(sent, join)
        return Sharded(tuple(shards), tuple(spec), tensor.shape, tensor.partial)

    def _summed(self, tensor: Sharded, axes: str) -> str:
        if not set(axes) <= set(tensor.partial):
            raise ValueError(f"tensor is a partial sum over {tensor.partial!r}: expected {axes!r}")
        return "".join(axis for axis in tensor.partial if axis not in axes)

    def _open(self, kind: str, axes: str, where: str, group: int | None = None) -> Traffic:
        group = self.chips.extent(axes) if group is None else group
        sent, received = (np.zeros(self.chips.count, np.int64) for _ in range(2))
        traffic = Traffic(kind, axes, group, where, sent, received)
        if group > 1:
            self.log.append(traffic)
        return traffic
