"""The formats, and the integer constants that drive one generic kernel for all of them."""

from __future__ import annotations

import functools
import struct
from typing import NamedTuple

OVERFLOWS = ("sat", "nonsat", "paper")
ROUNDINGS = ("nearest", "stochastic", "toward_zero")
SCALE_FORMATS = ("fp32", "pow2", "e8m0")
SCALE_ROUNDINGS = ("floor", "ceil", "even")

FLOAT32_INF = 0x7F800000
FLOAT32_MAX = 0x7F7FFFFF


class Format(NamedTuple):
    """A binary floating-point format of at most 16 bits. `max_code + 1` is Inf, or NaN without Inf.

    An `integer` format has the magnitudes of a floating-point format with one exponent bit; its codes are
    two's complement.
    """

    name: str
    mantissa_bits: int
    bias: int
    max_code: int
    nan_code: int
    has_inf: bool
    negative_zero: bool
    integer: bool = False

    @property
    def max(self) -> float:
        return self.magnitude(self.max_code)

    @property
    def emax(self) -> int:
        """Exponent of the largest power of two."""
        return (self.max_code >> self.mantissa_bits) - self.bias

    def magnitude(self, code: int) -> float:
        """Value of a magnitude code; one code past `max_code` continues the progression."""
        exponent, fraction = divmod(code, 1 << self.mantissa_bits)
        if exponent == 0:
            exponent = 1
        else:
            fraction += 1 << self.mantissa_bits
        return fraction * 2.0 ** (exponent - self.bias - self.mantissa_bits)


FORMATS = {
    f.name: f
    for f in (
        Format("e4m3fn", 3, 7, 0x7E, 0x7F, False, True),
        Format("e5m2", 2, 15, 0x7B, 0x7F, True, True),
        Format("e4m3fnuz", 3, 8, 0x7F, 0x80, False, False),
        Format("e5m2fnuz", 2, 16, 0x7F, 0x80, False, False),
    )
}
INT8 = Format("int8", 6, -5, 127, 0, False, False, integer=True)
SCALED_FORMATS = {**FORMATS, INT8.name: INT8}
"""What goes with scales; `FORMATS` alone convert without one."""
FLOAT16 = Format("float16", 10, 15, 0x7BFF, 0x7E00, True, True)


class Recipe(NamedTuple):
    """How an array (B, M, N) is quantized: one scale per `block` of (M, N)."""

    fmt: Format
    block: tuple[int, int]
    scale_format: str = "fp32"
    scale_rounding: str = "floor"
    overflow: str = "sat"
    rounding: str = "nearest"
    seed: int | None = None


def float32_bits(value: float) -> int:
    """Bit pattern of the float32 nearest to `value`."""
    return int(struct.unpack("<I", struct.pack("<f", value))[0])


class Encoding(NamedTuple):
    """Constants of the float32 -> narrow conversion; every field fits a uint32.

    With `a` the magnitude bits of the input clamped to `clamp`:
    normal results are ``(a + bias + lsb) >> shift`` (nearest), subnormal ones, below `min_normal`,
    the low bits of ``float(a) + float(magic)``, whose last bit weighs one quantum of the format.
    If `plain`, that is all but for magnitudes above `nan_above`, which give `nan_code`: the clamp
    has made Inf what it should be, and zeros keep their sign. The code of an `integer` format is the
    result with its sign, in two's complement.
    """

    shift: int
    clamp: int
    bias: int
    min_normal: int
    magic: int
    inf_code: int
    nan_code: int
    zero_sign: int
    mantissa_bits: int
    nan_above: int
    plain: int
    integer: int


class Scaling(NamedTuple):
    """Constants of the scale of a block; every field fits a uint32.

    `mode` is 0 for an fp32 scale, else 1 + the index of the rounding of a power of two; `max` are
    float32 bits, `max_fraction` its fraction, and `half` half a unit in the format's last place.
    """

    mode: int
    max: int
    emax: int
    max_fraction: int
    half: int


class Decoding(NamedTuple):
    """Constants of the code -> float32 conversion; every field fits a uint32.

    A magnitude code `m` is ``float((m << shift) + rebias)`` from `first_normal` up; below it, the
    same with one exponent step more, less ``float(min_normal)``. Past `max_code` stands `special`
    (Inf or NaN) and then NaN; the whole code `lone_nan` is NaN (256: no code is).
    The code of an `integer` format is its own value.
    """

    shift: int
    rebias: int
    first_normal: int
    min_normal: int
    max_code: int
    special: int
    lone_nan: int
    integer: int


@functools.cache
def encoding(fmt: Format, overflow: str = "nonsat", rounding: str = "nearest") -> Encoding:
    m = fmt.mantissa_bits
    shift = 23 - m
    top = fmt.max_code + (overflow == "nonsat" and rounding != "toward_zero")
    return Encoding(
        shift=shift,
        clamp=float32_bits(fmt.magnitude(top)),
        bias=((1 << (shift - 1)) - 1 - ((127 - fmt.bias) << 23)) & 0xFFFFFFFF,
        min_normal=float32_bits(2.0 ** (1 - fmt.bias)),
        magic=float32_bits(2.0 ** (1 - fmt.bias - m + 23)),
        inf_code=fmt.max_code + (overflow != "sat"),
        nan_code=fmt.nan_code,
        zero_sign=0xFFFFFFFF if fmt.negative_zero else 0,
        mantissa_bits=m,
        nan_above=FLOAT32_INF - (overflow == "paper" and not fmt.has_inf),
        plain=int(fmt.negative_zero and not (overflow == "paper" and fmt.has_inf)),
        integer=int(fmt.integer),
    )


@functools.cache
def decoding(fmt: Format) -> Decoding:
    shift = 23 - fmt.mantissa_bits
    return Decoding(
        shift=shift,
        rebias=(127 - fmt.bias) << 23,
        first_normal=1 << fmt.mantissa_bits,
        min_normal=float32_bits(2.0 ** (1 - fmt.bias)),
        max_code=fmt.max_code,
        special=FLOAT32_INF if fmt.has_inf else 0x7FC00000,
        lone_nan=256 if fmt.negative_zero else fmt.nan_code,
        integer=int(fmt.integer),
    )


@functools.cache
def scaling(fmt: Format, scale_format: str, scale_rounding: str) -> Scaling:
    largest = float32_bits(fmt.max)
    return Scaling(
        mode=0 if scale_format == "fp32" else 1 + SCALE_ROUNDINGS.index(scale_rounding),
        max=largest,
        emax=fmt.emax,
        max_fraction=largest & 0x7FFFFF,
        half=1 << (22 - fmt.mantissa_bits),
    )
