"""Matrix products between runs of memory: `ROWS` rows against `LANES` columns at a time.

    out[out_at + r * LANES + lane] (+)= sum_s  x[rows[first + r] + s * x_step] * block[block_at + s * block_step + lane]

Rows are named by their offsets, so that keys may lie anywhere; `block` holds a query in each lane, or a key's or a
query's elements. Sums are float32, each one chain of multiply-adds in the order of the steps. In the `pairs`
products, x is bfloat16 (uint16), a step of it is two neighbours, and `block` is words of two. In the `at` products,
the offsets of the steps are given in place of a stride.
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
from .._numba import cpu_features, jit

ROWS, LANES = 8 if "avx512f" in cpu_features() else 4, 32
"""Rows and columns of a product; 16 of the sums' registers of AVX-512 leave room for what they need."""

_INDEX = ir.IntType(64)
_VECTORS = LANES // VECTOR


def _product(add: Any, accumulate: bool, named_steps: bool) -> Any:
    @intrinsic
    def product(
        typing_context: Any,
        x: Any,
        rows: Any,
        first: Any,
        x_step: Any,
        block: Any,
        block_at: Any,
        block_step: Any,
        steps: Any,
        out: Any,
        out_at: Any,
        out_row: Any,
    ) -> Any:
        """One tile; rows of `out` are `out_row` apart. All arrays are vectors; `steps` may be 0."""

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            x_data, row_data, block_data, out_data = (
                array_data(context, builder, signature, args, i) for i in (0, 1, 4, 8)
            )
            _, _, first, x_step, _, block_at, block_step, steps, _, out_at, out_row = args
            starts = [
                builder.gep(x_data, [builder.load(builder.gep(row_data, [builder.add(first, _INDEX(r))]))])
                for r in range(ROWS)
            ]
            places = [builder.add(out_at, builder.mul(out_row, _INDEX(r))) for r in range(ROWS)]
            lanes_ir = ir.VectorType(FLOAT, VECTOR)
            sums = [[cgutils.alloca_once(builder, lanes_ir) for _ in range(_VECTORS)] for _ in range(ROWS)]
            for r in range(ROWS):
                for v in range(_VECTORS):
                    value = ir.Constant(lanes_ir, None)
                    if accumulate:
                        value = load_vector(builder, out_data, builder.add(places[r], _INDEX(v * VECTOR)))
                    builder.store(value, sums[r][v])
            with cgutils.for_range(builder, steps) as loop:
                step = loop.index
                if named_steps:
                    step_data = array_data(context, builder, signature, args, 3)
                    offset = builder.load(builder.gep(step_data, [step]))
                else:
                    offset = builder.mul(step, x_step)
                at = builder.add(block_at, builder.mul(step, block_step))
                columns = [
                    load_vector(builder, block_data, builder.add(at, _INDEX(v * VECTOR))) for v in range(_VECTORS)
                ]
                for r in range(ROWS):
                    place = builder.gep(starts[r], [offset])
                    if add is multiply_add_pairs:
                        word = builder.load(builder.bitcast(place, WORD.as_pointer()), align=2)
                    else:
                        word = builder.load(place)
                    value = splat(builder, word)
                    for v in range(_VECTORS):
                        total = add(builder, value, columns[v], builder.load(sums[r][v]))
                        builder.store(total, sums[r][v])
            for r in range(ROWS):
                for v in range(_VECTORS):
                    store_vector(
                        builder, builder.load(sums[r][v]), out_data, builder.add(places[r], _INDEX(v * VECTOR))
                    )
            return context.get_dummy_value()

        index = types.intp
        step_kind = x_step if named_steps else index
        return (
            types.void(x, rows, index, step_kind, block, index, index, index, out, index, index),
            generate,
        )

    return product


_floats, _floats_added = (_product(multiply_add, accumulate, False) for accumulate in (False, True))
_floats_at_added = _product(multiply_add, True, True)
_pairs, _pairs_added = (_product(multiply_add_pairs, accumulate, False) for accumulate in (False, True))


@jit
def products(x, rows, count, x_step, block, block_at, block_step, steps, out, out_at, out_row):
    """``out = x block`` of `count` rows; `rows` and `out` hold a multiple of `ROWS`, the rest anything valid."""
    for first in range(0, count, ROWS):
        at = out_at + first * out_row
        _floats(x, rows, first, x_step, block, block_at, block_step, steps, out, at, out_row)


@jit
def add_products(x, rows, count, x_step, block, block_at, block_step, steps, out, out_at, out_row):
    """``out += x block``"""
    for first in range(0, count, ROWS):
        at = out_at + first * out_row
        _floats_added(x, rows, first, x_step, block, block_at, block_step, steps, out, at, out_row)


@jit
def add_products_at(x, rows, count, step_offsets, block, block_at, block_step, steps, out, out_at, out_row):
    """``out += x block``, step s of x at ``step_offsets[s]``"""
    for first in range(0, count, ROWS):
        at = out_at + first * out_row
        _floats_at_added(x, rows, first, step_offsets, block, block_at, block_step, steps, out, at, out_row)


@jit
def pair_products(x, rows, count, block, block_at, block_step, steps, out, out_at, out_row):
    """``out = x block`` of bfloat16, two neighbours of a row a step"""
    for first in range(0, count, ROWS):
        at = out_at + first * out_row
        _pairs(x, rows, first, 2, block, block_at, block_step, steps, out, at, out_row)


@jit
def add_pair_products(x, rows, count, x_step, block, block_at, block_step, steps, out, out_at, out_row):
    """``out += x block`` of bfloat16, the two of a step side by side in x, steps `x_step` elements apart"""
    for first in range(0, count, ROWS):
        at = out_at + first * out_row
        _pairs_added(x, rows, first, x_step, block, block_at, block_step, steps, out, at, out_row)
