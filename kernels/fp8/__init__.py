"""FP8 conversion, scaling and quantization; int8 quantization.

Formats (``formats.FORMATS``)
    ``e4m3fn`` and ``e5m2`` of "FP8 Formats for Deep Learning" (arXiv 2209.05433, Table 1) and of
    OCP OFP8 1.0; ``e4m3fnuz`` and ``e5m2fnuz``, which have one zero, one NaN (0x80) and no Inf.
    A code is a byte: sign, exponent, mantissa. Scales may also be ``e8m0fnu`` (OCP MX 1.0): the
    byte ``c`` is ``2**(c - 127)``, and 255 is NaN.

    What has scales may also be ``int8``, symmetric: the integers -127 to 127 in two's complement. -128
    is never produced, and is -128 where it is found. There is no Inf, no NaN and one zero.

Encode: one rounding step from the input's own value
    ``nearest`` rounds to nearest, ties to even, with an unbounded exponent range, so overflow is
    judged after rounding; ``toward_zero`` never overflows; ``stochastic`` rounds the magnitude up
    with a probability equal to the fraction of the interval that it has passed (below).

    =============  ==============  ==================  ==============================
    overflow       finite          +-Inf               NaN
    =============  ==============  ==================  ==============================
    ``sat``        +-max           +-max               NaN
    ``nonsat``     Inf, else NaN   Inf, else NaN       NaN
    ``paper``      +-max           Inf, else NaN       NaN
    =============  ==============  ==================  ==============================

    "Inf, else NaN" is Inf in ``e5m2``, the only format that has one. A produced NaN is the code
    with all exponent and mantissa bits set and keeps the sign; in the fnuz formats it is 0x80.
    Zeros keep their sign where the format has two.

Stochastic rounding is counter-based (Philox4x32-10, Salmon et al. 2011)
    Element ``i`` in C order takes word ``i % 4`` of the block with the counter ``i // 4`` and the
    64-bit key ``seed``. With ``lo <= |x| < hi`` the neighbouring magnitudes and
    ``f = floor(2**31 * (|x| - lo) / (hi - lo))``, the result is ``hi`` exactly when
    ``f + (word >> 1) >= 2**31``. float64 magnitudes are first cut to 24 significant bits.

Amax
    ``max |x|`` as an integer maximum over the magnitude bits, which orders finite < Inf < NaN, so
    both propagate. Scales are computed from the finite elements alone; of int8, from all but Inf.

Scale of a block with amax ``a``; ``fmax`` is the format's largest value, ``2**emax`` its largest
power of two
    no finite non-zero element: 1. NaN in a block of int8: NaN (E8M0: 255). Otherwise:

    =======================  ===================================================================
    fp32                     ``float32(float64(a) / fmax)``, clamped to [2**-126, float32 max]
    pow2 and e8m0, floor     ``2**(floor(log2 a) - emax)``: OCP MX 1.0, section 6.3
    pow2 and e8m0, ceil      the smallest power of two not below ``a / fmax``
    pow2 and e8m0, even      floor, after rounding ``a`` to the format's significand, ties to even
    =======================  ===================================================================

    Powers of two are clamped to [2**-127, 2**127]. For int8 ``fmax`` is 127, ``emax`` 6, and the
    significand has seven bits, of which the first is before the point.

Quantize
    ``encode(x / scale)``; dequantize ``decode(code) * scale``. Both are computed in float32, or in
    float64 when the array outside is float64; float16 and bfloat16 results are rounded from that.

    For int8 the three roundings are to integers, of the magnitude as above; overflow is ``sat``, and NaN
    becomes 0. So a NaN turns the whole block into zeros with the scale NaN, whose products are NaN: it is
    not taken for a number. Only if the scale was given is it: for 0.
"""
