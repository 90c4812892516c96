"""The fused search: a tile of database rows against blocks of queries, and selection from its scores."""

from __future__ import annotations

import numba
import numpy as np

from .._dot import HALF, ROWS, VECTOR
from .._numba import jit, kernel, shift_left
from .._order import lowest_bit
from .cpu_candidates import offer
from .cpu_lanes import above_half, above_lanes, rescale_half, rescale_lanes
from .cpu_operands import products, tile_numbers, tile_words


@kernel
def search_parts(
    blocks, words, source, length, columns, steps, tile, scale, bias, listed, count, mask, k, splits, keys, ids, filled
):  # fmt: skip
    """Candidates of every query from every part of the database.

    `listed` names `count` rows to search; if it is empty they are the first ones of the database.
    ``splits = (parts of the blocks, parts of the rows)``. For part p of the rows, the first
    ``filled[p, query]`` entries of ``keys[p, query]`` and ``ids[p, query]`` become the best of its
    scores, k or more unless there are fewer, in the order of their rows.
    """
    block_parts, row_parts = splits
    for task in numba.prange(block_parts * row_parts):
        _search_part(
            np.int64(task), blocks, words, source, length, columns, steps, tile,
            scale, bias, listed, count, mask, k, splits, keys, ids, filled,
        )  # fmt: skip


@jit
def _search_part(
    task, blocks, words, source, length, columns, steps, tile,
    scale, bias, listed, count, mask, k, splits, keys, ids, filled,
):  # fmt: skip
    block_parts, row_parts = splits
    block_share = (blocks.shape[0] + block_parts - 1) // block_parts
    row_share = ((count + row_parts - 1) // row_parts + tile - 1) // tile * tile
    part = task // block_parts
    first_block = (task % block_parts) * block_share
    last_block = min(blocks.shape[0], first_block + block_share)
    scores = np.empty((tile + ROWS) * columns, np.float32)
    starts = np.empty(tile + ROWS, np.int64)
    numbers = np.empty(tile + ROWS, np.int64)
    initial = np.empty(tile + ROWS, np.int32)
    allowed = np.full(tile, np.uint32(0xFFFFFFFF), np.uint32)
    converted = np.zeros(0 if words.size else (tile + ROWS) * steps + VECTOR, words.dtype)
    bounds = np.full((blocks.shape[0], columns), np.float32(-np.inf), np.float32)
    last_row = min(count, (part + 1) * row_share)
    for first in range(part * row_share, last_row, tile):
        rows = min(tile, last_row - first)
        tile_numbers(listed, first, rows, numbers)
        operand = tile_words(words, source, numbers, rows, length, steps, converted, starts, initial)
        for b in range(first_block, last_block):
            products(operand, starts, rows, blocks[b], initial, steps, columns, b == first_block, scores)
            if scale.size or bias.size:
                _rescale(scores, columns, numbers, rows, scale, bias)
            queries = min(columns, keys.shape[1] - b * columns)
            if mask.size:
                _allow(mask, b * columns, queries, numbers, rows, allowed)
            _collect(scores, columns, numbers, rows, allowed, bounds[b], b * columns, queries, k,
                     keys[part], ids[part], filled[part])  # fmt: skip


@jit
def _rescale(scores, columns, numbers, rows, scale, bias):
    for i in range(rows):
        n = numbers[i]
        a = scale[n] if scale.size else np.float32(1)
        b = bias[n] if bias.size else np.float32(0)
        if columns == HALF:
            rescale_half(scores, i, a, b)
        else:
            rescale_lanes(scores, i, a, b)


@jit
def _allow(mask, first_query, queries, numbers, rows, allowed):
    """Bit q of ``allowed[i]``: whether row i of the tile counts for query q of the block."""
    contiguous = numbers[rows - 1] - numbers[0] == rows - 1
    bits = allowed[:rows]
    for i in range(rows):
        bits[i] = 0
    for q in range(queries):
        lane = np.uint32(q)
        row = mask[first_query + q]
        if contiguous:
            flags = row[numbers[0] : numbers[0] + rows]
            for i in range(bits.size):
                bits[i] |= shift_left(np.uint32(flags[i]), lane)
        else:
            for i in range(bits.size):
                bits[i] |= shift_left(np.uint32(row[numbers[i]]), lane)


@jit
def _collect(scores, columns, numbers, rows, allowed, bounds, first_query, queries, k, keys, ids, filled):
    """Add the scores of a tile that exceed their query's bound to its candidates; a full list is cut to its k best."""
    for lane in range(queries, columns):
        bounds[lane] = np.inf
    for first in range(0, rows, ROWS):
        count = min(ROWS, rows - first)
        if columns == HALF:
            found = above_half(scores, first, count, bounds, allowed)
        else:
            found = above_lanes(scores, first, count, bounds, allowed)
        while found != 0:
            lane = np.int64(lowest_bit(np.uint64(found)))
            found &= found - np.uint32(1)
            query = first_query + lane
            n = filled[query]
            for i in range(first, first + count):
                score = scores[i * columns + lane]
                if score > bounds[lane] and (allowed[i] >> np.uint32(lane)) & np.uint32(1):
                    n = offer(keys[query], ids[query], n, k, score, numbers[i], bounds, lane)
            filled[query] = n
