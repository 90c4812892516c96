"""Products of few queries: `ROWS` of them at a time, with vectors along a head's dimension, at the speed of memory.

Keys of any type are widened in registers; bfloat16 keys meet bfloat16 queries in products of pairs.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .._dot import (
    FLOAT,
    VECTOR,
    WORD,
    array_data,
    load_vector,
    multiply_add,
    multiply_add_pairs,
    splat,
    store_vector,
)
from .._numba import CACHE_LINE, prefetch
from .._widen import load_floats

ROWS, KEYS = 4, 4
"""Queries and keys whose products are summed at once."""

WIDTH = 16
"""Lanes of a block of weights."""

_INDEX = ir.IntType(64)
_LANES = ir.VectorType(FLOAT, VECTOR)
_ZERO = ir.Constant(_LANES, None)


def _shuffle(builder: Any, a: Any, b: Any, order: Any) -> Any:
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(WORD, len(order)), list(order)))


def _sums(builder: Any, vectors: list[Any]) -> Any:
    """The sums of 16 vectors as the lanes of one: halves are added until one element is left of each."""
    width = VECTOR
    while width > 1:
        half, count = width // 2, len(vectors) // 2
        low: list[int] = []
        high: list[int] = []
        for start in range(0, VECTOR, width):
            for vector in (0, VECTOR):
                low += range(vector + start, vector + start + half)
                high += range(vector + start + half, vector + start + width)
        vectors = [
            builder.fadd(
                _shuffle(builder, vectors[i], vectors[i + count], low),
                _shuffle(builder, vectors[i], vectors[i + count], high),
            )
            for i in range(count)
        ]
        width = half
    return vectors[0]


@intrinsic
def dots(typing_context: Any, q: Any, q_at: Any, pitch: Any, k: Any, offsets: Any, first: Any, dim: Any, s: Any) -> Any:
    """``s[(first + j) * WIDTH + at + r]`` of `KEYS` keys j and `ROWS` queries r, whose rows are `pitch` apart.

    ``at`` is the row ``q_at // pitch``. Of float32 queries, or of bfloat16 (uint16) queries and keys; `dim` is a
    multiple of 16, of 32 for pairs.
    """
    pairs = q.dtype == types.uint16

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        q_data, k_data, offset_data, s_data = (array_data(context, builder, signature, args, i) for i in (0, 3, 4, 7))
        _, q_at, pitch, _, _, first, dim, _ = args
        wide = 2 * VECTOR if pairs else VECTOR
        rows = [builder.add(q_at, builder.mul(pitch, _INDEX(r))) for r in range(ROWS)]
        keys = [builder.load(builder.gep(offset_data, [builder.add(first, _INDEX(j))])) for j in range(KEYS)]
        sums = [[cgutils.alloca_once_value(builder, _ZERO) for _ in range(ROWS)] for _ in range(KEYS)]
        for row in sums:
            for total in row:
                builder.store(_ZERO, total)
        with cgutils.for_range(builder, builder.sdiv(dim, _INDEX(wide))) as loop:
            d = builder.mul(loop.index, _INDEX(wide))
            if pairs:
                queries = [_pairs(builder, q_data, builder.add(row, d)) for row in rows]
            else:
                queries = [load_vector(builder, q_data, builder.add(row, d)) for row in rows]
            for key, totals in zip(keys, sums, strict=True):
                place = builder.add(key, d)
                value = _pairs(builder, k_data, place) if pairs else load_floats(builder, k.dtype, k_data, place)
                add = multiply_add_pairs if pairs else multiply_add
                for query, total in zip(queries, totals, strict=True):
                    builder.store(add(builder, value, query, builder.load(total)), total)
        result = _sums(builder, [builder.load(total) for row in sums for total in row])
        column = builder.sdiv(q_at, pitch)
        for j in range(KEYS):
            part = _shuffle(builder, result, result, range(j * ROWS, (j + 1) * ROWS))
            at = builder.add(builder.mul(builder.add(first, _INDEX(j)), _INDEX(WIDTH)), column)
            store_vector(builder, part, s_data, at)
        return context.get_dummy_value()

    index = types.intp
    return types.void(q, index, index, k, offsets, index, index, s), generate


def _pairs(builder: Any, data: Any, position: Any) -> Any:
    lanes = ir.VectorType(WORD, VECTOR)
    place = builder.bitcast(builder.gep(data, [position]), lanes.as_pointer())
    return builder.load(place, align=2)


def _weighted(vectors: int, asks: bool) -> Any:
    @intrinsic
    def weighted(
        typing_context: Any,
        weights: Any,
        row: Any,
        v: Any,
        offsets: Any,
        ahead: Any,
        d: Any,
        count: Any,
        out: Any,
        pitch: Any,
    ) -> Any:
        """``out[(row + r) * pitch + d + i]`` plus `count` values by their weights, of `ROWS` rows and a run of i.

        float32 weights are at ``key * WIDTH + row``; uint32 words of them hold two keys, whose bfloat16 values are
        taken in pairs, of runs twice as long; an odd last key counts as two. If it `asks`, it asks for the
        same run of the values that come `ahead` of each.
        """
        pairs = weights.dtype == types.uint32

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            weight_data, v_data, offset_data, out_data = (
                array_data(context, builder, signature, args, i) for i in (0, 2, 3, 7)
            )
            _, row, _, _, ahead, d, count, _, pitch = args
            run = [_INDEX(i * VECTOR) for i in range(vectors * (2 if pairs else 1))]
            places = [
                [builder.add(builder.add(builder.mul(builder.add(row, _INDEX(r)), pitch), d), i) for i in run]
                for r in range(ROWS)
            ]
            sums = [[cgutils.alloca_once(builder, _LANES) for _ in run] for _ in range(ROWS)]
            for totals, at in zip(sums, places, strict=True):
                for total, place in zip(totals, at, strict=True):
                    builder.store(load_vector(builder, out_data, place), total)
            steps = builder.sdiv(builder.add(count, _INDEX(1)), _INDEX(2)) if pairs else count
            with cgutils.for_range(builder, steps) as loop:
                if pairs:
                    even = builder.mul(loop.index, _INDEX(2))
                    steps_at = [builder.add(even, _INDEX(j)) for j in range(2)]
                    keys = [builder.load(builder.gep(offset_data, [at])) for at in steps_at]
                    values = _interleaved(builder, v_data, [builder.add(key, d) for key in keys], vectors)
                    add = multiply_add_pairs
                else:
                    steps_at = [loop.index]
                    key = builder.load(builder.gep(offset_data, steps_at))
                    values = [load_floats(builder, v.dtype, v_data, builder.add(builder.add(key, d), i)) for i in run]
                    add = multiply_add
                for at in steps_at if asks else ():
                    later = builder.add(builder.load(builder.gep(offset_data, [builder.add(at, ahead)])), d)
                    for element in range(0, len(run) * VECTOR, CACHE_LINE * 8 // v.dtype.bitwidth):
                        prefetch(builder, v_data, builder.add(later, _INDEX(element)))
                at = builder.add(builder.mul(loop.index, _INDEX(WIDTH)), row)
                for r in range(ROWS):
                    weight = splat(builder, builder.load(builder.gep(weight_data, [builder.add(at, _INDEX(r))])))
                    for value, total in zip(values, sums[r], strict=True):
                        builder.store(add(builder, value, weight, builder.load(total)), total)
            for totals, at in zip(sums, places, strict=True):
                for total, place in zip(totals, at, strict=True):
                    store_vector(builder, builder.load(total), out_data, place)
            return context.get_dummy_value()

        index = types.intp
        return types.void(weights, index, v, offsets, index, index, index, out, index), generate

    return weighted


def _interleaved(builder: Any, data: Any, rows: list[Any], vectors: int) -> list[Any]:
    """Words of the elements of two rows side by side, `vectors` times twice `VECTOR` of them."""
    lanes, words = ir.VectorType(ir.IntType(16), 2 * VECTOR), ir.VectorType(WORD, VECTOR)
    found = []
    for i in range(vectors):
        at = _INDEX(i * 2 * VECTOR)
        a, b = (
            builder.load(builder.bitcast(builder.gep(data, [builder.add(row, at)]), lanes.as_pointer()), align=2)
            for row in rows
        )
        for half in (0, VECTOR):
            order = [j for i in range(half, half + VECTOR) for j in (i, i + 2 * VECTOR)]
            found.append(builder.bitcast(_shuffle(builder, a, b, order), words))
    return found


weighted, weighted_wide, weighted_wide_pairs = (_weighted(vectors, False) for vectors in (1, 4, 2))
first_weighted, first_weighted_wide, first_weighted_wide_pairs = (_weighted(vectors, True) for vectors in (1, 4, 2))
"""Runs of 16 elements, or 64; of 32, or 64, in pairs. The first rows ask for what comes next, for all."""
