"""Which rows and columns of the weights a process keeps, and which it uses.

The columns of a layer's queries, keys and values lie in n blocks, one for each chip in the order "zyx", and so does
the hidden dimension. A matrix into them has the rows of q, k and v, or of the gate and what it gates, together for each
block: whatever blocks a process has, products with its rows give whole blocks. -1 stands for padding.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..._arrays import Array
from ..._options import choice
from .._config import Config
from ..plan.volumes import ATTENTION, LAYOUTS, Layout, Padded, Shapes, padded, resting
from ._torus import Torus


class Matrix(NamedTuple):
    """Indices of all rows and columns of a matrix, in the order in which they are split.

    `inward` matrices have the width in columns and lead into heads or the hidden dimension, the others lead out.
    """

    rows: Array
    columns: Array
    inward: bool

    def part(self, torus: Torus, width: str, inner: str) -> tuple[Array, Array]:
        """Rows and columns of a process, if the width and the inner dimension are split over such axes."""
        rows, columns = (inner, width) if self.inward else (width, inner)
        return _part(self.rows, torus, rows), _part(self.columns, torus, columns)


class Placement(NamedTuple):
    sizes: Padded
    matrices: dict[str, Matrix]
    width: Array  # indices of the width
    sections: tuple[int, int, int]  # columns of q, k and v in a block


def shapes_of(config: Config) -> Shapes:
    return Shapes(
        config.width,
        config.hidden,
        config.heads,
        config.kv_heads,
        config.head_dim,
        config.gated,
        config.block == "parallel",
    )


def check_layouts(layout: Any, attention: Any, prefill: Any) -> None:
    """Refuse unknown names, and a prefill that finds weights or cache in other places than it needs."""
    choice("layout", layout, LAYOUTS)
    choice("attention", attention, ATTENTION)
    if prefill is None or prefill == layout:
        return
    choice("prefill", prefill, LAYOUTS)
    if resting(prefill) != resting(layout):
        raise ValueError(
            f"prefill={prefill!r} keeps weights in other places than layout={layout!r}: expected one alike"
        )
    if attention == "heads" and LAYOUTS[prefill].gathered != LAYOUTS[layout].gathered:
        raise ValueError(
            f"prefill={prefill!r} keeps the cache in other places than layout={layout!r}: expected attention='batch'"
        )


def place(config: Config, torus: Torus, attention: str) -> Placement:
    shapes, count = shapes_of(config), torus.chips.count
    sizes = padded(shapes, torus.torus, attention)
    kv_heads, dim = config.kv_heads, config.head_dim
    grouped = (kv_heads, config.heads // kv_heads, dim)
    q = _filled(grouped, (sizes.kv_heads, sizes.heads // sizes.kv_heads, dim), sizes.query_columns)
    wide = dim if attention == "batch" else sizes.key_columns // sizes.kv_heads
    k = _filled((kv_heads, dim), (sizes.kv_heads, wide), sizes.key_columns)
    hidden = _filled((config.hidden,), (sizes.hidden,), sizes.hidden)
    width = _filled((config.width,), (sizes.width,), sizes.width)
    queries, keys = config.heads * dim, kv_heads * dim
    qkv = _blocks(count, [q, _shifted(k, queries), _shifted(k, queries + keys)])
    up = _blocks(count, [hidden, _shifted(hidden, config.hidden)] if config.gated else [hidden])
    matrices = {
        "qkv": Matrix(qkv, width, True),
        "output": Matrix(width, q, False),
        "up": Matrix(up, width, True),
        "down": Matrix(width, hidden, False),
    }
    sections = (len(q) // count, len(k) // count, len(k) // count)
    return Placement(sizes, matrices, width, sections)


def in_use(matrix: Matrix, torus: Torus, layout: Layout) -> tuple[Array, Array]:
    """Rows and columns that a process multiplies with."""
    return matrix.part(torus, layout.contracted, layout.spread)


def _filled(shape: tuple[int, ...], into: tuple[int, ...], size: int) -> Array:
    """The numbers of elements of `shape`, in the corner of a larger one, in a row of `size`."""
    grid = np.full(into, -1)
    grid[tuple(slice(n) for n in shape)] = np.arange(np.prod(shape)).reshape(shape)
    return np.concatenate([grid.ravel(), np.full(size - grid.size, -1)])


def _shifted(index: Array, by: int) -> Array:
    return np.where(index < 0, -1, index + by)


def _blocks(count: int, parts: list[Array]) -> Array:
    """Block 0 of every part, block 1 of every part, and so on."""
    return np.concatenate([part.reshape(count, -1) for part in parts], 1).ravel()


def _part(index: Array, torus: Torus, axes: str) -> Array:
    mine: Array = np.split(index, torus.extent(axes))[torus.rank(axes)]
    return mine
