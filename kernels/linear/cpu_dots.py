"""Dot products of rows of weights with few rows of activations, with vectors along them."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .._dot import (
    FLOAT,
    QUADS,
    VECTOR,
    WORD,
    array_data,
    load_vector,
    multiply_add,
    multiply_add_pairs,
    splat,
    store_vector,
)
from .cpu_widen import RUN, load_tables, load_words, request, run_of

ROWS, MOST = 4, 8
"""Rows of weights, and at most of activations, whose products are summed at once."""

COUNTS = (1, 2, 4, 8)
"""Rows of activations that there is code for."""


def rows_for(m: int) -> int:
    """How many rows of activations the code for m rows, or for a part of them, is for."""
    return next((count for count in COUNTS if count >= m), MOST)


_AT_ONCE, _KEPT = 16, 1
"""Sums that registers hold beside tables and operands, and rows of activations that they hold while rows change."""

_INDEX = ir.IntType(64)
_KINDS = {types.float32: "floats", types.uint16: "pairs", types.int16: "words"}


@intrinsic
def add_dots(
    typing_context: Any,
    codes: Any,
    first: Any,
    last: Any,
    pitch: Any,
    at: Any,
    tables: Any,
    x: Any,
    x_at: Any,
    x_pitch: Any,
    count: Any,
    runs: Any,
    factors: Any,
    totals: Any,
) -> Any:
    """``totals[r * MOST + c, lane] += factors[r] * products`` of `ROWS` rows r of codes and `count` rows c of x.

    Rows of codes are numbered from `first`, those beyond `last` are `last`; `pitch` and `x_pitch` are their distances,
    `at` and `x_at` where in them the `runs` runs begin. x is float32, bfloat16 (uint16) or int16, in the order of the
    runs; `count` is one of `COUNTS`. The codes of the rows after the next `ROWS` are asked for.
    """
    kind = _KINDS[x.dtype]

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data, table_data, x_data, factor_data, totals_data = (
            array_data(context, builder, signature, args, i) for i in (0, 5, 6, 11, 12)
        )
        _, first, last, pitch, at, _, _, x_at, x_pitch, count, runs, _, _ = args
        tables = load_tables(builder, table_data) if codes.dtype.bitwidth == 8 and kind != "words" else []
        ahead = builder.mul(pitch, _INDEX(2 * ROWS))
        rows = []
        for r in range(ROWS):
            number = builder.add(first, _INDEX(r))
            number = builder.select(builder.icmp_signed("<", number, last), number, last)
            rows.append(builder.add(builder.mul(number, pitch), at))
        for columns in COUNTS:
            with builder.if_then(builder.icmp_signed("==", count, _INDEX(columns))):
                together = min(ROWS, _AT_ONCE // columns)
                for start in range(0, ROWS, together):
                    _block(
                        builder,
                        kind,
                        codes.dtype,
                        data,
                        rows[start : start + together],
                        ahead,
                        tables,
                        x_data,
                        x_at,
                        x_pitch,
                        columns,
                        runs,
                        factor_data,
                        totals_data,
                        start,
                    )
        return context.get_dummy_value()

    index = types.intp
    return (
        types.void(codes, index, index, index, index, tables, x, index, index, index, index, factors, totals),
        generate,
    )


def _block(
    builder: Any,
    kind: str,
    dtype: Any,
    data: Any,
    rows: list[Any],
    ahead: Any,
    tables: list[Any],
    x_data: Any,
    x_at: Any,
    x_pitch: Any,
    columns: int,
    runs: Any,
    factor_data: Any,
    totals_data: Any,
    start: int,
) -> None:
    lanes = ir.VectorType(WORD if kind == "words" else FLOAT, VECTOR)
    zero = ir.Constant(lanes, None)
    sums = [[cgutils.alloca_once(builder, lanes) for _ in range(columns)] for _ in rows]
    for row in sums:
        for total in row:
            builder.store(zero, total)
    starts = [builder.add(x_at, builder.mul(x_pitch, _INDEX(c))) for c in range(columns)]
    load = load_vector if kind == "floats" else load_words
    with cgutils.for_range(builder, runs) as loop:
        step = builder.mul(loop.index, _INDEX(RUN))
        width = VECTOR if kind == "floats" else 2 * VECTOR
        places = [[builder.add(builder.add(at, step), _INDEX(i)) for i in range(0, RUN, width)] for at in starts]
        kept = [[load(builder, x_data, place) for place in row] for row in places] if columns <= _KEPT else None
        for row, totals in zip(rows, sums, strict=True):
            position = builder.add(row, step)
            request(builder, dtype, data, builder.add(position, ahead))
            vectors = run_of(builder, kind, dtype, data, position, tables)
            for c in range(columns):
                total = builder.load(totals[c])
                for i, vector in enumerate(vectors):
                    other = kept[c][i] if kept else load(builder, x_data, places[c][i])
                    total = _ADD[kind](builder, vector, other, total)
                builder.store(total, totals[c])
    for r, row in enumerate(sums):
        factor = splat(builder, builder.load(builder.gep(factor_data, [_INDEX(start + r)])))
        for c, total in enumerate(row):
            value = builder.load(total)
            if kind == "words":
                value = builder.sitofp(value, ir.VectorType(FLOAT, VECTOR))
            place = _INDEX(((start + r) * MOST + c) * VECTOR)
            value = multiply_add(builder, value, factor, load_vector(builder, totals_data, place))
            store_vector(builder, value, totals_data, place)


def _multiply_add_words(builder: Any, a: Any, b: Any, total: Any) -> Any:
    if QUADS:
        declared = ir.FunctionType(total.type, [total.type] * 3)
        function = cgutils.get_or_insert_function(builder.module, declared, "llvm.x86.avx512.vpdpwssd.512")
        return builder.call(function, [total, a, b])
    sixteen = ir.Constant(a.type, [16] * VECTOR)
    low = builder.mul(*(builder.ashr(builder.shl(v, sixteen), sixteen) for v in (a, b)))
    high = builder.mul(*(builder.ashr(v, sixteen) for v in (a, b)))
    return builder.add(total, builder.add(low, high))


_ADD = {"floats": multiply_add, "pairs": multiply_add_pairs, "words": _multiply_add_words}
