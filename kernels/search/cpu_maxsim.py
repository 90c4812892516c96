"""MaxSim: tiles of document tokens against blocks of query tokens, and the maxima of their documents."""

from __future__ import annotations

import numba
import numpy as np

from .._dot import HALF, ROWS, VECTOR
from .._numba import jit, kernel
from .cpu_lanes import largest_half, largest_lanes
from .cpu_operands import products, tile_numbers, tile_words


@kernel
def sum_maxima(
    blocks, words, source, length, columns, steps, tile, listed, offsets, shares, lengths, scores, argmax
):  # fmt: skip
    """Add to ``scores[b, d]`` the sum over the tokens of query b of their largest products with document d.

    Query b has the blocks ``b * n : (b + 1) * n``, `n` the number of blocks of a query. Thread t has
    the documents ``shares[t] : shares[t + 1]``. `argmax` is empty, or (queries, documents, tokens).
    """
    for share in numba.prange(shares.size - 1):
        _sum_share(
            np.int64(share), blocks, words, source, length, columns, steps, tile,
            listed, offsets, shares, lengths, scores, argmax,
        )  # fmt: skip


@jit
def _sum_share(
    share, blocks, words, source, length, columns, steps, tile, listed, offsets, shares, lengths, scores, argmax
):  # fmt: skip
    per_query = blocks.shape[0] // scores.shape[0]
    tile_scores = np.empty((tile + ROWS) * columns, np.float32)
    starts = np.empty(tile + ROWS, np.int64)
    numbers = np.empty(tile + ROWS, np.int64)
    initial = np.empty(tile + ROWS, np.int32)
    converted = np.zeros(0 if words.size else (tile + ROWS) * steps + VECTOR, words.dtype)
    maxima = np.full((blocks.shape[0], columns), np.float32(-np.inf), np.float32)
    places = np.zeros((blocks.shape[0], columns), np.int64)
    document = shares[share]
    last_token = offsets[shares[share + 1]]
    for first in range(offsets[document], last_token, tile):
        rows = min(tile, last_token - first)
        tile_numbers(listed, first, rows, numbers)
        operand = tile_words(words, source, numbers, rows, length, steps, converted, starts, initial)
        while offsets[document + 1] <= first:
            document += 1
        for b in range(blocks.shape[0]):
            query, lane = b // per_query, b % per_query * columns
            used = min(columns, lengths[query] - lane)
            if used > 0:
                products(operand, starts, rows, blocks[b], initial, steps, columns, b == 0, tile_scores)
                _fold(tile_scores, columns, used, lane, numbers, first, rows, document, offsets, maxima[b],
                      places[b], scores[query], argmax[query] if argmax.size else argmax[:0, 0])  # fmt: skip


@jit
def _fold(scores, columns, used, lane, numbers, first, rows, document, offsets, maxima, places, totals, argmax):
    """Take the scores of a tile into the maxima of its documents, and those of a document that ends to its total."""
    while document < totals.size and offsets[document] < first + rows:
        start = max(offsets[document], first) - first
        stop = min(offsets[document + 1], first + rows) - first
        if stop > start:
            if offsets[document] >= first:
                for i in range(columns):
                    maxima[i], places[i] = -np.inf, numbers[start]
            if argmax.size:
                _locate(scores, columns, start, stop, numbers, maxima, places)
            elif columns == HALF:
                largest_half(scores, start, stop - start, maxima)
            else:
                largest_lanes(scores, start, stop - start, maxima)
            if offsets[document + 1] <= first + rows:
                total = 0.0
                for i in range(used):
                    total += maxima[i]
                totals[document] += np.float32(total)
                if argmax.size:
                    for i in range(used):
                        argmax[document, lane + i] = places[i]
        document += 1


@jit
def _locate(scores, columns, start, stop, numbers, maxima, places):
    """Maxima with the numbers of their tokens."""
    for i in range(start, stop):
        row = scores[i * columns : (i + 1) * columns]
        number = numbers[i]
        for lane in range(row.size):
            larger = row[lane] > maxima[lane]
            maxima[lane] = row[lane] if larger else maxima[lane]
            places[lane] = number if larger else places[lane]
