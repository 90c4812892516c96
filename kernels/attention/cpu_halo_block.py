"""A block of queries and its window, as the products take them.

A window's pixels are listed in runs, neighbours in a row: first those inside of the image, whose keys are read, then
the padding. Queries are taken `LANES` at a time, a panel; rows [element][lane] serve as columns of products.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .._floats import FLOAT32
from .._numba import jit
from .cpu_halo_lanes import add_relative
from .cpu_halo_rows import Field, field, read_row, row_at
from .cpu_product import LANES, ROWS, products
from .problem import Window

Array = np.ndarray[Any, Any]

Y, X, KEYS = range(3)
"""Of a run: its first pixel in the window, and its length."""
QUERY_Y, QUERY_X = 2, 3
"""Of a lane: its query in the image of queries; `Y` and `X` are its pixel in the block."""


class Image(NamedTuple):
    """Sizes of a problem."""

    heads: int  # of all images
    height: int
    width: int
    block: int
    halo: int
    stride: int
    masked: bool
    dim: int
    value_dim: int
    scale: float


class Inputs(NamedTuple):
    """Arrays that are read; tables (rows, D) as float32 vectors, empty where not given."""

    q: Array
    k: Array
    v: Array
    rel_height: Array | None
    rel_width: Array | None


def image(x: Inputs, window: Window, scale: float) -> Image:
    batch, heads, height, width, dim = x.k.shape
    block, halo, stride, masked = window
    return Image(batch * heads, height, width, block, halo, stride, masked, dim, x.v.shape[4], float(scale))


def fields(*arrays: Array) -> tuple[Field, ...]:
    return tuple(field(x) for x in arrays)


def tables(x: Inputs, window: Window) -> Array:
    """Both tables as float32, (2, rows * D), of zeros where one is not given, and (2, 0) without any."""
    if x.rel_height is None and x.rel_width is None:
        return np.empty((2, 0), np.float32)
    both = np.zeros((2, 2 * (window.block + window.halo) - 1, x.q.shape[4]), np.float32)
    for target, rel in zip(both, (x.rel_height, x.rel_width), strict=True):
        if rel is not None:
            target[...] = rel
    return both.reshape(2, -1)


@jit
def padded(count, step):
    """`count`, rounded up to a multiple of `step`."""
    return (count + step - 1) // step * step


@jit
def offsets(count, step):
    """``i * step`` for i below `count`, and then 0 up to a multiple of `ROWS`."""
    listed = np.zeros(padded(count, ROWS), np.int64)
    for i in range(count):
        listed[i] = i * step
    return listed


@jit
def list_runs(image, top, left, runs):
    """Fill `runs` for the block whose first pixel is (top, left).

    Returns the number of those inside of the image, that of all, and the numbers of their pixels.
    """
    side = image.block + 2 * image.halo
    first_y, stop_y = max(0, image.halo - top), min(side, image.height - top + image.halo)
    first_x, stop_x = max(0, image.halo - left), min(side, image.width - left + image.halo)
    inside = stop_y - first_y
    keys = inside * (stop_x - first_x)
    for i in range(inside):
        runs[i, Y], runs[i, X], runs[i, KEYS] = first_y + i, first_x, stop_x - first_x
    if image.masked:
        return inside, inside, keys, keys
    count = inside
    for y in range(side):
        within = first_y <= y < stop_y
        for first, stop in ((0, first_x), (stop_x, side)) if within else ((0, side), (0, 0)):
            if stop > first:
                runs[count, Y], runs[count, X], runs[count, KEYS] = y, first, stop - first
                count += 1
    return inside, count, keys, side * side


@jit
def locate(x, head, image, top, left, runs, inside, at):
    """Where the rows of the window's pixels inside of the image begin; the last is repeated to fill `ROWS`."""
    i = 0
    for r in range(inside):
        row = row_at(x, head, top - image.halo + runs[r, Y], left - image.halo + runs[r, X])
        for j in range(runs[r, KEYS]):
            at[i] = row + j * x.column
            i += 1
    for j in range(i, padded(i, ROWS)):
        at[j] = at[i - 1]


@jit
def as_floats(x, at, count, length, scratch):
    """A float32 vector that holds the rows at `at`, which become offsets in it: the field's own, or `scratch`."""
    if x.kind == FLOAT32:
        return x.floats
    for i in range(count):
        read_row(x, at[i], length, scratch, i * length)
        at[i] = i * length
    for i in range(count, padded(count, ROWS)):
        at[i] = at[count - 1]
    return scratch


@jit
def scratch_rows(x, count, length):
    """Scratch for `as_floats`."""
    return np.empty(0 if x.kind == FLOAT32 else count * length, np.float32)


@jit
def list_queries(image, top, left, first, count, lanes):
    """Describe in ``lanes[field, lane]`` the `count` queries of a block from `first`; further lanes repeat the last."""
    across = queries_in(image.block, image.width - left, image.stride)
    down, right = first // across, first % across
    for lane in range(LANES):
        lanes[Y, lane], lanes[X, lane] = down * image.stride, right * image.stride
        lanes[QUERY_Y, lane], lanes[QUERY_X, lane] = top // image.stride + down, left // image.stride + right
        if lane + 1 < count:
            right += 1
            if right == across:
                down, right = down + 1, 0


@jit
def queries_in(block, left, stride):
    """Queries of a block along an axis of which `left` pixels are left."""
    return (min(block, left) + stride - 1) // stride


@jit
def query_at(x, head, lanes, lane):
    """Where the row of a lane's query begins in a field of queries."""
    return row_at(x, head, lanes[QUERY_Y, lane], lanes[QUERY_X, lane])


@jit
def read_panel(x, head, lanes, count, length, rows, width, columns):
    """Rows of `count` queries, `width` apart, and the same as columns, of which further ones are zero."""
    for lane in range(count):
        read_row(x, query_at(x, head, lanes, lane), length, rows, lane * width)
        row = rows[lane * width : lane * width + length]
        for d in range(row.size):
            columns[d * LANES + lane] = row[d]
    for lane in range(count, LANES):
        for d in range(length):
            columns[d * LANES + lane] = 0


@jit
def relative(rel, row_at, q, image, lanes, by_row, out):
    """``out[axis, w, lane] = <q, rel[axis, w - pixel + block - 1]>`` for all w of a window's side; 0 without tables."""
    for axis in range(2):
        target = out[axis]
        if rel.size == 0:
            clear(target)
            continue
        products(rel[axis], row_at, rel.shape[1] // image.dim, 1, q, 0, LANES, image.dim, by_row, 0, LANES)
        for lane in range(LANES):
            source, column = by_row[(image.block - 1 - lanes[axis, lane]) * LANES + lane :], target[lane:]
            for i in range(0, target.size - lane, LANES):
                column[i] = source[i]


@jit
def clear(x):
    for i in range(x.size):
        x[i] = 0


@jit
def logits(image, x, at, inside_keys, runs, count, q, places, s, highest):
    """Logits of a panel in `s`, and the `highest` of each lane."""
    products(x, at, inside_keys, 1, q, 0, LANES, image.dim, s, 0, LANES)
    keys = 0
    for r in range(count):
        keys += runs[r, KEYS]
    for i in range(inside_keys * LANES, keys * LANES):
        s[i] = 0
    for lane in range(LANES):
        highest[lane] = -np.inf
    first = 0
    for r in range(count):
        add_relative(
            s, first * LANES, runs[r, KEYS], np.float32(image.scale), places[Y], runs[r, Y] * LANES,
            places[X], runs[r, X] * LANES, highest,
        )  # fmt: skip
        first += runs[r, KEYS]
    return keys
