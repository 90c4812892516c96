"""Halo attention without this library: gathered windows, by products or by torch's function, and FlexAttention.

The gathered forms copy the window of every block, (1 + 2 halo / block)^2 times the keys and values. FlexAttention
reads them block by block, from an image that is stored so; it has the relative logits of each query in a table.
The image is a multiple of the block; pixels outside of it are zeros that take part.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import shutil
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]
Call = Callable[[], Any]

PRODUCTS, SDPA, FLEX = "unfold, products", "unfold, SDPA", "FlexAttention"


class Inputs(NamedTuple):
    """q, k and v are (B, H, height, width, D), the tables (2 block + 2 halo - 1, D); all arrays, or all tensors."""

    q: Any
    k: Any
    v: Any
    rel_height: Any
    rel_width: Any


@functools.cache
def absent() -> dict[str, str]:
    """Why a peer cannot run here."""
    if importlib.util.find_spec("torch") is None:
        return dict.fromkeys((PRODUCTS, SDPA, FLEX), "torch is not installed")
    if not any(map(shutil.which, ("c++", "g++", "clang++"))):
        return {FLEX: "no C++ compiler"}
    return {}


def halo(name: str, inputs: Inputs, block: int, radius: int) -> Call:
    """The output, for tensors `inputs`; FlexAttention has no gradient on a CPU."""
    if name == FLEX:
        return _flex(inputs, block, radius)
    return functools.partial(_gathered, name, inputs, block, radius)


def _gathered(name: str, inputs: Inputs, block: int, radius: int) -> Any:
    torch: Any = importlib.import_module("torch")
    q, k, v, rel_height, rel_width = inputs
    batch, heads, height, width, _ = q.shape
    down, right = height // block, width // block
    queries = (
        q.view(batch, heads, down, block, right, block, -1).transpose(3, 4).reshape(-1, block * block, q.shape[-1])
    )
    keys, values = (_windows(x, block, radius) for x in (k, v))
    relative = _relative(queries, rel_height, rel_width, block, radius)
    if name == SDPA:
        attend = torch.nn.functional.scaled_dot_product_attention
        out = attend(*(x[:, None] for x in (queries, keys, values, relative)))
    else:
        scores = torch.baddbmm(relative, queries, keys.transpose(1, 2), alpha=q.shape[-1] ** -0.5)
        out = torch.bmm(torch.softmax(scores, -1), values)
    out = out.view(batch, heads, down, right, block, block, -1)
    return out.transpose(3, 4).reshape(batch, heads, height, width, -1)


def _relative(queries: Any, rel_height: Any, rel_width: Any, block: int, radius: int) -> Any:
    """What tables add to the logits of all queries and keys of a block; offsets become positions by strides."""
    window, offsets = block + 2 * radius, len(rel_height)
    shape, first = (len(queries), block, block, window), block - 1
    steps = block * block * offsets, block * offsets, offsets, 1
    by_row = (queries @ rel_height.T).as_strided(shape, (steps[0], steps[1] - 1, steps[2], 1), first)
    by_column = (queries @ rel_width.T).as_strided(shape, (steps[0], steps[1], steps[2] - 1, 1), first)
    return (by_row[..., None] + by_column[..., None, :]).view(len(queries), block * block, window * window)


def _windows(x: Any, block: int, radius: int) -> Any:
    """(B, H, height, width, D) to (all blocks, window^2, D), copied."""
    torch: Any = importlib.import_module("torch")
    window = block + 2 * radius
    padded = torch.nn.functional.pad(x, (0, 0, radius, radius, radius, radius))
    windows = padded.unfold(2, window, block).unfold(3, window, block).permute(0, 1, 2, 3, 5, 6, 4)
    return windows.reshape(-1, window * window, x.shape[-1])


def _flex(inputs: Inputs, block: int, radius: int) -> Call:
    """Keys and values with a border of one block of zeros; pixels of a block stand together."""
    torch: Any = importlib.import_module("torch")
    flex: Any = importlib.import_module("torch.nn.attention.flex_attention")
    batch, heads, height, width, _ = inputs.q.shape
    down, right, area = height // block, width // block, block * block
    last = 2 * (block + radius) - 2

    def place(token: Any, blocks_right: int) -> tuple[Any, Any]:
        number, inside = token // area, token % area
        return (number // blocks_right) * block + inside // block, (number % blocks_right) * block + inside % block

    def visible(b: Any, h: Any, query: Any, key: Any) -> Any:
        y, x = place(key, right + 2)
        first_y, first_x = (query // area // right + 1) * block, (query // area % right + 1) * block
        tall = (y >= first_y - radius) & (y < first_y + block + radius)
        return tall & (x >= first_x - radius) & (x < first_x + block + radius)

    def blocked(x: Any) -> Any:
        tall, wide = x.shape[2] // block, x.shape[3] // block
        return x.view(batch, heads, tall, block, wide, block, -1).transpose(3, 4).flatten(2, 5)

    seen = flex.create_block_mask(
        visible, None, None, down * right * area, (down + 2) * (right + 2) * area, device="cpu", BLOCK_SIZE=area
    )

    @functools.partial(torch.compile, dynamic=False)
    def attend(queries: Any, keys: Any, values: Any, by_row: Any, by_column: Any) -> Any:
        def relative(score: Any, b: Any, h: Any, query: Any, key: Any) -> Any:
            (query_y, query_x), (key_y, key_x) = place(query, right), place(key, right + 2)
            row, column = (key_y - query_y + radius - 1, key_x - query_x + radius - 1)
            row, column = row.clamp(0, last), column.clamp(0, last)
            return score + by_row[b, h, query, row] + by_column[b, h, query, column]

        return flex.flex_attention(queries, keys, values, score_mod=relative, block_mask=seen)

    def run(q: Any, k: Any, v: Any, rel_height: Any, rel_width: Any) -> Any:
        queries = blocked(q)
        keys, values = (blocked(torch.nn.functional.pad(x, (0, 0, *[block] * 4))) for x in (k, v))
        out = attend(queries, keys, values, queries @ rel_height.T, queries @ rel_width.T)
        out = out.view(batch, heads, down, right, block, block, -1).transpose(3, 4)
        return out.reshape(batch, heads, height, width, -1)

    return functools.partial(run, *inputs)
