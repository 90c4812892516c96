"""Slice."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from ... import _options
from ._chip import Chip
from ._numbers import positive

AXES = "xyz"


@dataclass(frozen=True)
class Slice:
    """Chips in three axes X x Y x Z, and what connects them.

    Parameters
    ----------
    shape : chips along x, y and z
    bandwidth : bytes/s that leave each chip over all of its links together, as many come in
    latency : seconds a hop
    kind : "torus", rings along the axes, or "switch", every chip one hop from every other
    links : "pooled", every collective has all of the bandwidth, as in the paper; or "axes", on a torus of `dimensions`
        axes a collective over k of them has k / dimensions of it, for the other links lie idle
    dimensions : of the physical torus, for "axes"

    Raises TypeError and ValueError for a shape that is not three positive integers and for numbers out of range.

    Examples
    --------
    >>> from pykernels.inference.plan import Chip, Slice
    >>> slice = Slice.of(Chip.named("tpu-v4"), (4, 4, 4))
    >>> slice.chips, slice.size("yz"), slice.hops("yz")
    (64, 16, 4)
    >>> len(Slice.all(Chip.named("tpu-v4"), 256))
    45
    """

    shape: tuple[int, int, int]
    bandwidth: float
    latency: float = 0.0
    kind: str = "torus"
    links: str = "pooled"
    dimensions: int = 3

    def __post_init__(self) -> None:
        if not isinstance(self.shape, tuple | list) or len(self.shape) != 3:
            raise ValueError(f"shape={self.shape!r}: expected three integers, the chips along x, y and z")
        object.__setattr__(self, "shape", tuple(_options.integer("shape", size, 1) for size in self.shape))
        positive("bandwidth", self.bandwidth)
        positive("latency", self.latency, zero=True)
        _options.choice("kind", self.kind, ("torus", "switch"))
        _options.choice("links", self.links, ("pooled", "axes"))
        _options.integer("dimensions", self.dimensions, 1, 3)

    @staticmethod
    def of(chip: Chip, shape: tuple[int, int, int], *, links: str = "pooled") -> Slice:
        """Chips of one kind connected by their own links."""
        kind = "torus" if chip.dimensions else "switch"
        return Slice(shape, chip.interconnect, chip.latency, kind, links, chip.dimensions or 1)

    @staticmethod
    def all(chip: Chip, chips: int, *, links: str = "pooled") -> list[Slice]:
        """Every ordered factorisation X x Y x Z of `chips`, with no more axes above 1 than the chip's torus has.

        Whether a provider offers such a torus is not asked.
        """
        chips, most = _options.integer("chips", chips, 1), chip.dimensions or 3
        shapes = [
            (x, y, chips // x // y)
            for x in _divisors(chips)
            for y in _divisors(chips // x)
            if sum(size > 1 for size in (x, y, chips // x // y)) <= most
        ]
        return [Slice.of(chip, shape, links=links) for shape in shapes]

    @property
    def chips(self) -> int:
        """X Y Z."""
        return prod(self.shape)

    def size(self, axes: str) -> int:
        """Chips in a group over `axes`, such as "yz"; 1 for ""."""
        return prod(self.shape[AXES.index(axis)] for axis in axes)

    def hops(self, axes: str) -> int:
        """Hops of a collective over `axes`: half of each ring, in both directions at once; 1 through a switch.

        The rule of "How To Scale Your Model" for collectives of few bytes; the paper has no such term.
        """
        if self.kind == "switch":
            return int(self.size(axes) > 1)
        return sum(self.size(axis) // 2 for axis in axes)

    def rate(self, axes: str) -> float:
        """Bytes/s of a collective over `axes`."""
        if self.links == "pooled" or self.kind == "switch":
            return self.bandwidth
        return self.bandwidth * max(1, sum(self.size(axis) > 1 for axis in axes)) / self.dimensions

    def __str__(self) -> str:
        return "x".join(map(str, self.shape))


def _divisors(number: int) -> list[int]:
    return [d for d in range(1, number + 1) if number % d == 0]
