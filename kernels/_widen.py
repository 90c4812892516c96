"""Narrow elements as float32, a vector at a time."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ._dot import FLOAT, VECTOR, WORD, array_data, load_vector, store_vector

_WORDS, _FLOATS = ir.VectorType(WORD, VECTOR), ir.VectorType(FLOAT, VECTOR)
_FLOAT8_NAN = 0x7F


def _constant(value: int) -> Any:
    return ir.Constant(_WORDS, [value] * VECTOR)


def load_floats(builder: Any, dtype: Any, data: Any, position: Any) -> Any:
    """float32 of `VECTOR` elements: float32, float16 (int16), bfloat16 (uint16), int8 or e4m3fn (uint8)."""
    x = load_vector(builder, data, position)
    if dtype == types.float32:
        return x
    if dtype == types.int8:
        return builder.sitofp(x, _FLOATS)
    bits = builder.zext(x, _WORDS)
    if dtype == types.uint16:
        return builder.bitcast(builder.shl(bits, _constant(16)), _FLOATS)
    if dtype == types.int16:
        return _float16(builder, bits)
    return _float8(builder, bits)


def _scaled(builder: Any, bits: Any, sign: int, up: int, down: int, exponent: int) -> tuple[Any, Any]:
    """The magnitude of a narrow float, and its value as float32 bits: moved `up`, times ``2 ** exponent``, signed."""
    magnitude = builder.and_(bits, _constant(sign - 1))
    small = builder.bitcast(builder.shl(magnitude, _constant(up)), _FLOATS)
    scale = ir.Constant(_FLOATS, [2.0**exponent] * VECTOR)
    signs = builder.shl(builder.and_(bits, _constant(sign)), _constant(down))
    value = builder.bitcast(builder.fmul(small, scale), _WORDS)
    return magnitude, builder.or_(value, signs)


def _float8(builder: Any, bits: Any) -> Any:
    magnitude, value = _scaled(builder, bits, 0x80, 20, 24, 120)
    is_nan = builder.icmp_unsigned("==", magnitude, _constant(_FLOAT8_NAN))
    return builder.bitcast(builder.select(is_nan, _constant(0x7FC00000), value), _FLOATS)


def _float16(builder: Any, bits: Any) -> Any:
    magnitude, value = _scaled(builder, bits, 0x8000, 13, 16, 112)
    special = builder.icmp_unsigned(">=", magnitude, _constant(0x7C00))
    return builder.bitcast(builder.select(special, builder.or_(value, _constant(0x7F800000)), value), _FLOATS)


@intrinsic
def widen(typing_context: Any, x: Any, first: Any, out: Any, at: Any) -> Any:
    """Elements ``first : first + VECTOR`` of `x` as float32, or as bfloat16 (a uint16 `out`), where exact."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data, target = (array_data(context, builder, signature, args, i) for i in (0, 2))
        value = load_floats(builder, signature.args[0].dtype, data, args[1])
        if signature.args[2].dtype == types.uint16:
            bits = builder.lshr(builder.bitcast(value, _WORDS), _constant(16))
            value = builder.trunc(bits, ir.VectorType(ir.IntType(16), VECTOR))
        store_vector(builder, value, target, args[3])
        return context.get_dummy_value()

    return types.void(x, types.intp, out, types.intp), generate
