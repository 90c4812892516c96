"""Integer keys whose order is the ranking of `kernels.topk`, and vector operations on them.

The key of a floating-point number is its magnitude's bits with its sign applied as arithmetic, so
that -0.0 and 0.0 are both 0; magnitudes above that of Inf, which are NaN, become one key above that
of Inf. Integers are their own keys. `flip` is the exclusive or that remains to be applied: every bit
for the reverse order, the top bit for unsigned integers. All is decided by three constants, so one
compiled kernel serves all types of a width.

Elements reach jitted code as signed integers of their width. A kernel computes keys of that width and
widens the few that it keeps: keys in memory are int32, those of 64-bit elements int64.
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
from numba.np.arrayobj import make_array

from ._numba import LANES, WIDE, _splat, bits_from_float32, float32_from_bits, jit

Array = np.ndarray[Any, Any]

_NAN = {
    np.dtype(ml_dtypes.bfloat16): 0x7F81,
    np.dtype(np.float16): 0x7C01,
    np.dtype(np.float32): 0x7F800001,
    np.dtype(np.float64): 0x7FF0000000000001,
}
"""The key of NaN: that of Inf, and one."""
_INTEGERS = {size: np.dtype(f"i{size}") for size in (1, 2, 4, 8)}


@cache
def order_constants(dtype: np.dtype[Any], largest: bool) -> Array:
    """The bits of the magnitude, the key of NaN, and `flip`, to rank elements of `dtype` the largest or smallest first.

    Jitted code unpacks them once, with `load_order`.
    """
    info = np.iinfo(f"int{8 * dtype.itemsize}")
    floating = dtype in _NAN
    flip = (0 if largest else -1) ^ (int(info.min) if dtype.kind == "u" else 0)
    return np.array([info.max if floating else -1, _NAN.get(dtype, info.max), flip], info.dtype)


def as_integers(x: Array) -> Array:
    """The elements of `x` as signed integers of their width, without a copy."""
    return x.view(_INTEGERS[x.itemsize])


@cache
def key_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The type of keys in memory."""
    return np.dtype(np.int64 if dtype.itemsize == 8 else np.int32)


@jit
def load_order(constants):
    return constants[0], constants[1], constants[2]


@jit
def float32_order():
    """The order of float32, the largest first."""
    return np.int32(0x7FFFFFFF), np.int32(0x7F800001), np.int32(0)


def _key_type(element: Any) -> Any:
    return types.int64 if element.bitwidth == 64 else types.int32


def _key(builder: Any, bits: Any, magnitude: Any, nan: Any, flip: Any) -> Any:
    """Keys of `bits`, one element or a vector, as the other arguments are."""
    width = getattr(bits.type, "element", bits.type).width
    top = ir.Constant(bits.type, [width - 1] * bits.type.count if isinstance(bits.type, ir.VectorType) else width - 1)
    sign = builder.ashr(builder.and_(bits, builder.not_(magnitude)), top)
    size = builder.and_(bits, magnitude)
    number = builder.icmp_signed("<", size, nan)
    sign = builder.select(number, sign, ir.Constant(bits.type, None))
    size = builder.select(number, size, nan)
    return builder.xor(builder.sub(builder.xor(size, sign), sign), flip)


@intrinsic
def key_of(typing_context: Any, element: Any, order: Any) -> Any:
    """The key of one element, in its own width: a loop over it vectorises. The `order` None: it is a key."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if isinstance(order, types.NoneType):
            return args[0]
        return _key(builder, args[0], *cgutils.unpack_tuple(builder, args[1]))

    return element(element, order), generate


def _load_keys(context: Any, builder: Any, x: Any, order: Any, args: Any, offset: int = 0) -> Any:
    """The keys of `LANES` elements; the arguments start with an array, a position and an order."""
    array, first, constants = args[:3]
    lanes_ir = ir.VectorType(ir.IntType(x.dtype.bitwidth), LANES)
    pointer = builder.gep(make_array(x)(context, builder, array).data, [builder.add(first, first.type(offset))])
    lanes = builder.load(builder.bitcast(pointer, lanes_ir.as_pointer()), align=x.dtype.bitwidth // 8)
    if isinstance(order, types.NoneType):
        return lanes
    splats = [_splat(builder, value, lanes_ir) for value in cgutils.unpack_tuple(builder, constants)]
    return _key(builder, lanes, *splats)


def _max_key_of(count: int) -> Any:
    @intrinsic
    def max_key_of(typing_context: Any, x: Any, first: Any, order: Any) -> Any:
        """The largest key, widened, of a constant number of elements of `x` from `first`.

        The `order` None says that `x` holds keys.
        """

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            largest = _load_keys(context, builder, x, order, args)
            for offset in range(LANES, count, LANES):
                keys = _load_keys(context, builder, x, order, args, offset)
                largest = builder.select(builder.icmp_signed(">", keys, largest), keys, largest)
            element = largest.type.element
            reduction = ir.FunctionType(element, [largest.type])
            name = f"llvm.vector.reduce.smax.v{LANES}i{element.width}"
            largest = builder.call(cgutils.get_or_insert_function(builder.module, reduction, name), [largest])
            return builder.sext(largest, ir.IntType(max(32, element.width)))

        return _key_type(x.dtype)(x, types.intp, order), generate

    return max_key_of


max_key_lanes, max_key_wide = _max_key_of(LANES), _max_key_of(WIDE)


@intrinsic
def lanes_at_least(typing_context: Any, x: Any, first: Any, order: Any, threshold: Any) -> Any:
    """Which of the `LANES` elements of `x` from `first` have a key of at least `threshold`: bits of an int64.

    The `order` None says that `x` holds keys.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        keys = _load_keys(context, builder, x, order, args)
        least = args[3] if x.dtype.bitwidth >= 32 else builder.trunc(args[3], keys.type.element)
        chosen = builder.icmp_signed(">=", keys, _splat(builder, least, keys.type))
        return builder.zext(builder.bitcast(chosen, ir.IntType(LANES)), ir.IntType(64))

    return types.int64(x, types.intp, order, _key_type(x.dtype)), generate


@intrinsic
def lanes_above(typing_context: Any, x: Any, first: Any, order: Any, keys: Any) -> Any:
    """Which of the `LANES` elements of `x` from `first` exceed their neighbour in `keys`, which is as wide."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        above = _load_keys(context, builder, x, order, args)
        below = _load_keys(context, builder, keys, types.none, (args[3], args[1], None))
        return builder.zext(builder.bitcast(builder.icmp_signed(">", above, below), ir.IntType(LANES)), ir.IntType(64))

    return types.int64(x, types.intp, order, keys), generate


@jit
def first_at_least(x, first, last, order, threshold):
    """`lanes_at_least` of only the elements before `last`, which may be fewer than `LANES`."""
    if first + LANES <= last:
        return lanes_at_least(x, first, order, threshold)
    chosen = 0
    for i in range(last - first):
        chosen |= np.int64(key_of(x[first + i], order) >= threshold) << i
    return chosen


@intrinsic
def lowest_bit(typing_context: Any, mask: Any) -> Any:
    """The number of the lowest bit of an int64 that is set; 64 if none is."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.int64), generate


@intrinsic
def bit_count(typing_context: Any, mask: Any) -> Any:
    """How many bits of an int64 are set."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ctpop(args[0])

    return types.int64(types.int64), generate


@jit
def key_of_float32(x):
    """The key of a float32."""
    return key_of(np.int32(bits_from_float32(x)), float32_order())


@jit
def float32_of_key(key):
    """A float32 of that key; 0.0 for the key of both zeros."""
    bits = np.uint32(key) if key >= 0 else np.uint32(np.uint32(-key) | np.uint32(0x80000000))
    return float32_from_bits(bits)
