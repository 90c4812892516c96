"""Softmax down the columns of a block of logits, `VECTOR` columns at a time.

A logit of column `lane` is ``s[at + key * row + lane]``. A column's own maximum and sum are the only numbers that
it depends on.
"""

from __future__ import annotations

import math
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .._dot import FLOAT, VECTOR, WORD, array_data, load_vector, multiply_add, splat, store_vector

_LANES, _WORDS = ir.VectorType(FLOAT, VECTOR), ir.VectorType(WORD, VECTOR)
_TERMS = 8
_LOWEST = -126.0
"""Binary logarithm of the smallest weight; what is less is 0."""


def _constant(value: float) -> Any:
    return ir.Constant(_LANES, [ir.Constant(FLOAT, value)] * VECTOR)


def _words(value: int) -> Any:
    return ir.Constant(_WORDS, [ir.Constant(WORD, value)] * VECTOR)


def _call(builder: Any, name: str, *args: Any) -> Any:
    declared = ir.FunctionType(args[0].type, [a.type for a in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, declared, name), args)


def exponential(builder: Any, x: Any) -> Any:
    """exp of lanes that are at most 0: a Taylor polynomial of 2^r, |r| <= 1/2, times a power of two.

    Off by less than 3e-7 of itself plus 6e-8 |x|; exactly 0 below 2^-126; NaN of NaN.
    """
    t = builder.fmul(x, _constant(1 / math.log(2)))
    n = _call(builder, f"llvm.nearbyint.v{VECTOR}f32", t)
    r = builder.fsub(t, n)
    y = _constant(math.log(2) ** (_TERMS - 1) / math.factorial(_TERMS - 1))
    for k in reversed(range(_TERMS - 1)):
        y = multiply_add(builder, y, r, _constant(math.log(2) ** k / math.factorial(k)))
    inside = builder.fcmp_ordered(">=", t, _constant(_LOWEST))
    power = builder.fptosi(builder.select(inside, n, _constant(0)), _WORDS)
    scaled = builder.add(builder.bitcast(y, _WORDS), builder.shl(power, _words(23)))
    result = builder.select(inside, builder.bitcast(scaled, _LANES), _constant(0))
    return builder.select(builder.fcmp_unordered("uno", t, t), t, result)


@intrinsic
def scale_keys(typing_context: Any, s: Any, row: Any, keys: Any, factors: Any) -> Any:
    """The first columns of s, those of key j times ``factors[j]``."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        s_data, factor_data = (array_data(context, builder, signature, args, i) for i in (0, 3))
        _, row, keys, _ = args
        with cgutils.for_range(builder, keys) as loop:
            place = builder.mul(loop.index, row)
            factor = splat(builder, builder.load(builder.gep(factor_data, [loop.index])))
            store_vector(builder, builder.fmul(load_vector(builder, s_data, place), factor), s_data, place)
        return context.get_dummy_value()

    return types.void(s, types.intp, types.intp, factors), generate


@intrinsic
def raise_maxima(typing_context: Any, s: Any, at: Any, row: Any, keys: Any, highest: Any, highest_at: Any) -> Any:
    """``highest[highest_at + lane] = max(itself, the column's logits)``; NaN is passed over."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        s_data, highest_data = (array_data(context, builder, signature, args, i) for i in (0, 4))
        _, at, row, keys, _, highest_at = args
        most = cgutils.alloca_once(builder, _LANES)
        builder.store(load_vector(builder, highest_data, highest_at), most)
        with cgutils.for_range(builder, keys) as loop:
            value = load_vector(builder, s_data, builder.add(at, builder.mul(loop.index, row)))
            before = builder.load(most)
            builder.store(builder.select(builder.fcmp_ordered(">", value, before), value, before), most)
        store_vector(builder, builder.load(most), highest_data, highest_at)
        return context.get_dummy_value()

    return types.void(s, types.intp, types.intp, types.intp, highest, types.intp), generate


@intrinsic
def exponentials(
    typing_context: Any, s: Any, at: Any, row: Any, keys: Any, highest: Any, total: Any, lanes_at: Any
) -> Any:
    """``s = exp(s - highest[lanes_at + lane])`` in place, and ``total[lanes_at + lane]`` plus their sums.

    A maximum of -Inf counts as 0: what is not allowed has weight 0.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        s_data, highest_data, total_data = (array_data(context, builder, signature, args, i) for i in (0, 4, 5))
        _, at, row, keys, _, _, lanes_at = args
        most = load_vector(builder, highest_data, lanes_at)
        lowest = _constant(-math.inf)
        most = builder.select(builder.fcmp_ordered("==", most, lowest), _constant(0), most)
        sums = cgutils.alloca_once(builder, _LANES)
        builder.store(load_vector(builder, total_data, lanes_at), sums)
        with cgutils.for_range(builder, keys) as loop:
            place = builder.add(at, builder.mul(loop.index, row))
            weight = exponential(builder, builder.fsub(load_vector(builder, s_data, place), most))
            store_vector(builder, weight, s_data, place)
            builder.store(builder.fadd(builder.load(sums), weight), sums)
        store_vector(builder, builder.load(sums), total_data, lanes_at)
        return context.get_dummy_value()

    return types.void(s, types.intp, types.intp, types.intp, highest, total, types.intp), generate


@intrinsic
def rescale(
    typing_context: Any, before: Any, highest: Any, total: Any, lanes_at: Any, out: Any, at: Any, row: Any, count: Any
) -> Any:
    """Make sums relative to `highest` that are relative to the maxima `before`.

    ``total[lanes_at + lane]`` and ``out[at + i * row + lane]``, i < count, times exp(before - highest).
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        before_data, highest_data, total_data, out_data = (
            array_data(context, builder, signature, args, i) for i in (0, 1, 2, 4)
        )
        _, _, _, lanes_at, _, at, row, count = args
        most = load_vector(builder, highest_data, lanes_at)
        most = builder.select(builder.fcmp_ordered("==", most, _constant(-math.inf)), _constant(0), most)
        factor = exponential(builder, builder.fsub(load_vector(builder, before_data, lanes_at), most))
        store_vector(builder, builder.fmul(load_vector(builder, total_data, lanes_at), factor), total_data, lanes_at)
        with cgutils.for_range(builder, count) as loop:
            place = builder.add(at, builder.mul(loop.index, row))
            store_vector(builder, builder.fmul(load_vector(builder, out_data, place), factor), out_data, place)
        return context.get_dummy_value()

    index = types.intp
    return types.void(before, highest, total, index, out, index, index, index), generate
