"""Runs of `RUN` weights as vectors in registers: float32, pairs of bfloat16, or pairs of int16.

Bytes become bfloat16, which holds every int8 and fp8 value, by tables in registers; that leaves their order changed,
and `order` says how, so that activations are put in the same order. Nothing else is out of order.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import ml_dtypes
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .._dot import FLOAT, PAIRS, VECTOR, WORD, array_data, multiply_add_quads, store_vector
from .._numba import cpu_features, prefetch
from .._widen import load_floats

RUN = 64

TABLES = "avx512vbmi" in cpu_features()
"""Whether bytes are looked up in registers. Elsewhere fp8 is looked up in memory, one by one."""

PAIRED = PAIRS and TABLES
"""Whether bytes meet bfloat16 activations in products of pairs."""


def in_pairs(x: np.dtype, codes: np.dtype) -> bool:
    """Whether the products of activations and weights of these dtypes are of pairs of bfloat16."""
    return x == ml_dtypes.bfloat16 and (codes == ml_dtypes.bfloat16 or (codes.itemsize == 1 and PAIRED))


_BYTE, _HALF = ir.IntType(8), ir.IntType(16)
_BYTES = ir.VectorType(_BYTE, RUN)
_INDEX = ir.IntType(64)


@cache
def table(format: str) -> np.ndarray:
    """The values of the 256 bytes: low and high halves of their bfloat16, or float32 where there are no tables."""
    codes = np.arange(256, dtype=np.uint8)
    kind = np.int8 if format == "int8" else getattr(ml_dtypes, f"float8_{format}")
    values = codes.view(kind).astype(np.float32)
    if not TABLES:
        return values.view(np.uint8)
    bits = values.astype(ml_dtypes.bfloat16).view(np.uint16)
    return np.concatenate([bits & 0xFF, bits >> 8]).astype(np.uint8)


@cache
def order(kind: str, dtype: np.dtype, raw: bool) -> np.ndarray:
    """Position in a run of each element of its vectors, which are of `kind` "floats" or "pairs"; `raw`: of int8."""
    places = np.arange(RUN)
    if raw or not TABLES or dtype.itemsize > 1 or (kind == "floats" and dtype == np.int8):
        return places
    width = 4 if kind == "floats" else 8
    vector, lane = places // (4 * width), places % (4 * width)
    return lane // width * 16 + vector * width + lane % width


def run_of(builder: Any, kind: str, dtype: Any, data: Any, position: Any, tables: Any) -> list[Any]:
    """The vectors of a run: four of float32, two of words of bfloat16, or two of words of int16."""
    if kind == "words":
        halves = (_bytes(builder, data, builder.add(position, _INDEX(32 * i)), 32) for i in range(2))
        wide = ir.VectorType(_HALF, 32)
        return [builder.bitcast(builder.sext(half, wide), ir.VectorType(WORD, VECTOR)) for half in halves]
    if kind == "pairs":
        if dtype == types.uint16:
            return [load_words(builder, data, builder.add(position, _INDEX(32 * i))) for i in range(2)]
        return [
            builder.bitcast(half, ir.VectorType(WORD, VECTOR)) for half in _bfloat16(builder, data, position, tables)
        ]
    if dtype == types.uint8:
        if TABLES:
            return [part for half in _bfloat16(builder, data, position, tables) for part in _floats(builder, half)]
        return [_looked_up(builder, data, builder.add(position, _INDEX(VECTOR * i)), tables) for i in range(4)]
    return [load_floats(builder, dtype, data, builder.add(position, _INDEX(VECTOR * i))) for i in range(4)]


def load_words(builder: Any, data: Any, position: Any) -> Any:
    """16 words at an element of 16 bits."""
    place = builder.bitcast(builder.gep(data, [position]), ir.VectorType(WORD, VECTOR).as_pointer())
    return builder.load(place, align=2)


def _bytes(builder: Any, data: Any, position: Any, count: int) -> Any:
    place = builder.bitcast(builder.gep(data, [position]), ir.VectorType(_BYTE, count).as_pointer())
    return builder.load(place, align=1)


def _shuffle(builder: Any, a: Any, b: Any, order: list[int]) -> Any:
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(WORD, len(order)), order))


def load_tables(builder: Any, data: Any) -> list[Any]:
    """Registers of a table; where there are none, where it begins in memory."""
    if TABLES:
        return [_bytes(builder, data, _INDEX(RUN * i), RUN) for i in range(8)]
    return [builder.bitcast(data, FLOAT.as_pointer())]


def _bfloat16(builder: Any, data: Any, position: Any, tables: list[Any]) -> list[Any]:
    codes = _bytes(builder, data, position, RUN)
    negative = builder.icmp_signed("<", codes, ir.Constant(_BYTES, None))
    low, high = (
        builder.select(negative, *(_permuted(builder, tables[at], codes, tables[at + 1]) for at in (first + 2, first)))
        for first in (0, 4)
    )
    order = [
        [at for q in range(4) for i in range(8) for at in (16 * q + 8 * h + i, RUN + 16 * q + 8 * h + i)]
        for h in range(2)
    ]
    return [_shuffle(builder, low, high, places) for places in order]


def _permuted(builder: Any, first: Any, codes: Any, second: Any) -> Any:
    declared = ir.FunctionType(_BYTES, [_BYTES] * 3)
    function = cgutils.get_or_insert_function(builder.module, declared, "llvm.x86.avx512.vpermi2var.qi.512")
    return builder.call(function, [first, codes, second])


def _floats(builder: Any, half: Any) -> list[Any]:
    """float32 of 32 bfloat16 (as 64 bytes)."""
    words = builder.bitcast(half, ir.VectorType(_HALF, 32))
    zero = ir.Constant(words.type, None)
    lanes = ir.VectorType(FLOAT, VECTOR)
    starts = ([8 * q + 4 * part + i for q in range(4) for i in range(4)] for part in range(2))
    mixed = (_shuffle(builder, words, zero, [at for i in places for at in (32, i)]) for places in starts)
    return [builder.bitcast(vector, lanes) for vector in mixed]


def _looked_up(builder: Any, data: Any, position: Any, tables: list[Any]) -> Any:
    value = ir.Constant(ir.VectorType(FLOAT, VECTOR), ir.Undefined)
    for lane in range(VECTOR):
        code = builder.load(builder.gep(data, [builder.add(position, _INDEX(lane))]))
        entry = builder.load(builder.gep(tables[0], [builder.zext(code, _INDEX)]))
        value = builder.insert_element(value, entry, WORD(lane))
    return value


@intrinsic
def widen_runs(
    typing_context: Any, codes: Any, at: Any, tables: Any, runs: Any, ahead: Any, out: Any, out_at: Any
) -> Any:
    """Runs of codes from `at` as float32 or bfloat16 (uint16) from ``out[out_at]``, in the order of `order`.

    Meanwhile the codes `ahead` of them are asked for.
    """
    kind = "floats" if out.dtype == types.float32 else "pairs"

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data, table_data, target = (array_data(context, builder, signature, args, i) for i in (0, 2, 5))
        registers = load_tables(builder, table_data)
        with cgutils.for_range(builder, args[3]) as loop:
            step = builder.mul(loop.index, _INDEX(RUN))
            position = builder.add(args[1], step)
            request(builder, codes.dtype, data, builder.add(position, args[4]))
            vectors = run_of(builder, kind, codes.dtype, data, position, registers)
            width = RUN // len(vectors)
            place = builder.add(args[6], step)
            for i, vector in enumerate(vectors):
                if kind == "pairs":
                    vector = builder.bitcast(vector, ir.VectorType(_HALF, 32))
                store_vector(builder, vector, target, builder.add(place, _INDEX(i * width)))
        return context.get_dummy_value()

    index = types.intp
    return types.void(codes, index, tables, index, index, out, index), generate


@intrinsic
def copy_runs(typing_context: Any, codes: Any, at: Any, runs: Any, ahead: Any, out: Any, word: Any) -> Any:
    """Runs of int8 from `at` into the int32 words of `out` from `word`; 128 times their sum.

    Meanwhile the codes `ahead` of them are asked for.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data, target = (array_data(context, builder, signature, args, i) for i in (0, 4))
        _, at, runs, ahead, _, word = args
        lanes = ir.VectorType(WORD, VECTOR)
        offset = ir.Constant(lanes, [-0x7F7F7F80] * VECTOR)  # bytes of 128
        total = cgutils.alloca_once_value(builder, ir.Constant(lanes, None))
        builder.store(ir.Constant(lanes, None), total)
        with cgutils.for_range(builder, runs) as loop:
            position = builder.add(at, builder.mul(loop.index, _INDEX(RUN)))
            request(builder, codes.dtype, data, builder.add(position, ahead))
            run = builder.bitcast(_bytes(builder, data, position, RUN), lanes)
            store_vector(builder, run, target, builder.add(word, builder.mul(loop.index, _INDEX(VECTOR))))
            builder.store(multiply_add_quads(builder, run, offset, builder.load(total)), total)
        declared = ir.FunctionType(WORD, [lanes])
        function = cgutils.get_or_insert_function(builder.module, declared, f"llvm.vector.reduce.add.v{VECTOR}i32")
        return builder.call(function, [builder.load(total)])

    index = types.intp
    return types.int32(codes, index, index, index, out, index), generate


def request(builder: Any, dtype: Any, data: Any, position: Any) -> None:
    """Ask for the cache lines of a run."""
    for line in range(0, RUN, RUN * 8 // dtype.bitwidth):
        prefetch(builder, data, builder.add(position, _INDEX(line)))
